"""What of a unit goes through the model, and where the values belong that come out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa

from rho_score.config import Precision
from rho_score.files.arrow import as_numpy, flat_values, list_column, list_lengths
from rho_score.inference.scored import Scored
from rho_score.scoring.blocks import SCORED
from rho_score.scoring.copies import Found, first_of_each, score_once
from rho_score.scoring.hidden import in_place, without_context
from rho_score.scoring.reuse import KNOWN
from rho_score.stores.schema import signal_fields


class Judge(Protocol):
    """What a scorer says of the losses of a document."""

    @property
    def overflow(self) -> str:
        """The reason why a document is quarantined whose losses are not finite."""

    def is_finite(self, loss: np.ndarray) -> bool:
        """True if a document's losses can be kept."""


@dataclass(frozen=True, kw_only=True)
class UnitWork:
    """The documents of a unit that are scored: all but those whose values are known (`scoring.reuse`).

    unit: `blocks.TOKENIZED`, perhaps with the columns of `reuse.add_known`. ids: of every document,
    int32[n] each. todo: the places of the documents that are scored. read: what the model reads of
    each of them, int32[n] each.
    """

    unit: pa.Table
    ids: list[np.ndarray]
    todo: list[int]
    read: list[np.ndarray]
    counts: np.ndarray | None
    """True for tokens that count, bool[n_tokens]; None if all do."""
    hidden: list[np.ndarray] | None
    """If the context is hidden: the same for each document of `todo`."""

    @classmethod
    def of(cls, unit: pa.Table, *, hide_context: bool) -> "UnitWork":
        """The work of a unit. hide_context: True if the model reads only the tokens that count."""
        lengths = list_lengths(unit["input_ids"])
        ids = _documents(as_numpy(flat_values(unit["input_ids"])), lengths)
        counts = as_numpy(flat_values(unit["counts"])) if "counts" in unit.column_names else None
        known = as_numpy(unit[KNOWN]) if KNOWN in unit.column_names else np.zeros(len(ids), bool)
        todo = np.flatnonzero(~known).tolist()
        read, hidden = [ids[i] for i in todo], None
        if hide_context and counts is not None:
            every = _documents(counts, lengths)
            hidden = [every[i] for i in todo]
            read = without_context(read, hidden)
        return cls(unit=unit, ids=ids, todo=todo, read=read, counts=counts, hidden=hidden)

    @cached_property
    def _first(self) -> list[int]:
        return first_of_each(self.read)

    @property
    def distinct(self) -> list[np.ndarray]:
        """What goes through the model: `read` without copies."""
        return [self.read[i] for i in sorted(set(self._first))]

    def score(self, score: Callable[[list[np.ndarray]], Found]) -> Found:
        """The scores of the documents `todo`. score: called with `distinct`."""
        return score_once(self.read, self._first, score)

    def errors(self, scored: Scored, poisoned: Mapping[int, str], judge: Judge) -> list[str | None]:
        """Why each document of the unit cannot be scored; None if it can."""
        errors: list[str | None] = self.unit["error"].to_pylist()
        for at, (i, loss) in enumerate(zip(self.todo, scored.loss, strict=True)):
            if at in poisoned:
                errors[i] = f"the model fails on it: {poisoned[at]}"
            elif at in scored.refused:
                errors[i] = scored.refused[at]
            elif not judge.is_finite(loss):
                errors[i] = judge.overflow
        return errors

    def n_copied(self, errors: Sequence[str | None]) -> int:
        """The number of documents that have the losses of another one."""
        return sum(
            of != at and errors[i] is None and len(self.read[at]) > 0
            for at, (i, of) in enumerate(zip(self.todo, self._first, strict=True))
        )

    @property
    def n_known(self) -> int:
        """The number of documents whose values were known."""
        return len(self.ids) - len(self.todo)

    def table(
        self, scored: Scored, errors: Sequence[str | None], signals: Sequence[str], precision: Precision
    ) -> pa.Table:
        """The unit as `blocks.SCORED`, with the columns of the signals."""
        error = SCORED.field("error")
        unit = self.unit.set_column(self.unit.schema.get_field_index("error"), error, pa.array(errors, error.type))
        found = {"loss": scored.loss, **scored.signals}
        none = [np.full(len(document), np.nan, np.float32) for document in self.read]  # if the only document fails
        lengths = list_lengths(unit["input_ids"])
        for field in (SCORED.field("loss"), *signal_fields(signals)):
            values = found.get(field.name, none)
            placed = values if self.hidden is None else in_place(values, self.hidden)
            stored = _as_stored(self._with_known(field.name, placed), self.counts, field.type.value_type, precision)
            unit = unit.append_column(field, list_column(stored, lengths))
        return unit

    def _with_known(self, name: str, values: list[np.ndarray]) -> list[np.ndarray]:
        """The values of every document. values: of the documents `todo`, which were computed."""
        if not self.n_known:
            return values
        known = as_numpy(flat_values(self.unit[f"{KNOWN}_{name}"]))
        every = _documents(known, np.array([len(document) for document in self.ids]))
        for i, value in zip(self.todo, values, strict=True):
            every[i] = value
        return every


def _documents(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The values of each document, from those of all tokens."""
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _as_stored(
    values: list[np.ndarray], counts: np.ndarray | None, kind: pa.DataType, precision: Precision
) -> pa.Array:
    """The values of all documents as one array, with null for NaN and for tokens that do not count.

    values: float32[n] for each document, or float32[n, k] where a token has a list of k. counts:
    bool[n_tokens]; None if all tokens count. Floats are rounded to `precision`, and ids and ranks
    are integers.
    """
    if pa.types.is_list(kind):
        rows = np.concatenate([np.atleast_2d(of.T).T for of in values]) if values else np.zeros((0, 1), np.float32)
        return _as_lists(rows, counts, kind, precision)
    flat = np.concatenate([np.zeros(0, np.float32), *values])
    missing = np.isnan(flat) if counts is None else np.isnan(flat) | ~counts
    if pa.types.is_integer(kind):
        return pa.array(np.where(missing, 0, flat).astype(np.int32), kind, mask=missing)
    return pa.array(flat.astype(precision).astype(np.float32), kind, mask=missing)


def _as_lists(values: np.ndarray, counts: np.ndarray | None, kind: pa.DataType, precision: Precision) -> pa.Array:
    """What `_as_stored` returns for float32[n_tokens, k]."""
    n, k = values.shape
    missing = np.isnan(values).any(axis=1)
    if counts is not None:
        missing |= ~counts
    known = np.where(missing[:, None], 0, values).ravel()
    is_integer = pa.types.is_integer(kind.value_type)
    items = known.astype(np.int32) if is_integer else known.astype(precision).astype(np.float32)
    offsets = pa.array(np.arange(0, (n + 1) * k, k, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(items), mask=pa.array(missing))
