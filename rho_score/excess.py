"""The scores of a unit: its verified join of two score sets, and what tokens and documents are ranked by. Pure functions."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rho_score.histogram import round_score
from rho_score.schema import flat_values, list_column, list_lengths


@dataclass(frozen=True)
class UnitScores:
    """One unit, ready to be ranked.

    documents: columns doc_id, [group], input_ids. lengths: tokens a document, int64[n_docs]. tokens: their scores in
    order, float32 holding float16 values, NaN where there is none, float32[n_tokens].
    """

    documents: pa.Table
    lengths: np.ndarray
    tokens: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """Group of each document, object[n_docs]; None without a group column."""
        if "group" not in self.documents.column_names:
            return np.full(len(self.lengths), None, object)
        return np.array(self.documents["group"].to_pylist(), object)

    @property
    def document_scores(self) -> np.ndarray:
        """Mean score of the scored tokens of each document, rounded as it is stored, float32[n_docs]; NaN without any."""
        return round_score(document_means(self.tokens, self.lengths))

    @property
    def scored_lengths(self) -> np.ndarray:
        """Tokens with a score of each document, int64[n_docs]."""
        return _sums((~np.isnan(self.tokens)).astype(np.float64), self.lengths).astype(np.int64)


def unit_scores(ref: pa.Table, base: pa.Table | None) -> UnitScores:
    """Scores of a unit: excess loss `base - ref`, or the loss of `ref` alone. The tables hold the same documents."""
    scores = _losses(ref) if base is None else _losses(base) - _losses(ref)
    return UnitScores(ref.drop_columns("loss"), list_lengths(ref["input_ids"]), round_score(scores))


def first_difference(left: pa.Table, right: pa.Table) -> str | None:
    """Where two tables first differ in doc_id or input_ids, in words; None where they hold the same."""
    for row in range(max(len(left), len(right))):
        if row >= len(left) or row >= len(right):
            return f"row {row}: {len(left)} documents in the one, {len(right)} in the other"
        if (a := left["doc_id"][row].as_py()) != (b := right["doc_id"][row].as_py()):
            return f"row {row}: document {a!r} in the one, {b!r} in the other"
        ids, others = left["input_ids"][row].as_py(), right["input_ids"][row].as_py()
        if ids != others:
            at = next(
                (i for i, (x, y) in enumerate(zip(ids, others, strict=False)) if x != y),
                min(len(ids), len(others)),
            )
            return (
                f"row {row}: document {a!r}, tokens differ from position {at} on ({len(ids)} and {len(others)} tokens)"
            )
    return None


def document_means(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Mean over each document's scored tokens (not NaN), float64[n_docs]; NaN for a document without any."""
    present = ~np.isnan(tokens)
    sums = _sums(np.where(present, tokens, 0).astype(np.float64), lengths)
    counts = _sums(present.astype(np.float64), lengths)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: np.ndarray = sums / counts
    return means


def score_lists(scores: UnitScores) -> pa.ListArray:
    """The tokens' scores as a list column; null where there is none."""
    return list_column(pa.array(scores.tokens, pa.float32(), mask=np.isnan(scores.tokens)), scores.lengths)


def _losses(table: pa.Table) -> np.ndarray:
    losses: np.ndarray = flat_values(table["loss"]).to_numpy(zero_copy_only=False).astype(np.float32)
    return losses


def _sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums of consecutive runs of `values`, float64[len(lengths)]."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    sums: np.ndarray = np.bincount(owner, values, len(lengths))
    return sums
