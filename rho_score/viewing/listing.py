"""Lists documents and vocabulary entries from an index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rho_score.errors import InputError
from rho_score.viewing.index import Index

MOST_ROWS = 500
_SHARE = "kept / nullif(tokens, 0)"
SORTS = {
    "order": ("unit", "row"), "id": ("doc_id",), "group": ("list_extract(?::integer[], grp + 1)",), "tokens": ("tokens",),
    "mean": ("mean",), "share": (_SHARE,), "score": ("doc_score",),
}  # fmt: skip
"""What documents are sorted by, with its SQL. That of the group has a value: the rank of each group's name."""
_BOUNDED = {"tokens": "tokens", "mean": "mean", "share": _SHARE, "score": "doc_score"}
_TOKEN_SORTS = {"share": "kept / count", "mean": "total / count", "count": "count"}


@dataclass(frozen=True)
class Filter:
    """Which documents are meant. group: a number of `Index.group_names`. bounds: lowest and highest by name of `_BOUNDED`."""

    group: int | None = None
    id: str = ""
    bounds: tuple[tuple[str, float | None, float | None], ...] = ()
    places: tuple[Sequence[int], Sequence[int]] | None = None
    """Units and rows of the only documents that are meant, as a search found them."""

    def sql(self) -> tuple[str, list[Any]]:
        """A condition on the table of documents, and its values."""
        parts, values = ["true"], list[Any]()
        if self.group is not None:
            parts.append("grp = ?")
            values.append(self.group)
        if self.id:
            parts.append("contains(lower(doc_id), lower(?))")
            values.append(self.id)
        for name, low, high in self.bounds:
            if name not in _BOUNDED:
                raise InputError(f"documents have no {name!r} to be bounded. They have {', '.join(_BOUNDED)}.")
            for sign, bound in ((">=", low), ("<=", high)):
                if bound is not None:
                    parts.append(f"{_BOUNDED[name]} {sign} ?")
                    values.append(bound)
        if self.places is not None:
            parts.append("(unit, row) in (select (unnest(?::integer[]), unnest(?::integer[])))")
            values += [list(self.places[0]), list(self.places[1])]
        return " and ".join(parts), values


@dataclass(frozen=True)
class Listed:
    """One document of a list. Its group is a number of `Index.group_names`."""

    unit: int
    row: int
    doc_id: str
    group: int
    tokens: int
    scored: int
    kept: int
    mean: float | None
    doc_score: float | None


def documents(
    index: Index, chosen: Filter, *, sort: str = "order", descending: bool = False, offset: int = 0, limit: int = 50
) -> tuple[int, list[Listed]]:
    """How many documents there are, and some of them. Those without a value come last."""
    if sort not in SORTS:
        raise InputError(f"documents cannot be sorted by {sort!r}. They are sorted by {', '.join(SORTS)}.")
    where, values = chosen.sql()
    ((n,),) = index.rows(f"select count(*) from documents where {where}", values)
    order = ", ".join(f"{part} {'desc' if descending else 'asc'} nulls last" for part in SORTS[sort])
    ranks = [_ranks(index.group_names)] if sort == "group" else []
    rows = index.rows(
        "select unit, row, doc_id, grp, tokens, scored, kept, mean, doc_score from documents "
        f"where {where} order by {order}, unit, row limit ? offset ?",
        [*values, *ranks, min(limit, MOST_ROWS), offset],
    )
    return n, [Listed(*row) for row in rows]


def _ranks(names: Sequence[str | None]) -> list[int | None]:
    """The rank of each name among all; documents without a group have none."""
    ranks = {name: rank for rank, name in enumerate(sorted(name for name in names if name is not None))}
    return [None if name is None else ranks[name] for name in names]


@dataclass(frozen=True)
class Entry:
    """A vocabulary entry: how many tokens of it have a score, how many of those are kept, and the mean score."""

    id: int
    count: int
    kept: int
    mean: float


def vocabulary(
    index: Index, *, sort: str = "share", descending: bool = True, at_least: int = 8, limit: int = 50
) -> list[Entry]:
    """Vocabulary entries that occur `at_least` times; those that occur more often come first among equals."""
    if sort not in _TOKEN_SORTS:
        raise InputError(f"tokens cannot be sorted by {sort!r}. They are sorted by {', '.join(_TOKEN_SORTS)}.")
    rows = index.rows(
        "select id, count, kept, total / count from vocabulary where count >= ? "
        f"order by {_TOKEN_SORTS[sort]} {'desc' if descending else 'asc'}, count desc, id limit ?",
        [max(at_least, 1), min(limit, MOST_ROWS)],
    )
    return [Entry(*row) for row in rows]
