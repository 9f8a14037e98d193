"""Bands of a signature: which pairs of documents are looked at, and how alike they are.

A signature has `permutations` numbers. Two documents have the same number at a place with a
probability that is their Jaccard similarity s. The numbers are grouped into `bands` of `rows` each,
and a pair is a candidate if all numbers of some band are equal, which has the probability
1 - (1 - s^rows)^bands. A candidate counts as a duplicate if its estimated similarity reaches the
threshold.

For the estimate, only the lowest `BITS` bits of each number are kept, two numbers in a byte. Two
numbers that differ have equal bits once in 16 times, which the estimate corrects for (b-bit minwise
hashing, Li and König 2010).
"""

from typing import NamedTuple

import numpy as np

BITS = 4
_BY_CHANCE = 1 / 2**BITS
_LEAST_RECALL = 0.9


class Bands(NamedTuple):
    """How a signature is cut: `bands` bands of `rows` numbers each."""

    bands: int
    rows: int

    def probability(self, similarity: float) -> float:
        """The probability that a pair of this similarity is a candidate."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def choose_bands(similarity: float, permutations: int) -> Bands:
    """The longest bands with which a pair at the threshold is a candidate in nine cases of ten.

    Longer bands have fewer candidates that are not alike. If no length reaches that probability,
    bands have one row each.
    """
    cut = (Bands(permutations // rows, rows) for rows in range(permutations, 0, -1))
    return next((bands for bands in cut if bands.probability(similarity) >= _LEAST_RECALL), Bands(permutations, 1))


def band_keys(signatures: np.ndarray, bands: Bands) -> np.ndarray:
    """A key of each band, uint64[n_docs, n_bands]; equal if all numbers of the band are equal.

    signatures: uint32[n_docs, permutations]. Bands that are equal at different places have different keys.
    """
    used = signatures[:, : bands.bands * bands.rows].reshape(len(signatures), bands.bands, bands.rows)
    keys = np.broadcast_to(mixed(np.arange(1, bands.bands + 1, dtype=np.uint64)), used.shape[:2]).copy()
    for row in range(bands.rows):
        keys = mixed(keys ^ used[:, :, row])
    return keys


def packed(signatures: np.ndarray) -> np.ndarray:
    """The lowest bits of each number, two numbers in a byte, uint8[n_docs, ceil(permutations / 2)]."""
    low = (signatures & (2**BITS - 1)).astype(np.uint8)
    if low.shape[1] % 2:
        low = np.pad(low, ((0, 0), (0, 1)))
    halves: np.ndarray = low[:, 0::2] | low[:, 1::2] << BITS
    return halves


def equal_numbers(left: np.ndarray, right: np.ndarray, permutations: int) -> np.ndarray:
    """How many numbers of two packed signatures have equal bits, int64[n_pairs].

    left, right: uint8[n_pairs, n_bytes], one of them perhaps of a single row.
    """
    same: np.ndarray = _EQUAL_HALVES[left ^ right].sum(axis=1, dtype=np.int64)
    return same - permutations % 2  # the padding is always equal


_XORED = np.arange(256)
_EQUAL_HALVES = ((_XORED & 15) == 0).astype(np.uint8) + ((_XORED >> BITS) == 0)
"""For each XOR of two bytes, how many of their halves are equal."""


def estimated_similarity(equal: np.ndarray, permutations: int) -> np.ndarray:
    """The estimated Jaccard similarity of pairs by their numbers with equal bits, float64[n_pairs]."""
    found: np.ndarray = np.clip((equal / permutations - _BY_CHANCE) / (1 - _BY_CHANCE), 0.0, 1.0)
    return found


def mixed(values: np.ndarray) -> np.ndarray:
    """A bijection of uint64 in which every bit of the result depends on every bit (splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    found: np.ndarray = values ^ values >> np.uint64(31)
    return found
