"""Bits per byte of documents and how far they differ: compared with pairwise sums, loops and simulations."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.ranking.effects import (
    Estimate,
    Matched,
    matched,
    mean_difference,
    ratio_difference,
    share_estimate,
    superiority,
)
from rho_score.ranking.rates import LENGTHS, Rates

Z = NormalDist().inv_cdf(0.975)


class Docs(NamedTuple):
    """Documents: their summed loss in nats, their bytes and their scored tokens."""

    nats: np.ndarray
    n_bytes: np.ndarray
    n_tokens: np.ndarray

    @property
    def sample(self) -> Rates:
        return Rates.of(*self)

    @property
    def rates(self) -> np.ndarray:
        return self.nats / math.log(2) / self.n_bytes

    @property
    def rounded(self) -> np.ndarray:
        return self.rates.astype(np.float16).astype(np.float64)


def _docs(n: int, seed: int, shift: float = 0.0, spread: float = 0.5) -> Docs:
    """Documents of mixed lengths. Few decimals make ties."""
    rng = np.random.default_rng(seed)
    n_tokens = rng.integers(1, 200, n)
    n_bytes = n_tokens * rng.integers(2, 6, n)
    rates = np.round(np.exp(rng.normal(shift, spread, n)), 1) + 0.1
    return Docs(rates * n_bytes * math.log(2), n_bytes, n_tokens)


def _from_rates(rates: list[float], n_tokens: int = 8) -> Rates:
    n_bytes = np.full(len(rates), 10)
    return Rates.of(np.array(rates) * 10 * math.log(2), n_bytes, np.full(len(rates), n_tokens))


@pytest.mark.parametrize("seed", range(5))
def test_superiority_is_the_share_of_all_pairs_with_the_variance_of_their_placements(seed: int) -> None:
    a, b = _docs(37, seed, 0.1), _docs(53, seed + 100, 0.4, 0.8)
    pairs = (b.rounded[None, :] > a.rounded[:, None]) + 0.5 * (b.rounded[None, :] == a.rounded[:, None])
    value = pairs.mean()
    variance = pairs.mean(axis=1).var(ddof=1) / 37 + pairs.mean(axis=0).var(ddof=1) / 53
    half = Z * math.sqrt(variance) / (value * (1 - value))
    logit = math.log(value / (1 - value))
    expected = (value, *(1 / (1 + math.exp(-x)) for x in (logit - half, logit + half)))
    assert superiority(a.sample, b.sample) == pytest.approx(expected)
    assert (pairs == 0.5).any()
    swapped = superiority(b.sample, a.sample)
    assert swapped == pytest.approx((1 - expected[0], 1 - expected[2], 1 - expected[1]))


@pytest.mark.parametrize(("m", "n"), [(2, 3), (40, 25), (1, 1), (1, 30)])
def test_samples_that_do_not_overlap_have_an_interval_with_its_own_standard_error(m: int, n: int) -> None:
    found = superiority(_from_rates([1.0] * m), _from_rates([2.0] * n))
    assert found.value == found.high == 1.0
    if m + n < 3:
        assert found.low == 0.0
        return
    p, size = found.low, (m + n) / 2 - 1
    variance = p * (1 - p) / (m * n) * (1 + size * ((1 - p) / (2 - p) + p / (1 + p)))
    assert 0 < p < 1
    assert 1 - p == pytest.approx(Z * math.sqrt(variance))


def test_equal_samples_are_even() -> None:
    same = _from_rates([1.0, 1.0, 1.0])
    found = superiority(same, same)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high
    assert mean_difference(same, same) == pytest.approx((0, 0, 0), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "t"), [(2, 4.303), (3, 2.776), (4, 2.447), (6, 2.228), (11, 2.086), (31, 2.000), (61, 1.980)]
)
def test_the_interval_of_a_mean_is_students(n: int, t: float) -> None:
    """Samples of the same size and spread have 2 (n - 1) degrees of freedom; t is from a printed table."""
    rates = np.linspace(1, 2, n)
    a, b = _from_rates(rates.tolist()), _from_rates((rates + 0.25).tolist())
    error = math.sqrt(2 * rates.var(ddof=1) / n)
    assert mean_difference(a, b) == pytest.approx((0.25, 0.25 - t * error, 0.25 + t * error), rel=2e-3)


def test_differences_are_those_of_the_documents() -> None:
    a, b = _docs(80, 1), _docs(120, 2, 0.2)
    means, errors, ratios, ratio_errors = [], [], [], []
    for docs in (a, b):
        n = len(docs.nats)
        means.append(docs.rates.mean())
        errors.append(docs.rates.var(ddof=1) / n)
        ratio = sum(docs.nats) / math.log(2) / sum(docs.n_bytes)
        residuals = [y / math.log(2) - ratio * x for y, x in zip(docs.nats, docs.n_bytes, strict=True)]
        ratios.append(ratio)
        ratio_errors.append(sum(r**2 for r in residuals) / (n - 1) / n / docs.n_bytes.mean() ** 2)
    for found, values, variances in (
        (mean_difference(a.sample, b.sample), means, errors),
        (ratio_difference(a.sample, b.sample), ratios, ratio_errors),
    ):
        assert found.value == pytest.approx(values[1] - values[0])
        assert found.high - found.value == pytest.approx(found.value - found.low)
        assert found.high - found.value == pytest.approx(1.972 * math.sqrt(sum(variances)), rel=5e-3)  # t of about 195


def test_the_matched_comparison_is_that_of_each_length_with_the_others_weights() -> None:
    a, b = _docs(60, 3), _docs(90, 4, 0.3)
    strata = [[n.bit_length() for n in docs.n_tokens.tolist()] for docs in (a, b)]
    common = [s for s in set(strata[0]) & set(strata[1]) if min(strata[0].count(s), strata[1].count(s)) >= 2]
    n = sum(strata[1].count(s) for s in common)
    difference = probability = variance = placements = 0.0
    for s in common:
        left, right = (np.array(of) == s for of in strata)
        weight = right.sum() / n
        x, y = a.rounded[left], b.rounded[right]
        pairs = (y[None, :] > x[:, None]) + 0.5 * (y[None, :] == x[:, None])
        difference += weight * (b.rates[right].mean() - a.rates[left].mean())
        variance += weight**2 * (b.rates[right].var(ddof=1) / right.sum() + a.rates[left].var(ddof=1) / left.sum())
        probability += weight * pairs.mean()
        placements += weight**2 * (
            pairs.mean(axis=1).var(ddof=1) / left.sum() + pairs.mean(axis=0).var(ddof=1) / right.sum()
        )
    found = matched(a.sample, b.sample)
    assert isinstance(found, Matched)
    assert found.share == n / 90
    assert found.difference.value == pytest.approx(difference)
    assert (found.difference.high - difference) / math.sqrt(variance) == pytest.approx(2.0, abs=0.06)
    assert found.superiority.value == pytest.approx(probability)
    slope = probability * (1 - probability)
    logit = math.log(probability / (1 - probability))
    ends = [1 / (1 + math.exp(-(logit + sign * Z * math.sqrt(placements) / slope))) for sign in (-1, 1)]
    assert [found.superiority.low, found.superiority.high] == pytest.approx(ends)


def test_lengths_that_do_not_overlap_are_not_matched() -> None:
    short, long = _from_rates([1.0, 2.0, 3.0], n_tokens=4), _from_rates([1.0, 2.0, 3.0], n_tokens=8)
    assert matched(short, long) is None
    one = Rates.total([long, _from_rates([4.0], n_tokens=4)])
    assert matched(short, one) is None


def test_one_document_has_no_interval_of_its_mean() -> None:
    found = mean_difference(_from_rates([1.0]), _from_rates([1.5, 2.5]))
    assert found == Estimate(pytest.approx(1.0), -math.inf, math.inf)
    assert ratio_difference(_from_rates([1.0]), _from_rates([1.5, 2.5])).high == math.inf


def test_wilsons_interval() -> None:
    """Numbers that are printed in Newcombe (1998, Statistics in Medicine 17:857), table I."""
    assert share_estimate(81, 263) == pytest.approx((0.3080, 0.2553, 0.3662), abs=1e-4)
    assert share_estimate(15, 148) == pytest.approx((0.1014, 0.0624, 0.1605), abs=1e-4)
    assert share_estimate(0, 20) == pytest.approx((0, 0, 0.1611), abs=1e-4)
    assert share_estimate(1, 29) == pytest.approx((0.0345, 0.0061, 0.1718), abs=1e-4)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 10**6))
def test_parts_add_up_and_can_be_taken_away(n: int, m: int, seed: int) -> None:
    a, b = _docs(n, seed), _docs(m, seed + 1)
    both = Docs(*(np.concatenate(pair) for pair in zip(a, b, strict=True)))
    whole = Rates.total([a.sample, b.sample])
    for left, right in ((whole, both.sample), (whole.without(a.sample), b.sample)):
        assert np.array_equal(left.keys, right.keys)
        assert np.array_equal(left.counts, right.counts)
        assert left.sums == pytest.approx(right.sums, abs=1e-6)
    assert whole.documents == n + m == whole.by_length.sum()
    assert sum(whole.of_length(length).documents for length in range(LENGTHS)) == n + m


def test_quantiles_are_numpys_of_rounded_values() -> None:
    docs = _docs(137, 9)
    shares = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
    expected = np.quantile(docs.rounded, shares, method="inverted_cdf")
    assert docs.sample.quantiles(shares) == pytest.approx(expected.tolist())
    assert docs.sample.outside(1.0, 2.0) == ((docs.rounded < 1.0).sum(), (docs.rounded > 2.0).sum())
    assert all(map(math.isnan, Rates.total([]).quantiles(shares)))


def test_a_huge_loss_is_not_infinite_in_the_histogram() -> None:
    huge = Rates.of(np.array([1e9, 1.0]), np.array([1, 1]), np.array([1, 1]))
    assert huge.quantiles((1.0,)) == [65504.0]
    assert np.isfinite(huge.sums).all()


# coverage: how often a 95 % interval holds the truth


def _simulated(rng: np.random.Generator, n: int, shift: float, spread: float) -> Docs:
    """Log-normal bits per byte that fall with the length, which is log-normal too."""
    n_tokens = np.exp(rng.normal(5, 0.5, n)).astype(int) + 1
    rates = np.exp(rng.normal(shift, spread, n)) * (n_tokens / 150) ** -0.3
    return Docs(rates * 4 * n_tokens * math.log(2), 4 * n_tokens, n_tokens)


def _truth(of: Callable[[Docs], float], shift: float, spread: float) -> float:
    """The value in a sample of a million."""
    return of(_simulated(np.random.default_rng(1), 1_000_000, shift, spread))


def _mean_rate(docs: Docs) -> float:
    return float(docs.rates.mean())


def _ratio(docs: Docs) -> float:
    return float(docs.nats.sum() / math.log(2) / docs.n_bytes.sum())


@pytest.mark.parametrize("measure", ["difference", "ratio", "superiority"])
def test_intervals_hold_the_truth_as_often_as_they_say(measure: str) -> None:
    """The samples have different sizes and spreads, as other data has."""
    of: Callable[[Rates, Rates], Estimate] = {
        "difference": mean_difference, "ratio": ratio_difference, "superiority": superiority,
    }[measure]  # fmt: skip
    if measure == "superiority":
        spread = math.sqrt(0.3**2 + 0.5**2 + 2 * (0.3 * 0.5) ** 2)  # of the sums of logarithms
        truth = NormalDist().cdf(0.2 / spread)
    else:
        value = _mean_rate if measure == "difference" else _ratio
        truth = _truth(value, 0.2, 0.5) - _truth(value, 0.0, 0.3)
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        found = of(_simulated(rng, 90, 0.0, 0.3).sample, _simulated(rng, 60, 0.2, 0.5).sample)
        held += found.low <= truth <= found.high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_matched_intervals_hold_the_truth_where_the_others_do_not() -> None:
    """The other's documents are shorter, and each length has its own level; the rest is 0.1 harder."""
    levels = {5: 2.0, 6: 1.6, 7: 1.3, 8: 1.1}
    rng = np.random.default_rng(6)

    def documents(n: int, weights: list[float], shift: float) -> Docs:
        lengths = rng.choice(list(levels), n, p=weights)
        rates = rng.normal([levels[s] + shift for s in lengths.tolist()], 0.2)
        n_tokens = 2 ** (lengths - 1)
        return Docs(rates * 4 * n_tokens * math.log(2), 4 * n_tokens, n_tokens)

    probability = NormalDist().cdf(0.1 / (0.2 * math.sqrt(2)))
    held = {"difference": 0, "superiority": 0, "unmatched": 0}
    for _ in range(400):
        first, other = documents(120, [0.1, 0.2, 0.3, 0.4], 0).sample, documents(80, [0.4, 0.3, 0.2, 0.1], 0.1).sample
        found, plain = matched(first, other), mean_difference(first, other)
        assert found is not None
        held["difference"] += found.difference.low <= 0.1 <= found.difference.high
        held["superiority"] += found.superiority.low <= probability <= found.superiority.high
        held["unmatched"] += plain.low <= 0.1 <= plain.high
    assert held["difference"] / 400 == pytest.approx(0.95, abs=0.03)
    assert held["superiority"] / 400 == pytest.approx(0.95, abs=0.03)
    assert held["unmatched"] == 0
