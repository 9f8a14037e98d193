"""Histograms for an exact, global selection: counts of order-preserving keys, which can be added.

A score of `bits` bits (a float16 or float32 value) is mapped to a key of the same size, and keys
have the order of the scores. Each 16-bit key has its own counter, so the histogram loses nothing: a
quantile is read off it exactly, and the histograms of parts, added in any order, are that of the
whole. 32-bit keys are counted in two passes: by their high halves, and then by their low halves
within each high half that a cut falls into. Pure functions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_arrow, as_numpy
from rho_score.ranking.kernel import add_counts
from rho_score.ranking.keys import N_COUNTERS, Bits, keys_of, round_score

Group = str | None


class Ranking(NamedTuple):
    """Names a ranking by its reference and its group.

    reference: None if the references do not have a ranking each. group: None if there is one
    ranking for all groups, and for documents without a group.
    """

    reference: str | None
    group: Group


MINUS_ZERO = 1 << 15  # the bits of the float16 -0.0, which is counted as 0.0
FIRST_ROWS, MAX_ROWS = 16, 1024  # counters that are never written to take no memory
MOST_ITEMS = (1 << 32) - 1  # the largest count that a 32-bit counter holds
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
"""The columns of a histogram, which has a row for each key that occurs.

expert: the reference of the ranking; null if the references do not have a ranking each. group: null
without a group. key: a 32-bit key whose low half was not counted has zeros there. count: items,
which are tokens or documents. tokens: tokens in these items.
"""


NO_COUNTS = pa.Table.from_batches([], COUNTS)


class Counter:
    """Counts the items of many units in a row of 65,536 counters for each reference and group.

    refined_bins: given in the second pass over 32-bit keys. Only items whose key has one of these
    high halves are counted, by the low half.
    """

    def __init__(self, bits: Bits, refined_bins: Mapping[Ranking, Sequence[int]] | None = None) -> None:
        self._bits, self._refined = bits, refined_bins
        self._counts = np.zeros((FIRST_ROWS, N_COUNTERS), np.uint32)  # 32 bits stay in the cache
        self._n_items = 0  # items in `_counts`
        self._full: np.ndarray | None = None  # int64: earlier counts, once 32 bits were too few
        self._tokens: np.ndarray | None = None  # int64: tokens in the items, if not one in each
        self._rows: dict[tuple[str | None, Group, int], int] = {}

    def add(
        self,
        reference: str | None,
        scores: np.ndarray,
        lengths: np.ndarray,
        owners: np.ndarray,
        names: Sequence[Group],
        tokens: np.ndarray | None = None,
    ) -> None:
        """Counts items, which come in runs: the tokens of a document, or one document.

        scores: rounded, float32[n]; NaN is no item. lengths: items of each run, int64[n_runs].
        owners: index of each run's group in `names`, int64[n_runs]. tokens: tokens in each item,
        int64[n]; one if not given.
        """
        if self._refined is None:
            rows = np.array([self._row(reference, name, 0) for name in names], np.int64)[owners]
            self._add(_bins(scores, self._bits), lengths, rows, tokens)
            return
        keys = keys_of(scores, self._bits)
        every = {high for name in names for high in self._refined.get(Ranking(reference, name), ())}
        near = np.flatnonzero(np.isin(keys >> 16, list(every)) & ~np.isnan(scores))
        keys, owner = keys[near], np.repeat(owners, lengths)[near]
        held = None if tokens is None else tokens[near]
        for i, name in enumerate(names):
            for high in self._refined.get(Ranking(reference, name), ()):
                found = np.flatnonzero((owner == i) & (keys >> 16 == high))
                row, n = self._row(reference, name, high), np.array([len(found)])
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
        """The histogram, with the columns of `COUNTS`."""
        n = len(self._rows)
        sums = self._counts[:n] + (np.int64(0) if self._full is None else self._full[:n])
        held = sums if self._tokens is None else self._tokens[:n]
        if self._refined is None and self._bits == 16:
            for counters in (sums,) if held is sums else (sums, held):
                counters[:, 0] += counters[:, MINUS_ZERO]
                counters[:, MINUS_ZERO] = 0
        keys, order = _bin_keys(self._bits) if self._refined is None else (np.arange(N_COUNTERS), slice(None))
        parts = []
        for (reference, group, high), row in sorted(self._rows.items(), key=str):
            counts = sums[row][order]
            tokens = counts if held is sums else held[row][order]
            used = np.flatnonzero(counts > 0)
            names = [_repeated(name, len(used)) for name in (reference, group)]
            columns = [as_arrow(a) for a in ((high << 16 | keys[used]).astype(np.uint32), counts[used], tokens[used])]
            parts.append(pa.Table.from_arrays([*names, *columns], schema=COUNTS))
        return pa.concat_tables([NO_COUNTS, *parts])

    def _row(self, reference: str | None, group: Group, high: int) -> int:
        row = self._rows.setdefault((reference, group, high), len(self._rows))
        if row >= MAX_ROWS and self._refined is None:
            raise _too_many()
        if row >= len(self._counts):
            self._counts, self._full, self._tokens = map(_with_more_rows, (self._counts, self._full, self._tokens))
        return row


def _too_many() -> RhoScoreError:
    return RhoScoreError(
        f"there are more than {MAX_ROWS:,} groups, where each counts once for every reference of a union or category of "
        "dynamics. A group takes a quarter of a megabyte of counters in every task, and a whole one where they are "
        "added up. Score with a --group-column that has fewer values."
    )


def _with_more_rows(counters: Any) -> Any:
    return None if counters is None else np.concatenate([counters, np.zeros_like(counters)])


def _bins(scores: np.ndarray, bits: Bits) -> np.ndarray:
    """The bin of each score, uint16[n]: the bits of a float16, or the high half of a 32-bit key.

    `_bin_keys` gives the key of each bin.
    """
    if bits == 16:
        return round_score(scores).view(np.uint16)
    highs = (keys_of(scores, bits) >> 16).astype(np.uint16)
    highs[np.isnan(scores)] = N_COUNTERS - 1  # the bin of no number
    return highs


@cache
def _bin_keys(bits: Bits) -> tuple[np.ndarray, np.ndarray]:
    """The keys and the numbers of all bins but those of NaN, ordered by key, int64[n_bins] each.

    The key of a bin that holds several 32-bit keys is the first of them.
    """
    bins = np.arange(N_COUNTERS)
    if bits == 32:
        return bins[:-1] << 16, bins[:-1]
    values = bins.astype(np.uint16).view(np.float16)
    keys = keys_of(values).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    order = order[~np.isnan(values[order]) & (order != MINUS_ZERO)]
    return keys[order], order


def merge(parts: Iterable[pa.Table]) -> pa.Table:
    """The sum of the histograms, ordered by reference, group and key.

    Raises:
        RhoScoreError: there are more groups than memory allows, though each part may have few.
    """
    small: dict[Ranking, np.ndarray] = {}  # int64[2, 65536]: counts and tokens of 16-bit keys
    large: dict[Ranking, list[np.ndarray]] = {}  # int64[3, n]: 32-bit keys, counts and tokens
    for part in parts:
        for ranking, rows in by_ranking(part):
            keys, counts, tokens = (as_numpy(rows[name]) for name in ("key", "count", "tokens"))
            if int(keys.max()) < N_COUNTERS:
                if ranking not in small:
                    if len(small) == MAX_ROWS:
                        raise _too_many()
                    small[ranking] = np.zeros((2, N_COUNTERS), np.int64)
                np.add.at(small[ranking][0], keys, counts)
                np.add.at(small[ranking][1], keys, tokens)
            else:
                rows_of = large.setdefault(ranking, [])
                rows_of.append(np.stack([keys.astype(np.int64), counts, tokens]))
                if len(rows_of) == HELD:
                    large[ranking] = [_summed(np.concatenate(rows_of, axis=1))]
    tables = [NO_COUNTS]
    for ranking in sorted({*small, *large}, key=lambda ranking: [(name is not None, name or "") for name in ranking]):
        rows_of = large.get(ranking, [])
        if ranking in small:
            used = np.flatnonzero(small[ranking][0])
            rows_of = [*rows_of, np.stack([used, *small[ranking][:, used]])]
        columns = _summed(np.concatenate(rows_of, axis=1)) if len(rows_of) > 1 or ranking in large else rows_of[0]
        names = [_repeated(name, columns.shape[1]) for name in ranking]
        arrays = [as_arrow(columns[0].astype(np.uint32)), as_arrow(columns[1]), as_arrow(columns[2])]
        tables.append(pa.Table.from_arrays([*names, *arrays], schema=COUNTS))
    return pa.concat_tables(tables)


def _summed(rows: np.ndarray) -> np.ndarray:
    """Keys, counts and tokens ordered by key, with those of equal keys added up, int64[3, n]."""
    rows = rows[:, np.argsort(rows[0], kind="stable")]
    starts = np.flatnonzero(np.diff(rows[0], prepend=-1))
    return np.stack([rows[0][starts], *np.add.reduceat(rows[1:], starts, axis=1)])


def by_ranking(histogram: pa.Table) -> Iterator[tuple[Ranking, pa.Table]]:
    """Each run of rows that belong to one ranking. A table from `merge` has one run per ranking."""
    if not len(histogram):
        return
    runs = [pc.run_end_encode(histogram[name].combine_chunks()) for name in ("expert", "group")]
    start = 0
    for stop in sorted({end for run in runs for end in run.run_ends.to_pylist()}):
        reference, group = (run[start].as_py() for run in runs)
        yield Ranking(reference, group), histogram.slice(start, stop - start)
        start = stop


def _repeated(name: str | None, n: int) -> pa.Array:
    """`name` n times, string[n]; made from buffers, since pyarrow's own way imports pandas."""
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
    """The histogram `coarse`, in which the bins that `fine` counts are replaced by its rows.

    coarse: counts by the high halves of 32-bit keys. fine: counts by whole keys.
    """
    detailed: dict[Ranking, np.ndarray] = {}
    for ranking, rows in by_ranking(merge([fine])):
        detailed[ranking] = np.unique(as_numpy(rows["key"]) >> 16)
    left = [fine]
    for ranking, rows in by_ranking(coarse):
        known = np.isin(as_numpy(rows["key"]) >> 16, detailed.get(ranking, []))
        left.append(rows.filter(pa.array(~known)))
    return merge(left)
