"""Signatures and bands against exact Jaccard similarities and the theoretical curve."""

import math
import random

import numpy as np
import pytest

from rho_score.deduplicating.bands import (
    Bands,
    band_keys,
    choose_bands,
    equal_numbers,
    estimated_similarity,
    packed,
)
from rho_score.deduplicating.shingles import signatures

PAIRS = 400


def _pair(similarity: float, draw: random.Random) -> tuple[list[str], list[str]]:
    """Two lists of 200 different words in all, which share this part of them."""
    words = [f"w{draw.getrandbits(60)}" for _ in range(200)]
    shared = round(similarity * len(words))
    middle = (shared + len(words)) // 2
    return words[:middle], words[:shared] + words[middle:]


def _pairs(similarity: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Signatures of pairs, and their exact similarity."""
    draw = random.Random(round(similarity * 1000))
    made = [_pair(similarity, draw) for _ in range(PAIRS)]
    exact = {len({*a} & {*b}) / len({*a} | {*b}) for a, b in made}
    left, right = (signatures(side, 1, 128) for side in zip(*made, strict=True))
    return left, right, exact.pop()


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_candidates_follow_the_curve(similarity: float) -> None:
    left, right, exact = _pairs(similarity)
    bands = Bands(16, 8)
    found = (band_keys(left, bands) == band_keys(right, bands)).any(axis=1).mean()
    expected = 1 - (1 - exact**8) ** 16
    assert found == pytest.approx(expected, abs=4.5 * math.sqrt(expected * (1 - expected) / PAIRS) + 1e-3)


@pytest.mark.parametrize("similarity", [0.0, 0.3, 0.5, 0.8, 0.9, 1.0])
def test_estimates_from_four_bits_are_the_exact_similarity_on_average(similarity: float) -> None:
    left, right, exact = _pairs(similarity)
    estimate = estimated_similarity(equal_numbers(packed(left), packed(right), 128), 128)
    whole = (left == right).mean(axis=1)
    assert estimate.mean() == pytest.approx(exact, abs=0.012)  # at 0, negative estimates are cut off
    assert whole.mean() == pytest.approx(exact, abs=0.008)
    assert estimate.std() < 1.4 * max(whole.std(), 0.03)


@pytest.mark.parametrize("permutations", [1, 7, 64, 128])
def test_equal_numbers_are_counted_as_by_hand(permutations: int) -> None:
    rng = np.random.default_rng(permutations)
    left, right = rng.integers(0, 2**32, (2, 50, permutations), dtype=np.uint32)
    right[:, ::3] = left[:, ::3]
    expected = [sum(a % 16 == b % 16 for a, b in zip(x, y, strict=True)) for x, y in zip(left, right, strict=True)]
    assert equal_numbers(packed(left), packed(right), permutations).tolist() == expected


def test_keys_are_equal_exactly_if_all_numbers_of_the_band_are() -> None:
    one = np.arange(12, dtype=np.uint32)[None]
    other = one.copy()
    other[0, 5] = 99
    same = band_keys(one, Bands(3, 4)) == band_keys(other, Bands(3, 4))
    assert same.tolist() == [[True, False, True]]
    repeated = band_keys(np.ones((1, 8), np.uint32), Bands(2, 4))
    assert repeated[0, 0] != repeated[0, 1]


@pytest.mark.parametrize(
    ("similarity", "permutations", "expected"),
    [(0.8, 128, (16, 8)), (0.5, 128, (42, 3)), (0.9, 128, (9, 14)), (1.0, 128, (1, 128)), (0.01, 8, (8, 1))],
)
def test_bands_are_as_long_as_recall_allows(similarity: float, permutations: int, expected: tuple[int, int]) -> None:
    bands = choose_bands(similarity, permutations)
    assert bands == expected
    longer = bands.rows + 1
    if longer <= permutations:
        assert 1 - (1 - similarity**longer) ** (permutations // longer) < 0.9
