"""The bits per byte of many documents, as sums and as a histogram by length. Pure functions.

Documents of one length are those whose number of scored tokens has the same number of binary
digits: 1, 2 to 3, 4 to 7 and so on. In the histogram, a document's bits per byte are rounded to
float16, which keeps about three decimal digits. Sums are not rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

LENGTHS = 40
"""Lengths that are told apart; the last holds all longer documents."""
_KEY_BITS = 16


@dataclass(frozen=True, kw_only=True)
class RateSums:
    """Sums over documents: x are a document's bytes, y its bits, and r = y / x its bits per byte."""

    documents: float
    tokens: float
    """Tokens with a loss."""
    n_bytes: float
    """UTF-8 bytes of these tokens."""
    bits: float
    """Their loss, in bits."""
    rates: float
    squared_rates: float
    squared_bits: float
    bits_times_bytes: float
    squared_bytes: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Rates:
    """The bits per byte of documents. It takes at most 16 bytes a document, and usually far less.

    sums: the fields of `RateSums` for each length, float64[LENGTHS, 9]. keys: each length and each
    bits per byte that occur together, as one number, int64[n], ascending. counts: documents with
    that key, int64[n].
    """

    sums: np.ndarray
    keys: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, nats: np.ndarray, n_bytes: np.ndarray, n_tokens: np.ndarray) -> Self:
        """The rates of documents that have at least one scored token and one byte.

        nats: summed loss of each document, float64[n_docs]. n_bytes, n_tokens: its scored bytes
        and tokens, int64[n_docs].
        """
        bits, sizes = nats / np.log(2), n_bytes.astype(np.float64)
        rates = bits / sizes
        lengths = np.minimum(np.frexp(n_tokens.astype(np.float64))[1], LENGTHS - 1)
        columns = [np.ones(len(bits)), n_tokens, sizes, bits, rates, rates**2, bits**2, bits * sizes, sizes**2]
        sums = np.stack([np.bincount(lengths, column, LENGTHS) for column in columns], axis=1)
        rounded = np.clip(rates, 0, np.finfo(np.float16).max).astype(np.float16).view(np.uint16)
        keys, counts = np.unique((lengths.astype(np.int64) << _KEY_BITS) | rounded, return_counts=True)
        return cls(sums=sums, keys=keys, counts=counts.astype(np.int64))

    @classmethod
    def total(cls, parts: Sequence["Rates"]) -> Self:
        """The rates of all documents of `parts`."""
        keys, at = np.unique(np.concatenate([np.zeros(0, np.int64), *(p.keys for p in parts)]), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, at, np.concatenate([np.zeros(0, np.int64), *(p.counts for p in parts)]))
        sums = np.zeros((LENGTHS, len(fields(RateSums))))
        for part in parts:
            sums = sums + part.sums
        return cls(sums=sums, keys=keys, counts=counts)

    def without(self, part: "Rates") -> "Rates":
        """The rates of the documents that are not in `part`, which is a part of these."""
        counts = self.counts.copy()
        counts[np.searchsorted(self.keys, part.keys)] -= part.counts
        left = counts > 0
        return Rates(sums=self.sums - part.sums, keys=self.keys[left], counts=counts[left])

    def of_length(self, length: int) -> "Rates":
        """The rates of the documents of one length, from 0 to `LENGTHS` - 1."""
        there = self.keys >> _KEY_BITS == length
        sums = np.zeros_like(self.sums)
        sums[length] = self.sums[length]
        return Rates(sums=sums, keys=self.keys[there], counts=self.counts[there])

    @property
    def documents(self) -> int:
        """Number of documents."""
        return int(self.counts.sum())

    @property
    def by_length(self) -> np.ndarray:
        """Number of documents of each length, int64[LENGTHS]."""
        return np.bincount(self.keys >> _KEY_BITS, self.counts, LENGTHS).astype(np.int64)

    @property
    def added(self) -> RateSums:
        """The sums over all documents."""
        names = [field.name for field in fields(RateSums)]
        return RateSums(**dict(zip(names, self.sums.sum(axis=0).tolist(), strict=True)))

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """The bits per byte that occur, ascending, float64[n], and their documents, int64[n]."""
        found, at = np.unique(self.keys & ((1 << _KEY_BITS) - 1), return_inverse=True)
        counts = np.zeros(len(found), np.int64)
        np.add.at(counts, at, self.counts)
        return found.astype(np.uint16).view(np.float16).astype(np.float64), counts

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The lowest bits per byte that at least these shares of the documents do not exceed.

        NaN without documents.
        """
        values, counts = self.values()
        if not len(values):
            return [float("nan")] * len(shares)
        ends = np.cumsum(counts)
        wanted = np.ceil(np.array(shares) * ends[-1] - 1e-9).clip(1)
        return [float(v) for v in values[np.searchsorted(ends, wanted)]]

    def outside(self, low: float, high: float) -> tuple[int, int]:
        """The documents below `low` and those above `high`."""
        values, counts = self.values()
        return int(counts[values < low].sum()), int(counts[values > high].sum())
