"""What a comparison says in words, by the rules of `docs/guides/compare.md`."""

import math

import numpy as np
import pytest

from rho_score.ranking.rates import Rates
from rho_score.reporting.compared import Comparison, PartStats
from rho_score.reporting.verdict import sentences


def _sample(rates: np.ndarray, n_tokens: int | np.ndarray = 64) -> Rates:
    tokens = np.broadcast_to(n_tokens, rates.shape)
    return Rates.of(rates * 4 * tokens * math.log(2), 4 * tokens, tokens)


def _compared(first: Rates, other: Rates) -> Comparison:
    return Comparison.of(first, other, name="extra", group=None, whole=True, label="extra", against="mine")


def _normal(n: int, mean: float, spread: float = 0.2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, n)


@pytest.mark.parametrize(
    ("other", "verdict", "size"),
    [
        (_normal(2000, 2.0, seed=1), "alike", "negligible"),
        (_normal(40, 2.02, seed=3), "undecided", "negligible"),
        (_normal(2000, 2.08, seed=1), "harder", "small"),
        (_normal(2000, 2.15, seed=1), "harder", "medium"),
        (_normal(2000, 2.5, seed=1), "harder", "large"),
        (_normal(2000, 1.5, seed=1), "easier", "large"),
        (_normal(2000, 2.0, 0.4, seed=1), "more spread", "negligible"),
    ],
)
def test_the_verdict_follows_from_the_interval(other: np.ndarray, verdict: str, size: str) -> None:
    found = _compared(_sample(_normal(2000, 2.0)), _sample(other))
    assert (found.verdict, found.size) == (verdict, size)
    assert found.cliffs_delta == pytest.approx(2 * found.superiority.value - 1)
    assert sentences(found)[-1].startswith(f"Verdict: {verdict}.")


def test_a_difference_is_told_with_its_interval() -> None:
    found = _compared(_sample(_normal(2000, 2.0)), _sample(_normal(2000, 1.5, seed=1)))
    low, high = -found.difference.high, -found.difference.low
    assert 0.48 < low < 0.5 < high < 0.53
    said = sentences(found)
    assert (
        said[0]
        == f"extra is {-found.difference.value:.3f} bits per byte easier than mine (95 %: {low:.3f} to {high:.3f})."
    )
    assert found.superiority.value == pytest.approx(0.0385, abs=0.005)  # of normal distributions: Φ(-0.5 / √0.08)
    assert f"harder than one of mine with probability {found.superiority.value:.3f} (95 %: 0.0" in said[1]
    assert "Among documents of like length (100% of it), it is 0." in said[2]
    assert said[3].startswith("0.0% of its documents are above the 99 % quantile of mine, and ")


def test_length_alone_can_make_a_difference() -> None:
    """A document's level depends on its length, and the other's are mostly short."""
    short, long = 16, 256
    first = Rates.total([_sample(_normal(100, 3.0), short), _sample(_normal(1000, 2.0), long)])
    other = Rates.total([_sample(_normal(1000, 3.0, seed=1), short), _sample(_normal(100, 2.0, seed=1), long)])
    found = _compared(first, other)
    assert found.difference.low > 0.5
    assert found.superiority.value > 0.8
    assert found.verdict in ("alike", "undecided")
    assert sentences(found)[2].endswith("Length makes more than half of the difference.")


def test_lengths_that_do_not_meet_are_told() -> None:
    first = _sample(_normal(500, 2.0), 256)
    other = _sample(_normal(500, 3.0, seed=1), 16)
    said = sentences(_compared(first, other))
    assert "length alone may make the difference" in said[2]
    assert said[4] == "Verdict: harder. The difference is large. Length is not ruled out as its cause."
    few = Rates.total([other, _sample(_normal(20, 2.0), 256)])
    found = _compared(first, few)
    assert not found.at_like_length
    assert found.verdict == "harder"
    assert "the verdict is about all documents" in sentences(found)[2]


def test_single_documents_are_told_without_an_interval() -> None:
    found = _compared(_sample(_normal(100, 2.0)), _sample(np.array([5.0])))
    assert found.verdict == "undecided"
    said = sentences(found)
    assert (
        said[0]
        == f"extra is {found.difference.value:.3f} bits per byte harder than mine, and has too few documents for an interval."
    )
    assert "No two documents of each are of like length" in said[2]
    alone = _compared(_sample(np.array([2.0])), _sample(np.array([2.0])))
    assert (alone.superiority.low, alone.superiority.high, alone.verdict) == (0.0, 1.0, "undecided")


def test_names_are_shown_with_invisible_characters() -> None:
    first = _sample(_normal(50, 2.0))
    found = Comparison.of(first, first, name="x", group="\x1b[31m", whole=False, label="x, \x1b[31m", against="mine")
    assert "\x1b" not in " ".join(sentences(found))
    assert "‹001B›" in sentences(found)[0]


def test_the_numbers_of_a_part_are_sums_over_its_documents() -> None:
    nats, n_bytes, n_tokens = np.array([10.0, 4.0]), np.array([20, 5]), np.array([6, 2])
    part = PartStats.of(Rates.of(nats, n_bytes, n_tokens), "extra", "a", "extra, a")
    assert (part.documents, part.tokens, part.bytes) == (2, 8, 25)
    assert part.bits_per_byte == pytest.approx(14 / math.log(2) / 25)
    assert part.mean_loss == pytest.approx(14 / 8)
    assert part.mean == pytest.approx((10 / 20 + 4 / 5) / 2 / math.log(2))
    assert part.quantiles[0] == pytest.approx(0.5 / math.log(2), rel=1e-3)
