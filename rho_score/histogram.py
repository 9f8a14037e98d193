"""Exact global selection from histograms: order-preserving keys, counts that merge by addition, cuts. Pure functions.

A score is a float16 value, so there are 65,536 of them. A histogram over all of them loses nothing: the count that a
quantile needs is read off it exactly, and histograms of parts add up to that of the whole in any order.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

N_KEYS = 1 << 16

COUNTS = pa.schema(
    [
        pa.field("group", pa.string()),
        pa.field("key", pa.uint16(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
"""A histogram as a table: items (tokens, or documents) and the tokens they hold, a row for each key that occurs."""


def round_score(scores: np.ndarray) -> np.ndarray:
    """Scores as they are stored: float32[n] holding float16 values; -0.0 becomes 0.0, NaN stays."""
    with np.errstate(over="ignore"):
        return scores.astype(np.float16).astype(np.float32) + np.float32(0)


def keys_of(scores: np.ndarray) -> np.ndarray:
    """uint16[n] that orders as the float16 `scores` do: a < b exactly if key(a) < key(b). No NaN."""
    bits = round_score(scores).astype(np.float16).view(np.uint16)
    negative = bits >> 15 == 1
    return np.where(negative, ~bits, bits | np.uint16(0x8000))


def values_of(keys: np.ndarray) -> np.ndarray:
    """float32[n]: the inverse of `keys_of`."""
    keys = keys.astype(np.uint16)
    bits = np.where(keys & 0x8000, keys & np.uint16(0x7FFF), ~keys)
    values: np.ndarray = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    return values


def count(group: str | None, scores: np.ndarray, tokens: np.ndarray | None = None) -> pa.Table:
    """The histogram of `scores` (float[n], NaN are no items); `tokens` (int[n]) are what each item holds, one if not given."""
    present = ~np.isnan(scores)
    keys = keys_of(scores[present])
    counts = np.bincount(keys, minlength=N_KEYS)
    weights = counts if tokens is None else np.bincount(keys, tokens[present], N_KEYS).astype(np.int64)
    found = np.flatnonzero(counts)
    groups = pa.array([group] * len(found), pa.string())
    columns = [
        groups,
        found.astype(np.uint16),
        counts[found].astype(np.int64),
        weights[found].astype(np.int64),
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=COUNTS)


def merge(parts: Iterable[pa.Table]) -> pa.Table:
    """The histogram of the whole: counts of equal group and key added, ordered by group and key."""
    whole = pa.concat_tables([COUNTS.empty_table(), *parts]).group_by(["group", "key"])
    added = whole.aggregate([("count", "sum"), ("tokens", "sum")]).rename_columns(COUNTS.names)
    return added.cast(COUNTS).sort_by([("group", "ascending"), ("key", "ascending")])


@dataclass(frozen=True)
class Cut:
    """Where a ranking is cut: every item past `key` is kept, and `ties` of those at `key`, the first in corpus order."""

    key: int
    ties: int
    high: bool
    """Whether high scores are kept (items past the key are those above it), or low ones."""
    kept: int = 0
    """Items kept."""
    budget: int | None = None
    """Tokens left for the documents at `key`, taken in corpus order up to the first that does not fit; `ties` is then
    the number of documents there are."""

    @property
    def threshold(self) -> float:
        """The score at the cut, nats; NaN where nothing is kept at any score."""
        return float(values_of(np.array([self.key]))[0]) if 0 <= self.key < N_KEYS else float("nan")

    def past(self, keys: np.ndarray) -> np.ndarray:
        """bool[n]: items that are kept whatever becomes of the ties."""
        return keys.astype(np.int64) > self.key if self.high else keys.astype(np.int64) < self.key

    def tied(self, keys: np.ndarray) -> np.ndarray:
        """bool[n]: items at the cut."""
        found: np.ndarray = keys.astype(np.int64) == self.key
        return found


def cut_items(histogram: pa.Table, n_keep: int, *, high: bool) -> Cut:
    """The cut that keeps exactly `n_keep` items (all, if there are fewer) of one group's histogram."""
    keys, counts, _ = _ranked(histogram, high=high)
    total = np.cumsum(counts)
    n_keep = min(n_keep, int(total[-1]) if len(total) else 0)
    if n_keep <= 0:
        return _nothing(high)
    at = int(np.searchsorted(total, n_keep))
    before = int(total[at] - counts[at])
    return Cut(int(keys[at]), n_keep - before, high, kept=n_keep)


def cut_threshold(histogram: pa.Table, threshold: float, *, high: bool) -> Cut:
    """The cut that keeps every item with score >= `threshold` (<=, for the low end)."""
    keys, counts, _ = _ranked(histogram, high=high)
    values = values_of(keys)
    wanted = int(np.sum(values >= threshold) if high else np.sum(values <= threshold))
    if wanted == 0:
        return _nothing(high)
    return Cut(int(keys[wanted - 1]), int(counts[wanted - 1]), high, kept=int(counts[:wanted].sum()))


def cut_budget(histogram: pa.Table, n_tokens: int, *, high: bool) -> Cut:
    """The cut that fills `n_tokens` with whole items in rank order, up to the first that does not fit.

    `kept` counts the items past the key only: how many of those at it fit is known once their lengths are.
    """
    keys, counts, tokens = _ranked(histogram, high=high)
    total = np.cumsum(tokens)
    at = int(np.searchsorted(total, n_tokens, side="right"))  # the first key whose items do not all fit
    if at == len(keys):
        return Cut(int(keys[-1]), int(counts[-1]), high, kept=int(counts.sum())) if len(keys) else _nothing(high)
    before = int(total[at] - tokens[at])
    return Cut(int(keys[at]), int(counts[at]), high, kept=int(counts[:at].sum()), budget=n_tokens - before)


def _ranked(histogram: pa.Table, *, high: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys best first, with their counts and tokens."""
    columns = [histogram[name].to_numpy() for name in ("key", "count", "tokens")]
    order = np.argsort(columns[0])
    order = order[::-1] if high else order
    return columns[0][order], columns[1][order], columns[2][order]


def _nothing(high: bool) -> Cut:
    return Cut(N_KEYS if high else -1, 0, high)
