"""Where a ranking is cut: by an exact count, a threshold or a budget, read off a histogram.

Pure functions.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy
from rho_score.ranking.keys import Bits, values_of


@dataclass(frozen=True)
class Cut:
    """The place where a ranking is cut.

    All items before `key` are kept, and of the items at `key` the first `ties` in corpus order.
    """

    key: int
    ties: int
    high: bool
    """True if high scores come first, so that the items before the cut are those above `key`."""
    kept: int = 0
    """The number of items kept."""
    tied: int = 0
    """The number of items at `key`."""

    @property
    def nothing(self) -> bool:
        """True if no item is kept, whatever its score."""
        return not 0 <= self.key < 1 << 32

    @property
    def partial(self) -> bool:
        """True if some of the items at the cut are kept and others are not."""
        return 0 < self.ties < self.tied

    def before(self, keys: np.ndarray) -> np.ndarray:
        """True for each key that comes before the cut, so that all its items are kept, bool[n]."""
        past: np.ndarray = keys > self.key if self.high else keys < self.key
        return past

    def value(self, bits: Bits) -> float:
        """The score at the cut, nats; NaN if no item is kept."""
        return float("nan") if self.nothing else float(values_of(np.array([self.key]), bits)[0])

    def first(self, values: np.ndarray, n_ties: int, bits: Bits) -> tuple[np.ndarray, int]:
        """The items before the cut and the first `n_ties` items at it.

        values: rounded scores, float[n]; NaN is no item.

        Returns True for each of these items, bool[n], and how many of them are at the cut.
        """
        at = self.value(bits)
        with np.errstate(invalid="ignore"):
            kept = values > at if self.high else values < at
            ties = np.flatnonzero(values == at)[:n_ties]
        kept[ties] = True
        return kept, len(ties)


@dataclass(frozen=True)
class BudgetCut(Cut):
    """A cut that fills a budget of tokens with whole documents.

    The documents at `key` are taken in corpus order, up to the first that does not fit. How many
    fit depends on their lengths, which a histogram does not hold. So `ties` is the number of all
    documents at `key`, and `kept` counts none of them.
    """

    budget: int = 0
    """Tokens that are left for the documents at `key`."""

    @property
    def partial(self) -> bool:
        """True, because some of the documents at the cut may not fit."""
        return True


def cut_items(histogram: pa.Table, n_keep: int, *, high: bool) -> Cut:
    """The cut that keeps exactly `n_keep` items of one histogram, or all if there are fewer."""
    keys, counts, _ = ranked(histogram, high=high)
    total = np.cumsum(counts)
    n_keep = min(n_keep, int(total[-1]) if len(total) else 0)
    if n_keep <= 0:
        return _nothing(high)
    at = int(np.searchsorted(total, n_keep))
    before = int(total[at] - counts[at])
    return Cut(int(keys[at]), n_keep - before, high, kept=n_keep, tied=int(counts[at]))


def cut_threshold(histogram: pa.Table, threshold: float, *, high: bool, bits: Bits = 16) -> Cut:
    """The cut that keeps all scores >= `threshold`, or all scores <= `threshold` unless `high`."""
    keys, counts, _ = ranked(histogram, high=high)
    values = values_of(keys, bits)
    # the first key of a bin may be that of a NaN
    values = np.where(np.isnan(values), -np.inf, values).astype(np.float64)
    wanted = int(np.sum(values >= threshold) if high else np.sum(values <= threshold))
    if wanted == 0:
        return _nothing(high)
    tied = int(counts[wanted - 1])
    return Cut(int(keys[wanted - 1]), tied, high, kept=int(counts[:wanted].sum()), tied=tied)


def cut_budget(histogram: pa.Table, n_tokens: int, *, high: bool) -> Cut:
    """The cut that fills `n_tokens` with whole items, up to the first in rank that does not fit.

    `kept` counts only the items before the key. How many of the items at the key fit depends on
    their lengths.
    """
    if n_tokens <= 0:
        return _nothing(high)
    keys, counts, tokens = ranked(histogram, high=high)
    total = np.cumsum(tokens)
    at = int(np.searchsorted(total, n_tokens, side="right"))  # the first key that does not fit
    if at == len(keys):
        return cut_items(histogram, int(counts.sum()), high=high)
    left, tied = n_tokens - int(total[at] - tokens[at]), int(counts[at])
    return BudgetCut(int(keys[at]), tied, high, kept=int(counts[:at].sum()), tied=tied, budget=left)


def ranked(histogram: pa.Table, *, high: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The keys, counts and tokens of one histogram, best key first, each of shape [n_keys]."""
    columns = [as_numpy(histogram[name]) for name in ("key", "count", "tokens")]
    order = np.argsort(columns[0])
    order = order[::-1] if high else order
    return columns[0][order], columns[1][order], columns[2][order]


def _nothing(high: bool) -> Cut:
    return Cut(1 << 32 if high else -1, 0, high)
