"""How far the bits per byte of two samples of documents differ, with 95 % intervals. Pure functions.

Documents are the units that are sampled. All intervals come from formulas, so nothing is drawn at
random:

- a difference of means has Welch's interval (Welch 1947), with Student's quantiles;
- a ratio of sums is a ratio estimator, with its linearized variance (Cochran 1977, Sampling
  Techniques, chapter 6);
- the probability of superiority, which is the area under the ROC curve and the Mann-Whitney
  statistic, has the variance of DeLong et al. (1988, Biometrics 44:837), and its interval is made
  on the logit scale. If that variance is zero or not known, which happens if all documents of one
  sample are above all of the other, it has the score interval of Newcombe (2006, Statistics in
  Medicine 25:559, method 5);
- a share of documents has the score interval of Wilson (1927).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rho_score.ranking.rates import Rates, RateSums

Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
_STUDENT = {1: 12.706205, 2: 4.302653}


class Estimate(NamedTuple):
    """A number with its 95 % interval, which is infinite if there are too few documents."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The comparison of documents of like length.

    Each length has the weight that it has among the other sample's documents. Lengths with fewer
    than two documents in either sample are left out.
    """

    share: float
    """The share of the other sample's documents that have a counterpart."""
    difference: Estimate
    """As `mean_difference`."""
    superiority: Estimate


class _Mean(NamedTuple):
    value: float
    variance: float
    """Of the mean itself."""
    n: int


class _Weighted(NamedTuple):
    weight: float
    first: _Mean
    other: _Mean


def mean_difference(first: Rates, other: Rates) -> Estimate:
    """The mean over the other's documents of their bits per byte, minus that of the first's."""
    return _difference([_Weighted(1.0, _mean(first.added), _mean(other.added))])


def ratio_difference(first: Rates, other: Rates) -> Estimate:
    """The other's bits divided by its bytes, minus the same of the first: bytes have equal weight."""
    return _difference([_Weighted(1.0, _ratio(first.added), _ratio(other.added))])


def superiority(first: Rates, other: Rates) -> Estimate:
    """The probability that a random document of the other is harder than one of the first.

    Ties count half.
    """
    value, variance = _superiority(first, other)
    return _probability(value, variance, first.documents, other.documents)


def matched(first: Rates, other: Rates) -> Matched | None:
    """The comparison at like length; None if no length has two documents in both samples."""
    lengths = np.flatnonzero((first.by_length >= 2) & (other.by_length >= 2)).tolist()
    pairs = [(first.of_length(length), other.of_length(length)) for length in lengths]
    n = sum(b.documents for _, b in pairs)
    if not n:
        return None
    weights = [b.documents / n for _, b in pairs]
    means = [_Weighted(w, _mean(a.added), _mean(b.added)) for w, (a, b) in zip(weights, pairs, strict=True)]
    found = [_superiority(a, b) for a, b in pairs]
    value = sum(w * v for w, (v, _) in zip(weights, found, strict=True))
    variance = sum(w**2 * v for w, (_, v) in zip(weights, found, strict=True))
    return Matched(
        share=n / other.documents,
        difference=_difference(means),
        superiority=_probability(value, variance, sum(a.documents for a, _ in pairs), n),
    )


def _mean(sums: RateSums) -> _Mean:
    n = round(sums.documents)
    mean = sums.rates / n
    if n < 2:
        return _Mean(mean, math.inf, n)
    return _Mean(mean, max(0.0, sums.squared_rates - n * mean**2) / (n - 1) / n, n)


def _ratio(sums: RateSums) -> _Mean:
    n = round(sums.documents)
    ratio = sums.bits / sums.n_bytes
    if n < 2:
        return _Mean(ratio, math.inf, n)
    residuals = sums.squared_bits - 2 * ratio * sums.bits_times_bytes + ratio**2 * sums.squared_bytes
    return _Mean(ratio, max(0.0, residuals) * n / (n - 1) / sums.n_bytes**2, n)


def _difference(parts: Sequence[_Weighted]) -> Estimate:
    """The weighted sum of the differences, with Welch's degrees of freedom over all means."""
    value = sum(part.weight * (part.other.value - part.first.value) for part in parts)
    terms = [(part.weight**2 * mean.variance, mean.n) for part in parts for mean in (part.first, part.other)]
    variance = sum(term for term, _ in terms)
    if math.isinf(variance):
        return Estimate(value, -math.inf, math.inf)
    if not variance:
        return Estimate(value, value, value)
    freedom = variance**2 / sum(term**2 / (n - 1) for term, n in terms)
    half = _student(freedom) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)


def _student(freedom: float) -> float:
    """97.5 % quantile of Student's distribution, to 0.2 % (Abramowitz and Stegun 1964, 26.7.5).

    Below three degrees of freedom, where the series is not near enough, they are rounded down.
    """
    if freedom < 3:
        return _STUDENT[max(1, int(freedom))]
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    return Z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def _superiority(first: Rates, other: Rates) -> tuple[float, float]:
    """The probability and its variance by DeLong, NaN with fewer than two documents in a sample.

    A document's placement is the share of the other sample that is on its far side. The variance
    is that of the mean placement in either sample.
    """
    (left, n_left), (right, n_right) = first.values(), other.values()
    values, at = np.unique(np.concatenate([left, right]), return_inverse=True)
    firsts = np.bincount(at[: len(left)], n_left, len(values))
    others = np.bincount(at[len(left) :], n_right, len(values))
    m, n = firsts.sum(), others.sum()
    of_others = (np.cumsum(firsts) - firsts / 2) / m
    of_firsts = 1 - (np.cumsum(others) - others / 2) / n
    value = float(others @ of_others / n)
    if m < 2 or n < 2:
        return value, math.nan
    variance = others @ (of_others - value) ** 2 / (n - 1) / n + firsts @ (of_firsts - value) ** 2 / (m - 1) / m
    return value, float(variance)


def _probability(value: float, variance: float, m: int, n: int) -> Estimate:
    if not variance > 0 or not 0 < value < 1:
        return Estimate(value, *_newcombe(value, m, n))
    logit, half = math.log(value / (1 - value)), Z * math.sqrt(variance) / (value * (1 - value))
    return Estimate(value, *((1 + math.tanh(end / 2)) / 2 for end in (logit - half, logit + half)))


def _newcombe(value: float, m: int, n: int) -> tuple[float, float]:
    """The probabilities whose distance from `value` is Z of their own standard errors."""
    if m + n < 3:
        return 0.0, 1.0
    size = (m + n) / 2 - 1

    def distance(p: float) -> float:
        variance = p * (1 - p) * (1 + size * (1 - p) / (2 - p) + size * p / (1 + p)) / (m * n)
        return abs(p - value) - Z * math.sqrt(variance)

    return _crossing(distance, value, 0.0), _crossing(distance, value, 1.0)


def _crossing(function: Callable[[float], float], inside: float, outside: float) -> float:
    """Where a function that is not positive at `inside` becomes positive towards `outside`."""
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if function(middle) <= 0 else (inside, middle)
    return (inside + outside) / 2


def share_estimate(count: int, n: int) -> Estimate:
    """The share `count` / `n` with the score interval of Wilson (1927)."""
    share = count / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))
