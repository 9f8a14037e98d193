"""The options of `rho-score report`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, UseAppendAction

from rho_score.config.option import Group, metavar

_PAGE = Group("Page")
_RUNS = Group("Training runs")
_MOVED = Group("Score sets", "A selection notes where its score sets are. Name those that have moved.")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write an HTML page about a score set, a selection or a run.

    The page is a single file that needs no network. It shows counts, distributions, the tokens that
    are kept most and least often, and documents token by token. It is made from the stores alone,
    without the model or the corpus.
    """

    store: Annotated[Positional[str], metavar("STORE")]
    """The score set, selection or training run, as a path or as any fsspec URL."""
    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The HTML file to write, as a path or as any fsspec URL."""
    compare: Annotated[UseAppendAction[tuple[str, ...]], _RUNS, metavar("RUN")] = ()
    """Another training run to draw in the same figures. Repeat the option for several."""
    documents: Annotated[int, _PAGE, metavar("N")] = 12
    """How many documents are shown token by token, as heat maps: those that are kept most, kept
    least and most divided, and random ones, about as many each."""
    sample_tokens: Annotated[int, _PAGE, metavar("N")] = 2_000_000
    """How many tokens are sampled for the figures that need single tokens. Counts and thresholds
    are always exact."""
    ref: Annotated[str | None, _MOVED, metavar("SCORES")] = None
    """The score set of the reference model."""
    base: Annotated[str | None, _MOVED, metavar("SCORES")] = None
    """The score set of the base model."""

    def __post_init__(self) -> None:
        if isinstance(self.compare, str):
            object.__setattr__(self, "compare", (self.compare,))
