"""Gives the values of documents to their tokens, and says why documents have none."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.config import Level, Precision
from rho_score.deriving.units import Tokens, too_large
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.byte_spans import document_bytes, spread

Reasons = dict[int, str]
"""Why documents have no values, by their place in the unit."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Aligns the values of any unit. It is small, and is sent to every worker.

    with_ids: True if the ids of the tokens come with the values. vocabulary: that of the score set,
    for values of bytes.
    """

    level: Level
    reduce: Literal["sum", "mean"]
    with_ids: bool
    precision: Precision
    vocabulary: Vocabulary | None = None

    def align(self, tokens: Tokens, rows: pa.Table) -> tuple[np.ndarray, Reasons]:
        """The value of each token, float64[n_tokens], NaN where it has none; and the reasons.

        rows: `shuffle.ROWS` of these and of other documents, in any order, each once.
        """
        place = pc.index_in(tokens.table["doc_id"].combine_chunks(), rows["doc_id"].combine_chunks())
        at = as_numpy(place.fill_null(-1)).astype(np.int64)
        without: Reasons = dict.fromkeys(np.flatnonzero(at < 0).tolist(), "no row of the values has its id")
        told = rows["reason"].to_pylist()
        without |= {i: told[row] for i, row in enumerate(at.tolist()) if row >= 0 and told[row] is not None}
        if self.level == "document":
            values = self._whole(tokens, rows, at, without)
        elif self.level == "token":
            values = self._by_token(tokens, rows, at, without)
        else:
            values = self._by_byte(tokens, rows, at, without)
        self._refuse_too_large(tokens, values, without)
        return values, without

    def _whole(self, tokens: Tokens, rows: pa.Table, at: np.ndarray, without: Reasons) -> np.ndarray:
        good = _others(len(at), without)
        values = np.full(len(at), np.nan)
        values[good] = _flat(rows["values"].take(at[good]))
        return np.repeat(values, tokens.lengths)

    def _by_token(self, tokens: Tokens, rows: pa.Table, at: np.ndarray, without: Reasons) -> np.ndarray:
        _refuse_lengths(rows["values"], at, tokens.lengths, "values", "tokens", without)
        if self.with_ids:
            _refuse_lengths(rows["ids"], at, tokens.lengths, "ids", "tokens", without)
            good = _others(len(at), without)
            ids, theirs = tokens.ids[np.repeat(good, tokens.lengths)], as_numpy(flat_values(rows["ids"].take(at[good])))
            lengths = tokens.lengths[good]
            starts, documents = np.cumsum(lengths) - lengths, np.flatnonzero(good)
            for i in np.flatnonzero(ids != theirs).tolist():
                owner = int(np.searchsorted(starts, i, side="right")) - 1
                without.setdefault(
                    int(documents[owner]), f"token {i - starts[owner]} is {theirs[i]} in the values and {ids[i]} here"
                )
        good = _others(len(at), without)
        values = np.full(len(tokens.loss), np.nan)
        values[np.repeat(good, tokens.lengths)] = _flat(rows["values"].take(at[good]))
        return values

    def _by_byte(self, tokens: Tokens, rows: pa.Table, at: np.ndarray, without: Reasons) -> np.ndarray:
        assert self.vocabulary is not None
        there = list_lengths(rows["values"].take(np.maximum(at, 0))) if len(rows) else np.zeros(len(at), np.int64)
        n_bytes = self.vocabulary.byte_lengths(tokens.ids, tokens.lengths)
        # where the ids do not tell whether a text begins with a space, the number of values does
        spaces = there == document_bytes(n_bytes, tokens.lengths) + 1
        n_bytes = self.vocabulary.byte_lengths(tokens.ids, tokens.lengths, spaces)
        in_document = document_bytes(n_bytes, tokens.lengths)
        _refuse_lengths(rows["values"], at, in_document, "values", "bytes", without)
        good = _others(len(at), without)
        mine = np.repeat(good, tokens.lengths)
        given = _flat(rows["values"].take(at[good]))
        values = np.full(len(tokens.loss), np.nan)
        values[mine] = spread(
            given, np.ones(len(given), np.int64), in_document[good], n_bytes[mine], tokens.lengths[good]
        )
        if self.reduce == "mean":
            values /= np.where(n_bytes > 0, n_bytes, np.nan)
        return values

    def _refuse_too_large(self, tokens: Tokens, values: np.ndarray, without: Reasons) -> None:
        owner = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
        hint = ". Give --precision float32" if self.precision == "float16" else ""
        for i in np.flatnonzero(too_large(values, self.precision)).tolist():
            without.setdefault(int(owner[i]), f"the value {values[i]:g} is beyond {self.precision}{hint}")


def _others(n: int, without: Reasons) -> np.ndarray:
    """True for each of n documents that has no reason, bool[n]."""
    good = np.ones(n, bool)
    good[list(without)] = False
    return good


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    """The numbers of all lists, float64[n], NaN for a null."""
    numbers: np.ndarray = as_numpy(flat_values(column)).astype(np.float64, copy=False)
    return numbers


def _refuse_lengths(
    column: pa.ChunkedArray, at: np.ndarray, wanted: np.ndarray, what: str, of: str, without: Reasons
) -> None:
    """Gives a reason to each document whose list in `column` is not as long as wanted, int64[n_docs].

    at: the row of each document, -1 without one.
    """
    there = np.full(len(at), -1, np.int64)
    there[at >= 0] = list_lengths(column.take(at[at >= 0]))
    for i in np.flatnonzero(there != wanted).tolist():
        without.setdefault(i, f"{there[i]:,} {what} for {wanted[i]:,} {of}")
