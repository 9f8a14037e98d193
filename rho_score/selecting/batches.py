"""Stages of Ray tasks over batches of units: one makes the histogram, another writes files.

Histograms are merged in a tree of tasks, and the counts of the written files are added up.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import connected
from rho_score.cluster.tasks import Reference, as_task, in_order, in_tasks, in_turn, result
from rho_score.ranking.histogram import NO_COUNTS, Group, merge
from rho_score.selecting.row_ranges import JoinedUnit, RowRange, row_ranges_by_unit, scored_rows
from rho_score.stores.counts import GroupCounts, add_groups
from rho_score.stores.score_set import ScoreSet

UNITS_PER_BATCH = 64
FAN_IN = 4  # histograms, of several megabytes each, that a level of the tree holds
NO_ROW_RANGES: Mapping[str, tuple[RowRange, ...]] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive units that are the work of one task. index: its number in corpus order."""

    index: int
    units: tuple[JoinedUnit, ...]

    @property
    def names(self) -> list[str]:
        """Names of the units."""
        return [unit.unit for unit in self.units]


def batches_of(main: ScoreSet, others: Sequence[ScoreSet]) -> list[Batch]:
    """The units of `main` in corpus order, in batches of up to 64.

    others: the sets that are cut into other units. Each unit says which of their rows it joins.

    The size of a batch depends only on the plan, so that a resumed selection finds the batches that
    it counted. There are enough batches for many workers, and few enough that allocating and
    merging their histograms is a small part of the work.
    """
    row_ranges = []
    if others:
        rows = _rows(main)
        row_ranges = [(s.folder.url, row_ranges_by_unit(main.units, rows, s.units, _rows(s))) for s in others]
    names = main.plan_names()["unit"].to_pylist()
    units = [
        JoinedUnit(name, {url: places[name] for url, places in row_ranges} if row_ranges else NO_ROW_RANGES)
        for name in names
    ]
    n = max(1, min(UNITS_PER_BATCH, max(len(units) // 128, min(4, len(units) // 16))))
    return [Batch(i // n, tuple(units[i : i + n])) for i in range(0, len(units), n)]


def _rows(scores: ScoreSet) -> list[int]:
    """The number of scored documents of every unit, from the footers."""
    names = scores.plan_names()["unit"].to_pylist()
    chunks = [names[i : i + 1024] for i in range(0, len(names), 1024)]
    return [n for _, chunk in in_order(fetched(in_tasks(partial(scored_rows, scores), chunks))) for n in chunk]


def histogram_of(count: Callable[[Batch], pa.Table], batches: Sequence[Batch], *, workers: int | None) -> pa.Table:
    """The histogram of all batches (`histogram.COUNTS`).

    On a cluster, the batches' histograms are merged in a tree of tasks, and the driver holds only
    the last one. Without a cluster, each is added to the sum when it comes.
    """
    with Progress("count", n_units=sum(len(batch.units) for batch in batches)) as progress:

        def counted() -> Iterator[Reference]:
            for index, reference in in_tasks(count, batches, workers=workers):
                progress.add(units=len(batches[index].units))
                yield reference

        return _merged_in_a_tree(counted()) if connected() else merge(counted())


def histogram_in_turn(
    count: Callable[[Iterable[JoinedUnit]], pa.Table], batches: Sequence[Batch], *, workers: int | None
) -> pa.Table:
    """The histogram of all batches, without a cluster and without a file for each batch.

    Each thread allocates one histogram and counts all of its units in it.
    """
    units = [unit for batch in batches for unit in batch.units]
    telling = threading.Lock()
    with Progress("count", n_units=len(units)) as progress:

        def counted(mine: Iterator[JoinedUnit]) -> Iterator[JoinedUnit]:
            for unit in mine:
                yield unit
                with telling:  # a unit is done when the thread asks for the next one
                    progress.add()

        return merge(in_turn(lambda mine: count(counted(mine)), units, workers=workers))


def _merged_in_a_tree(parts: Iterable[Reference]) -> pa.Table:
    merged = as_task(_merged)
    levels: list[list[Reference]] = [[]]
    for reference in parts:
        levels[0].append(reference)
        level = 0
        while len(levels[level]) == FAN_IN:
            full, levels[level] = levels[level], []
            level += 1
            levels += [[]] if level == len(levels) else []
            levels[level].append(merged(*full))
    rest = [reference for level in levels for reference in level]
    table: pa.Table = result(merged(*rest)) if rest else NO_COUNTS
    return table


def _merged(*parts: pa.Table) -> pa.Table:
    return merge(parts)


def written(
    what: str,
    write: Callable[[Any], Any],
    items: Iterable[Any],
    batches: Sequence[Batch],
    *,
    workers: int | None,
    each: Callable[[Any], None] = lambda _: None,
) -> tuple[int, dict[Group, GroupCounts]]:
    """Writes every item, of which there is one for each batch.

    write: returns how many units it wrote, the batch's counts by group, and a value for `each`.
    each: called with that value as soon as a batch is done, in any order.

    Returns how many units were written, and the counts by group. They are added up in corpus order,
    so that sums of floats do not depend on which batch was done first.
    """
    computed, groups = 0, dict[Group, GroupCounts]()

    def noted() -> Iterator[tuple[int, tuple[int, Mapping[Group, GroupCounts]]]]:
        for index, (n_written, counts, more) in fetched(in_tasks(write, items, workers=workers)):
            each(more)  # before sorting: values that wait for a late batch would pile up
            yield index, (n_written, counts)

    with Progress(what, n_units=sum(len(batch.units) for batch in batches)) as progress:
        for index, (n_written, counts) in in_order(noted()):
            computed += n_written
            add_groups(groups, counts)
            total = sum(counts.values(), GroupCounts())
            progress.add(tokens=total.tokens, units=len(batches[index].units))
            if what == "select" and (whole := sum(groups.values(), GroupCounts())).tokens_scored:
                progress.gauge("kept_ratio", whole.tokens_kept / whole.tokens_scored)
    return computed, groups


def fetched(finished: Iterable[tuple[int, Reference]]) -> Iterator[tuple[int, Any]]:
    """The results of finished tasks, each with its index."""
    return ((index, result(reference)) for index, reference in finished)
