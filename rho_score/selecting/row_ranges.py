"""Where the documents of a unit are in a score set that is cut into other units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rho_score.corpus.units import Unit
from rho_score.errors import RhoScoreError
from rho_score.stores.score_set import ScoreSet, accounts_of
from rho_score.stores.unit_file import footers


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a unit of another score set: start to stop, among the scored documents."""

    unit: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class JoinedUnit:
    """A unit of the main score set, and where its documents are in the sets that are cut otherwise, by their names."""

    unit: str
    pieces: Mapping[str, tuple[Piece, ...]]


def scored_rows(scores: ScoreSet, units: Sequence[str]) -> list[int]:
    """Documents in the files of these units, from their footers."""
    found = zip(units, footers(scores.folder, units), strict=True)
    return [accounts_of(scores.folder, unit, metadata).scored for unit, metadata in found]


def pieces_by_rows(
    main: Sequence[Unit], rows: Sequence[int], other: Sequence[Unit], other_rows: Sequence[int]
) -> dict[str, tuple[Piece, ...]]:
    """For each unit of `main`, the rows of the `other` set's units that hold its documents.

    rows: scored documents of each unit, as the units are in corpus order.

    Raises:
        RhoScoreError: a shard has another number of documents in the other set.
    """
    ends: dict[str, int] = {}
    placed: dict[str, list[tuple[int, int, str]]] = {}
    for unit, n in zip(other, other_rows, strict=True):
        start = ends.get(unit.shard, 0)
        ends[unit.shard] = start + n
        placed.setdefault(unit.shard, []).append((start, start + n, unit.unit))
    at: dict[str, int] = {}
    found: dict[str, tuple[Piece, ...]] = {}
    cursor: dict[str, int] = {}
    for unit, n in zip(main, rows, strict=True):
        start = at.get(unit.shard, 0)
        at[unit.shard] = stop = start + n
        there, pieces, i = placed.get(unit.shard, []), [], cursor.get(unit.shard, 0)
        while i < len(there) and there[i][0] < stop:
            first, last, name = there[i]
            if min(stop, last) > max(start, first):
                pieces.append(Piece(name, max(start, first) - first, min(stop, last) - first))
            if last > stop:
                break
            i += 1
        cursor[unit.shard] = i
        found[unit.unit] = tuple(pieces)
    if different := [
        f"{shard}: {at.get(shard, 0)} and {ends.get(shard, 0)}"
        for shard in {**at, **ends}
        if at.get(shard, 0) != ends.get(shard, 0)
    ]:
        raise RhoScoreError(
            "the score sets hold other numbers of scored documents: " + "; ".join(different[:5])
            + ". See quarantine/ of both: a document that only one model could score is to be scored in float32."
        )  # fmt: skip
    return found
