"""Stages of Ray tasks over batches of units: a histogram merged in a tree, files written and their accounts added up."""

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
from rho_score.selecting.row_ranges import JoinedUnit, Piece, pieces_by_rows, scored_rows
from rho_score.stores.counts import GroupAccounts
from rho_score.stores.score_set import ScoreSet

UNITS_PER_BATCH = 64
FAN_IN = 4  # histograms of several megabytes that are held at each level of the tree
NO_PIECES: Mapping[str, tuple[Piece, ...]] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive units that are one task. `index` numbers the batches in corpus order."""

    index: int
    units: tuple[JoinedUnit, ...]

    @property
    def names(self) -> list[str]:
        """Names of the units."""
        return [unit.unit for unit in self.units]


def batches_of(main: ScoreSet, others: Sequence[ScoreSet]) -> list[Batch]:
    """The units of `main` in corpus order, up to 64 together, with where they are in the sets that are cut otherwise.

    How many depends on the plan alone, so that a resumed selection finds what it counted: enough batches for many workers,
    and then so few that laying out and merging their histograms is little of the work.
    """
    pieces = []
    if others:
        rows = _rows(main)
        pieces = [(s.folder.url, pieces_by_rows(main.units, rows, s.units, _rows(s))) for s in others]
    names = main.plan_names()["unit"].to_pylist()
    units = [JoinedUnit(name, {url: places[name] for url, places in pieces} if pieces else NO_PIECES) for name in names]
    n = max(1, min(UNITS_PER_BATCH, max(len(units) // 128, min(4, len(units) // 16))))
    return [Batch(i // n, tuple(units[i : i + n])) for i in range(0, len(units), n)]


def _rows(scores: ScoreSet) -> list[int]:
    """Scored documents of every unit, from the footers."""
    names = scores.plan_names()["unit"].to_pylist()
    chunks = [names[i : i + 1024] for i in range(0, len(names), 1024)]
    return [n for _, chunk in in_order(fetched(in_tasks(partial(scored_rows, scores), chunks))) for n in chunk]


def histogram_of(count: Callable[[Batch], pa.Table], batches: Sequence[Batch], *, workers: int | None) -> pa.Table:
    """The histograms of all batches (`histogram.COUNTS`), merged in a tree of tasks: the driver holds the last one only.

    Without a cluster each is added to the sums as it comes.
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
    """The histogram of all batches where there is no cluster and none of a batch is wanted: one is laid out a thread."""
    units = [unit for batch in batches for unit in batch.units]
    telling = threading.Lock()
    with Progress("count", n_units=len(units)) as progress:

        def counted(mine: Iterator[JoinedUnit]) -> Iterator[JoinedUnit]:
            for unit in mine:
                yield unit
                with telling:  # it is done when the thread asks for its next one
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
) -> tuple[int, dict[Group, GroupAccounts]]:
    """`write` every item, one for each batch: it returns how many units that were, the batch's accounts by group, and what
    `each` is called with, as batches come.

    Returns the sums; accounts are added in corpus order, so that sums of floats do not depend on who was first.
    """
    computed, groups = 0, dict[Group, GroupAccounts]()

    def noted() -> Iterator[tuple[int, tuple[int, Mapping[Group, GroupAccounts]]]]:
        for index, (n_written, accounts, more) in fetched(in_tasks(write, items, workers=workers)):
            each(more)  # at once: behind a batch that is late the others' would pile up
            yield index, (n_written, accounts)

    with Progress(what, n_units=sum(len(batch.units) for batch in batches)) as progress:
        for index, (n_written, accounts) in in_order(noted()):
            computed += n_written
            for group, one in accounts.items():
                groups[group] = groups.get(group, GroupAccounts()) + one
            total = sum(accounts.values(), GroupAccounts())
            progress.add(documents=total.documents, tokens=total.tokens, units=len(batches[index].units))
    return computed, groups


def fetched(finished: Iterable[tuple[int, Reference]]) -> Iterator[tuple[int, Any]]:
    """The results of finished tasks themselves."""
    return ((index, result(reference)) for index, reference in finished)
