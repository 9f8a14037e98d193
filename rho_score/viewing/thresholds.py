"""What any threshold would keep of each group, read off the histograms of a store. Pure functions."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy
from rho_score.ranking.histogram import Group, by_ranking

OUTSIDE = 0.002
"""The share of the items at either end that a chart puts into its outermost bars."""


@dataclass(frozen=True)
class _Counts:
    """One group of a ranking: rising values, float64[n], and the items and tokens below each, int64[n + 1]."""

    values: np.ndarray
    items: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, items: np.ndarray, tokens: np.ndarray) -> "_Counts":
        """The counts of unsorted values; equal values are added up."""
        order = np.argsort(values, kind="stable")
        values, starts = np.unique(values[order], return_index=True)
        sums = (np.add.reduceat(counts[order], starts) if len(starts) else counts for counts in (items, tokens))
        below = [np.concatenate([[0], np.cumsum(counts)]) for counts in sums]
        return cls(values, *below)

    def kept(self, threshold: float, *, high: bool) -> tuple[int, int]:
        """The items and tokens that a threshold keeps."""
        at = int(np.searchsorted(self.values, threshold, side="left" if high else "right"))
        counts = ((int(below[-1] - below[at]) if high else int(below[at])) for below in (self.items, self.tokens))
        items, tokens = counts
        return items, tokens


@dataclass(frozen=True)
class GroupKept:
    """What a threshold keeps of one group. Items are tokens or documents."""

    group: Group
    items: int
    tokens: int
    items_kept: int
    tokens_kept: int


@dataclass(frozen=True)
class Distribution:
    """Bars of a chart. edges: float[n + 1]. counts: int64[n]; what lies outside is in the outermost."""

    edges: np.ndarray
    counts: np.ndarray


class Thresholds:
    """The histogram of one ranking of a store, arranged so that a threshold is answered at once."""

    def __init__(self, histogram: pa.Table, *, high: bool) -> None:
        """histogram: columns expert, group, value, count and tokens. high: True if high scores are kept first."""
        self.high = high
        self._groups: dict[Group, _Counts] = {}
        parts: dict[Group, list[pa.Table]] = {}
        for ranking, rows in by_ranking(histogram):
            parts.setdefault(ranking.group, []).append(rows)
        for group, tables in parts.items():
            columns = _columns(pa.concat_tables(tables))
            self._groups[group] = _Counts.of(*columns)
        self._histogram = histogram

    @cached_property
    def _whole(self) -> _Counts:
        return _Counts.of(*_columns(self._histogram))

    def _of(self, group: Group, *, whole: bool) -> _Counts:
        return self._whole if whole else self._groups[group]

    @property
    def groups(self) -> list[Group]:
        """The groups, in the histogram's order."""
        return list(self._groups)

    @property
    def items(self) -> int:
        """The number of items."""
        return int(self._whole.items[-1])

    def at(self, threshold: float) -> list[GroupKept]:
        """What a threshold keeps of each group: scores >= it, or <= it if low scores are kept first."""
        found = []
        for group, counts in self._groups.items():
            items, tokens = counts.kept(threshold, high=self.high)
            found.append(GroupKept(group, int(counts.items[-1]), int(counts.tokens[-1]), items, tokens))
        return found

    def at_share(self, share: float) -> float | None:
        """The threshold that keeps the least items of those that keep at least `share` of them."""
        counts, wanted = self._whole, round(share * self.items)
        if wanted <= 0 or not len(counts.values):
            return None
        if self.high:
            at = int(np.searchsorted(counts.items, self.items - wanted, side="right")) - 1
        else:
            at = int(np.searchsorted(counts.items, wanted, side="left")) - 1
        return float(counts.values[at])

    def range(self) -> tuple[float, float]:
        """The scores between which all items lie but the share `OUTSIDE` at either end."""
        low, high = self.quantiles((OUTSIDE, 1 - OUTSIDE)) or (0.0, 1.0)
        return low, max(high, low + 1e-3)

    def quantiles(self, shares: tuple[float, ...]) -> list[float]:
        """The scores at these shares (0 to 1) of the items that have a finite one; empty if none has."""
        counts = self._whole
        finite = np.isfinite(counts.values)
        if not finite.any():
            return []
        total = np.cumsum(np.diff(counts.items)[finite])
        at = np.searchsorted(total, np.array(shares) * total[-1]).clip(0, int(finite.sum()) - 1)
        found: list[float] = counts.values[finite][at].tolist()
        return found

    def distribution(self, group: Group = None, *, whole: bool = True, bars: int = 120) -> Distribution:
        """The chart of a group, or of all groups if `whole`, between the ends of `range`."""
        low, high = self.range()
        edges = np.linspace(low, high, bars + 1)
        counts = self._of(group, whole=whole)
        values = np.clip(counts.values, low, high)
        return Distribution(edges, np.histogram(values, edges, weights=np.diff(counts.items))[0].astype(np.int64))


def _columns(rows: pa.Table) -> list[np.ndarray]:
    values = as_numpy(rows["value"]).astype(np.float64)
    values = np.where(np.isnan(values), -np.inf, values)  # the first key of a bin may be that of a NaN
    return [values, as_numpy(rows["count"]), as_numpy(rows["tokens"])]
