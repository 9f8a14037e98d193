"""The options of `rho-score compare`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from rho_score.config.option import Group, metavar

_SCORES = Group("Score sets")
_SHOWN = Group("Documents that are shown")
_OUTPUT = Group("Output and workers")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Tell how far other data is from yours, by bits per byte.

    The first score set is your data; each other one is compared with it. All must be made with the
    same model, precision, tokenizer and context. With --per-group, each group of the others is
    compared with the first set too; with one score set alone, each group is compared with all the
    other documents.

    Documents that are short or in another language often have more bits per byte, whatever they are
    about. Therefore documents of like length are compared as well. The result says how predictable
    a text is to the model, and not what it is about.
    """

    scores: Annotated[Positional[tuple[str, ...]], metavar("[NAME=]SCORES")]
    """Score sets, as paths or as any fsspec URLs. The first is the one that the others are compared
    with."""

    per_group: Annotated[bool, _SCORES] = False
    """Compare each group of documents too."""
    allow_unfinished: Annotated[bool, _SCORES] = False
    """Accept score sets that are still being written, and use the units that are published."""

    documents: Annotated[int, _SHOWN, metavar("N")] = 5
    """How many documents of each kind are shown of each set: the hardest and the easiest that lie
    outside nearly all of yours, and those that are nearest to the middle of yours. If groups of
    one set are compared, they are shown of each of the 20 largest."""
    min_tokens: Annotated[int, _SHOWN, metavar("N")] = 32
    """Show only documents with at least this many tokens that have a loss. Very short ones are hard
    for any model."""

    page: Annotated[str | None, _OUTPUT, metavar("FILE")] = None
    """Write an HTML page with figures, tables and documents to this path or URL."""
    csv: Annotated[str | None, _OUTPUT, metavar("FILE")] = None
    """Write every number as CSV to this path or URL, one row for each set and group."""
    plot: Annotated[str | None, _OUTPUT, metavar("FILE")] = None
    """Write the distributions as a figure to this path or URL. Its name ends with .svg, .png or
    .pdf."""
    workers: Annotated[int | None, _OUTPUT, metavar("N")] = None
    """How many tasks run at the same time. By default, as many as the cluster has CPUs for."""

    def __post_init__(self) -> None:
        if isinstance(self.scores, str):
            object.__setattr__(self, "scores", (self.scores,))
