"""Exact global selection from histograms: order-preserving keys, counts that merge by addition. Pure functions.

A score of `bits` bits (a float16 or a float32 value) is mapped to a key of so many bits that orders as the values do. 16-bit
keys are counted one by one, so their histogram loses nothing: the count that a quantile needs is read off it exactly, and
histograms of parts add up to that of the whole in any order. 32-bit keys are counted in two passes: by their high halves,
and within the one high half where a cut falls, by their low halves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_arrow, as_numpy
from rho_score.ranking.kernel import add_counts
from rho_score.ranking.keys import N_COUNTERS, Bits, keys_of, round_score

Group = str | None
Expert = str | None
MINUS_ZERO = 1 << 15  # bits of the float16 that is counted as 0.0
FIRST_ROWS, MAX_ROWS = 16, 1024  # memory that is not touched is not there
MOST_ITEMS = (1 << 32) - 1  # what a counter of 32 bits can hold
HELD = 8  # histograms of 32-bit keys that are held before they are added up


COUNTS = pa.schema(
    [
        pa.field("expert", pa.string()),
        pa.field("group", pa.string()),
        pa.field("key", pa.uint32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
"""A histogram as a table: items (tokens, or documents) and the tokens they hold, a row for each key that occurs.

expert: whose ranking it is, null where there is one only. group: null without groups. A 32-bit key whose low half was not
counted has zeros there.
"""


NO_COUNTS = pa.Table.from_batches([], COUNTS)


class Counter:
    """Counts items of many units, a row of 65,536 counters for each expert and group.

    within: only items whose key has this high half are counted, by the low half (the second pass over 32-bit keys).
    """

    def __init__(self, bits: Bits, within: Mapping[tuple[Expert, Group], Sequence[int]] | None = None) -> None:
        self._bits, self._within = bits, within
        self._counts = np.zeros((FIRST_ROWS, N_COUNTERS), np.uint32)  # of 32 bits, so that they stay in the cache
        self._n_items = 0  # counted there
        self._full: np.ndarray | None = None  # int64: what was counted before, where 32 bits did not do
        self._tokens: np.ndarray | None = None  # int64: what the items hold, where that is not one token each
        self._rows: dict[tuple[Expert, Group, int], int] = {}

    def add(
        self,
        expert: Expert,
        scores: np.ndarray,
        lengths: np.ndarray,
        owners: np.ndarray,
        names: Sequence[Group],
        tokens: np.ndarray | None = None,
    ) -> None:
        """Count `scores` (float32[n], rounded; NaN are no items), which come in runs: a document's tokens, or one document.

        lengths: of the runs, int64[n_runs]. owners: index of each run's group in `names`, int64[n_runs].
        tokens: what each item holds, int64[n]; one if not given.
        """
        if self._within is None:
            rows = np.array([self._row(expert, name, 0) for name in names], np.int64)[owners]
            self._add(_bins(scores, self._bits), lengths, rows, tokens)
            return
        keys = keys_of(scores, self._bits)
        every = {high for name in names for high in self._within.get((expert, name), ())}
        near = np.flatnonzero(np.isin(keys >> 16, list(every)) & ~np.isnan(scores))
        keys, owner = keys[near], np.repeat(owners, lengths)[near]
        held = None if tokens is None else tokens[near]
        for i, name in enumerate(names):
            for high in self._within.get((expert, name), ()):
                found = np.flatnonzero((owner == i) & (keys >> 16 == high))
                row, n = self._row(expert, name, high), np.array([len(found)])
                bins = (keys[found] & 0xFFFF).astype(np.uint16)
                self._add(bins, n, np.array([row]), None if held is None else held[found])

    def _add(self, bins: np.ndarray, lengths: np.ndarray, rows: np.ndarray, tokens: np.ndarray | None) -> None:
        if self._n_items + len(bins) > MOST_ITEMS:
            self._full = self._counts + (np.int64(0) if self._full is None else self._full)
            self._counts, self._n_items = np.zeros_like(self._counts), 0
        add_counts(self._counts, bins, lengths, rows)
        self._n_items += len(bins)
        if tokens is not None:
            self._tokens = np.zeros(self._counts.shape, np.int64) if self._tokens is None else self._tokens
            add_counts(self._tokens, bins, lengths, rows, tokens)

    def table(self) -> pa.Table:
        """The histogram (`COUNTS`)."""
        n = len(self._rows)
        sums = self._counts[:n] + (np.int64(0) if self._full is None else self._full[:n])
        held = sums if self._tokens is None else self._tokens[:n]
        if self._within is None and self._bits == 16:
            for counters in (sums,) if held is sums else (sums, held):
                counters[:, 0] += counters[:, MINUS_ZERO]
                counters[:, MINUS_ZERO] = 0
        keys, order = _bin_keys(self._bits) if self._within is None else (np.arange(N_COUNTERS), slice(None))
        parts = []
        for (expert, group, high), row in sorted(self._rows.items(), key=str):
            counts = sums[row][order]
            tokens = counts if held is sums else held[row][order]
            used = np.flatnonzero(counts > 0)
            names = [_repeated(name, len(used)) for name in (expert, group)]
            columns = [as_arrow(a) for a in ((high << 16 | keys[used]).astype(np.uint32), counts[used], tokens[used])]
            parts.append(pa.Table.from_arrays([*names, *columns], schema=COUNTS))
        return pa.concat_tables([NO_COUNTS, *parts])

    def _row(self, expert: Expert, group: Group, high: int) -> int:
        row = self._rows.setdefault((expert, group, high), len(self._rows))
        if row >= MAX_ROWS and self._within is None:
            raise _too_many()
        if row >= len(self._counts):
            self._counts, self._full, self._tokens = map(_with_more_rows, (self._counts, self._full, self._tokens))
        return row


def _too_many() -> RhoScoreError:
    return RhoScoreError(
        f"more than {MAX_ROWS:,} groups, each counted once for every reference of a union or category of dynamics: each takes "
        "a quarter of a megabyte of counters in every task, and a whole one where they are added up. Score with a --group-column of fewer values."
    )


def _with_more_rows(counters: Any) -> Any:
    return None if counters is None else np.concatenate([counters, np.zeros_like(counters)])


def _bins(scores: np.ndarray, bits: Bits) -> np.ndarray:
    """uint16[n]: a float16's own bits, or the high half of a 32-bit key. `_bin_keys` tells which keys they are."""
    if bits == 16:
        return round_score(scores).view(np.uint16)
    highs = (keys_of(scores, bits) >> 16).astype(np.uint16)
    highs[np.isnan(scores)] = N_COUNTERS - 1  # no number has that
    return highs


