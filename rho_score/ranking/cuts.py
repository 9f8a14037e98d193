"""Where a ranking is cut: exact counts, thresholds and budgets, read off a histogram. Pure functions."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy
from rho_score.ranking.keys import Bits, values_of


@dataclass(frozen=True)
class Cut:
    """Where a ranking is cut: every item past `key` is kept, and `ties` of those at `key`, the first in corpus order."""

    key: int
    ties: int
    high: bool
    """Whether high scores come first (items past the key are those above it), or low ones."""
    kept: int = 0
    """Items kept."""
    tied: int = 0
    """Items at `key`."""
    budget: int | None = None
    """Tokens left for the documents at `key`, taken in corpus order up to the first that does not fit; `ties` is then
    the number of documents there are, and `kept` does not count them."""

    @property
    def nothing(self) -> bool:
        """Whether no item is kept at any score."""
        return not 0 <= self.key < 1 << 32

    @property
    def partial(self) -> bool:
        """Whether some of the items at the cut are kept, or may be, and others are not."""
        return self.budget is not None or 0 < self.ties < self.tied

    def value(self, bits: Bits) -> float:
        """The score at the cut, nats; NaN where nothing is kept at any score."""
        return float("nan") if self.nothing else float(values_of(np.array([self.key]), bits)[0])

    def first(self, values: np.ndarray, n_ties: int, bits: Bits) -> tuple[np.ndarray, int]:
        """The items before the cut and the first `n_ties` of those at it, bool[n]; and how many of these there are.

        values: rounded, float[n]; NaN are no items.
        """
        at = self.value(bits)
        with np.errstate(invalid="ignore"):
            kept = values > at if self.high else values < at
            ties = np.flatnonzero(values == at)[:n_ties]
        kept[ties] = True
        return kept, len(ties)


def cut_items(histogram: pa.Table, n_keep: int, *, high: bool) -> Cut:
    """The cut that keeps exactly `n_keep` items (all, if there are fewer) of one histogram."""
    keys, counts, _ = ranked(histogram, high=high)
    total = np.cumsum(counts)
    n_keep = min(n_keep, int(total[-1]) if len(total) else 0)
    if n_keep <= 0:
        return _nothing(high)
    at = int(np.searchsorted(total, n_keep))
    before = int(total[at] - counts[at])
    return Cut(int(keys[at]), n_keep - before, high, kept=n_keep, tied=int(counts[at]))


def cut_threshold(histogram: pa.Table, threshold: float, *, high: bool, bits: Bits = 16) -> Cut:
    """The cut that keeps every item with score >= `threshold` (<=, for the low end)."""
    keys, counts, _ = ranked(histogram, high=high)
    values = values_of(keys, bits)
    values = np.where(np.isnan(values), -np.inf, values).astype(np.float64)  # whose bin begins with what is no number
    wanted = int(np.sum(values >= threshold) if high else np.sum(values <= threshold))
    if wanted == 0:
        return _nothing(high)
    tied = int(counts[wanted - 1])
    return Cut(int(keys[wanted - 1]), tied, high, kept=int(counts[:wanted].sum()), tied=tied)


def cut_budget(histogram: pa.Table, n_tokens: int, *, high: bool) -> Cut:
    """The cut that fills `n_tokens` with whole items in rank order, up to the first that does not fit.

    `kept` counts the items past the key only: how many of those at it fit is known once their lengths are.
    """
    if n_tokens <= 0:
        return _nothing(high)
    keys, counts, tokens = ranked(histogram, high=high)
    total = np.cumsum(tokens)
    at = int(np.searchsorted(total, n_tokens, side="right"))  # the first key whose items do not all fit
    if at == len(keys):
        return cut_items(histogram, int(counts.sum()), high=high)
    left, tied = n_tokens - int(total[at] - tokens[at]), int(counts[at])
    return Cut(int(keys[at]), tied, high, kept=int(counts[:at].sum()), tied=tied, budget=left)


def ranked(histogram: pa.Table, *, high: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys best first, with their counts and tokens, of one histogram."""
    columns = [as_numpy(histogram[name]) for name in ("key", "count", "tokens")]
    order = np.argsort(columns[0])
    order = order[::-1] if high else order
    return columns[0][order], columns[1][order], columns[2][order]


def _nothing(high: bool) -> Cut:
    return Cut(1 << 32 if high else -1, 0, high)
