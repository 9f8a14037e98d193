"""The figures of a comparison."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from rho_score import charts
from rho_score.ranking.rates import Rates
from rho_score.reporting.compared import Comparison

FEWEST_BINS, MOST_BINS = 8, 80
PERCENTS = np.arange(1, 100) / 100


def distributions(rates: Mapping[str, Rates]) -> Figure:
    """The distributions of the documents' bits per byte, by name.

    Bins are as wide as the rule of Freedman and Diaconis (1981), 2 · IQR / n^(1/3), says for the
    sample with the narrowest.
    """
    ends = [of.quantiles((0.002, 0.25, 0.75, 0.998)) for of in rates.values()]
    width = min(
        2 * (high - low) / of.documents ** (1 / 3) for of, (_, low, high, _) in zip(rates.values(), ends, strict=True)
    )
    span = max(end[3] for end in ends) - min(end[0] for end in ends)
    bins = int(np.clip(span / width if width else MOST_BINS, FEWEST_BINS, MOST_BINS))
    return charts.histogram_figure(
        {name: of.values() for name, of in rates.items()},
        label="loss of a document",
        items="documents",
        unit="bits per byte",
        bins=bins,
    )


def quantiles(rates: Mapping[str, Rates]) -> Figure:
    """The percentiles of each sample against those of the first. Equal samples are on the diagonal."""
    first, *others = rates.items()
    left = first[1].quantiles(PERCENTS.tolist())
    lines: dict[str, tuple[Sequence[float], Sequence[float]]] = {f"as {first[0]}": (left, left)}
    lines |= {name: (left, of.quantiles(PERCENTS.tolist())) for name, of in others}
    return charts.lines_figure(lines, x=f"percentiles of {first[0]}, bits per byte", y="percentiles of the other")


def differences(comparisons: Sequence[Comparison]) -> Figure:
    """The differences of the mean bits per byte, with their intervals."""
    return charts.intervals_figure(
        [(c.label, *c.difference) for c in comparisons], label="difference, bits per byte of a document", middle=0
    )


def probabilities(comparisons: Sequence[Comparison]) -> Figure:
    """The probabilities of being harder, with their intervals."""
    return charts.intervals_figure(
        [(c.label, *c.superiority) for c in comparisons], label="probability of being harder", middle=0.5
    )
