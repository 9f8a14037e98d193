"""The weights of tokens in training, from the scores that they are ranked by. Pure functions."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy
from rho_score.ranking.keys import Bits, keys_of

Weights = Literal["linear", "sigmoid", "rank"]


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """The weights of the items of one ranking.

    With d the distance of a score from the cut, in nats and positive on the kept side:

    - sigmoid: 1 / (1 + exp(-d / temperature)).
    - linear: 1/2 + d / (2 temperature), between 0 and 1.
    - rank: the share of the items of the ranking that are worse, where items of the same score
      count half.

    The weight of an item is 1/2 at the cut with the first two, and 0 for every item if nothing is
    kept.
    """

    how: Weights
    high: bool
    """True if high scores are better."""
    bits: Bits
    threshold: float
    """The score at the cut, nats; NaN if nothing is kept."""
    temperature: float
    """The scale, nats."""
    keys: np.ndarray
    """For rank: the first key of each bin, ascending, uint32[n_bins]."""
    shares: np.ndarray
    """For rank: the weight of each bin, float32[n_bins]."""

    @classmethod
    def of(
        cls, how: Weights, histogram: pa.Table, *, threshold: float, high: bool, bits: Bits, temperature: float
    ) -> "Weighting":
        """The weights of a ranking. histogram: its own, with the columns of `histogram.COUNTS`."""
        keys, shares = np.zeros(0, np.uint32), np.zeros(0, np.float32)
        if how == "rank" and len(histogram):
            keys, counts = (as_numpy(histogram[name]) for name in ("key", "count"))
            order = np.argsort(keys)
            keys, counts = keys[order], counts[order]
            lower = (np.cumsum(counts) - counts / 2) / counts.sum()
            shares = (lower if high else 1 - lower).astype(np.float32)
        return cls(
            how=how,
            high=high,
            bits=bits,
            threshold=threshold,
            temperature=temperature,
            keys=keys,
            shares=shares,
        )

    def weights(self, values: np.ndarray) -> np.ndarray:
        """The weight of each item, float32[n], from 0 to 1.

        values: rounded scores, float[n]; NaN is no item, which weighs 0. Ranks of 32-bit scores are
        those of their bins in the histogram, of which there are up to 65,536.
        """
        if self.how == "rank":
            found = self._ranks(values)
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                exact = values.astype(np.float64)  # float16 would round the threshold where it is compared
                distance = (exact - self.threshold) / self.temperature
                distance = np.where(exact == self.threshold, 0, distance if self.high else -distance)
                found = 1 / (1 + np.exp(-distance)) if self.how == "sigmoid" else np.clip(0.5 + distance / 2, 0, 1)
        weights: np.ndarray = np.where(np.isnan(values) | np.isnan(found), 0, found).astype(np.float32)
        return weights

    def _ranks(self, values: np.ndarray) -> np.ndarray:
        if not len(self.keys):
            return np.zeros(len(values), np.float32)
        found: np.ndarray = self.shares[np.searchsorted(self.keys, keys_of(values, self.bits), side="right") - 1]
        return found
