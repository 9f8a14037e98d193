"""The figures of a comparison."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from rho_score import charts
from rho_score.ranking.rates import Rates
from rho_score.reporting.compared import Comparison

MOST_BINS = 80
PERCENTS = np.arange(1, 100) / 100


def distributions(rates: Mapping[str, Rates]) -> Figure:
    """The distributions of the documents' bits per byte, by name.

    The smallest sample determines the number of bins, by Rice's rule: 2 · n^(1/3).
    """
    values = {name: of.values() for name, of in rates.items()}
    bins = int(np.clip(2 * min(of.documents for of in rates.values()) ** (1 / 3), 8, MOST_BINS))
    return charts.histogram_figure(
        values, label="loss of a document", items="documents", unit="bits per byte", bins=bins
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
