"""The options of `rho-score losses`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, UseAppendAction

from rho_score.config.option import Group, metavar

_STORES = Group("Score sets", "All stores must be of the same corpus and tokenizer.")
_OUTPUT = Group("Output and workers")


@dataclass(frozen=True, kw_only=True)
class LossesConfig:
    """Compare models on the tokens that selections keep and drop.

    Prints the mean loss of the kept and of the dropped tokens of each selection under each score
    set. With the score sets of a run's checkpoints, this shows what training did to either kind;
    with a selection for each checkpoint, whether later checkpoints would have chosen the same.
    Tokens without a loss under any of the score sets are left out.
    """

    selection: Annotated[Positional[tuple[str, ...]], metavar("[NAME=]SELECTION")]
    """One or more selections. Name each if there are several."""

    scores: Annotated[UseAppendAction[tuple[str, ...]], _STORES, metavar("NAME=SCORES")]
    """A score set. Repeat the option for several, those of checkpoints with the earliest first."""
    per_group: Annotated[bool, _OUTPUT] = False
    """Also print a row for each group of documents."""
    steps: Annotated[tuple[float, ...], _OUTPUT, metavar("STEP")] = ()
    """Where each score set stands on the figure, in training steps or in tokens. By default, they
    are equally spaced."""
    plot: Annotated[str | None, _OUTPUT, metavar("FILE")] = None
    """Write the mean losses as a figure to this path or URL. Its name ends with .svg, .png or
    .pdf. Dropped tokens are drawn if there is only one selection."""
    csv: Annotated[str | None, _OUTPUT, metavar("FILE")] = None
    """Write the table, with its groups, as CSV to this path or URL."""
    workers: Annotated[int | None, _OUTPUT, metavar("N")] = None
    """How many tasks run at the same time. By default, as many as the cluster has CPUs for."""

    def __post_init__(self) -> None:
        for name in ("selection", "scores"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, (value,))
