"""Finds the documents of a unit in a score set that is cut into other units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rho_score.corpus.units import Unit
from rho_score.errors import RhoScoreError
from rho_score.stores.score_set import ScoreSet, score_counts_of
from rho_score.stores.unit_file import footers


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows `start` to `stop` (exclusive) of a unit of another score set: its scored documents."""

    unit: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class JoinedUnit:
    """A unit of the main score set, with the rows of its documents in sets that are cut otherwise.

    row_ranges: by the URL of such a set.
    """

    unit: str
    row_ranges: Mapping[str, tuple[RowRange, ...]]


def scored_rows(scores: ScoreSet, units: Sequence[str]) -> list[int]:
    """The number of documents in the file of each unit, from the footers."""
    found = zip(units, footers(scores.folder, units), strict=True)
    return [score_counts_of(scores.folder, unit, metadata).scored for unit, metadata in found]


def row_ranges_by_unit(
    main: Sequence[Unit], rows: Sequence[int], other: Sequence[Unit], other_rows: Sequence[int]
) -> dict[str, tuple[RowRange, ...]]:
    """For each unit of `main`, the rows of the `other` set's units that hold its documents.

    Units are in corpus order. rows, other_rows: the number of scored documents of each unit.

    Raises:
        RhoScoreError: a shard has different numbers of scored documents in the two sets.
    """
    ends: dict[str, int] = {}
    placed: dict[str, list[tuple[int, int, str]]] = {}
    for unit, n in zip(other, other_rows, strict=True):
        start = ends.get(unit.shard, 0)
        ends[unit.shard] = start + n
        placed.setdefault(unit.shard, []).append((start, start + n, unit.unit))
    at: dict[str, int] = {}
    found: dict[str, tuple[RowRange, ...]] = {}
    cursor: dict[str, int] = {}
    for unit, n in zip(main, rows, strict=True):
        start = at.get(unit.shard, 0)
        at[unit.shard] = stop = start + n
        there, row_ranges, i = placed.get(unit.shard, []), [], cursor.get(unit.shard, 0)
        while i < len(there) and there[i][0] < stop:
            first, last, name = there[i]
            if min(stop, last) > max(start, first):
                row_ranges.append(RowRange(name, max(start, first) - first, min(stop, last) - first))
            if last > stop:
                break
            i += 1
        cursor[unit.shard] = i
        found[unit.unit] = tuple(row_ranges)
    if different := [
        f"{shard}: {at.get(shard, 0)} and {ends.get(shard, 0)}"
        for shard in {**at, **ends}
        if at.get(shard, 0) != ends.get(shard, 0)
    ]:
        raise RhoScoreError(
            "the score sets hold different numbers of scored documents: " + "; ".join(different[:5])
            + ". If quarantine/ shows a document that only one model could score, score both in float32."
        )  # fmt: skip
    return found