@cache
def _bin_keys(bits: Bits) -> tuple[np.ndarray, np.ndarray]:
    """(keys, bins), int64[n] each: the key of every bin of `_bins`, or the first of its keys, in order; no bin of NaN."""
    bins = np.arange(N_COUNTERS)
    if bits == 32:
        return bins[:-1] << 16, bins[:-1]
    values = bins.astype(np.uint16).view(np.float16)
    keys = keys_of(values).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    order = order[~np.isnan(values[order]) & (order != MINUS_ZERO)]
    return keys[order], order


def merge(parts: Iterable[pa.Table]) -> pa.Table:
    """The histogram of the whole: counts of equal expert, group and key added, ordered by them.

    Raises:
        RhoScoreError: more groups than there is memory for, though each part may have few of them.
    """
    small: dict[tuple[Expert, Group], np.ndarray] = {}  # int64[2, 65536]: counts and tokens of keys of 16 bits
    large: dict[tuple[Expert, Group], list[np.ndarray]] = {}  # rows of keys of 32 bits
    for part in parts:
        for place, rows in by_place(part):
            keys, counts, tokens = (as_numpy(rows[name]) for name in ("key", "count", "tokens"))
            if int(keys.max()) < N_COUNTERS:
                if place not in small:
                    if len(small) == MAX_ROWS:
                        raise _too_many()
                    small[place] = np.zeros((2, N_COUNTERS), np.int64)
                np.add.at(small[place][0], keys, counts)
                np.add.at(small[place][1], keys, tokens)
            else:
                rows_of = large.setdefault(place, [])
                rows_of.append(np.stack([keys.astype(np.int64), counts, tokens]))
                if len(rows_of) == HELD:
                    large[place] = [_summed(np.concatenate(rows_of, axis=1))]
    tables = [NO_COUNTS]
    for place in sorted({*small, *large}, key=lambda place: [(name is not None, name or "") for name in place]):
        rows_of = large.get(place, [])
        if place in small:
            used = np.flatnonzero(small[place][0])
            rows_of = [*rows_of, np.stack([used, *small[place][:, used]])]
        columns = _summed(np.concatenate(rows_of, axis=1)) if len(rows_of) > 1 or place in large else rows_of[0]
        names = [_repeated(name, columns.shape[1]) for name in place]
        arrays = [as_arrow(columns[0].astype(np.uint32)), as_arrow(columns[1]), as_arrow(columns[2])]
        tables.append(pa.Table.from_arrays([*names, *arrays], schema=COUNTS))
    return pa.concat_tables(tables)


def _summed(rows: np.ndarray) -> np.ndarray:
    """Rows of (key, count, tokens) ordered by key, those of equal key added; int64[3, n]."""
    rows = rows[:, np.argsort(rows[0], kind="stable")]
    starts = np.flatnonzero(np.diff(rows[0], prepend=-1))
    return np.stack([rows[0][starts], *np.add.reduceat(rows[1:], starts, axis=1)])


def by_place(histogram: pa.Table) -> Iterator[tuple[tuple[Expert, Group], pa.Table]]:
    """The histogram of each expert and group, as runs of rows: a table that `merge` made has one run of each."""
    if not len(histogram):
        return
    runs = [pc.run_end_encode(histogram[name].combine_chunks()) for name in ("expert", "group")]
    start = 0
    for stop in sorted({end for run in runs for end in run.run_ends.to_pylist()}):
        expert, group = (run[start].as_py() for run in runs)
        yield (expert, group), histogram.slice(start, stop - start)
        start = stop


def _repeated(name: str | None, n: int) -> pa.Array:
    """`name` n times; from buffers, since pyarrow's own way imports pandas."""
    if name is None:
        return pa.nulls(n, pa.string())
    content = name.encode()
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(len(content))
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(content * n))


def without_groups(histogram: pa.Table) -> pa.Table:
    """The histogram of all groups together."""
    nulls = pa.nulls(len(histogram), pa.string())
    return merge([histogram.set_column(1, COUNTS.field("group"), nulls)])


def refine(coarse: pa.Table, fine: pa.Table) -> pa.Table:
    """A histogram by high halves of 32-bit keys, with the rows that `fine` counts in detail replaced by those."""
    detailed: dict[tuple[Expert, Group], np.ndarray] = {}
    for place, rows in by_place(merge([fine])):
        detailed[place] = np.unique(as_numpy(rows["key"]) >> 16)
    left = [fine]
    for place, rows in by_place(coarse):
        known = np.isin(as_numpy(rows["key"]) >> 16, detailed.get(place, []))
        left.append(rows.filter(pa.array(~known)))
    return merge(left)
