"""The options of `rho-score curve`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from rho_score.config.option import Group, metavar

_ASKED = Group("What is printed", "If you give none of the first three, ratios from 0.01 to 0.99 are printed.")
_FILES = Group("Files")


@dataclass(frozen=True, kw_only=True)
class CurveConfig:
    """Print what other ratios, budgets or thresholds would keep.

    The answer comes from the histogram of a selection, so no scores are read and it takes seconds.
    It is about the whole ranking: one cut for all groups, and no --drop-top. If the scores are
    float32 or sampled, they were counted in detail near the selection's own cut only. Figures
    elsewhere are then exact to about 1 % of the score.
    """

    selection: Annotated[Positional[str], metavar("SELECTION")]
    """The selection, as a path or as any fsspec URL."""
    ratio: Annotated[tuple[float, ...], _ASKED, metavar("RATIO")] = ()
    """Print what these ratios would keep."""
    tokens: Annotated[tuple[int, ...], _ASKED, metavar("N")] = ()
    """Print what these budgets of tokens would keep."""
    threshold: Annotated[tuple[float, ...], _ASKED, metavar("NATS")] = ()
    """Print what these thresholds would keep."""
    expert: Annotated[str | None, _ASKED, metavar("NAME")] = None
    """The reference whose ranking is meant. A selection made with --combine union has one ranking
    for each reference."""
    plot: Annotated[str | None, _FILES, metavar("FILE")] = None
    """Write the curves as a figure to this path or URL. Its name ends with .svg, .png or .pdf."""
    csv: Annotated[str | None, _FILES, metavar("FILE")] = None
    """Write every point of the curves as CSV to this path or URL: group, threshold, ratio, items
    and tokens. If a spreadsheet would run the name of a group as a formula, a ' is put in front of
    it."""
