"""The scores that the tokens and documents of a unit are ranked by. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import list_column
from rho_score.ranking.kernel import to_float16
from rho_score.ranking.keys import Bits, round_score

Combine = Literal["min", "mean", "union"]


@dataclass(frozen=True, kw_only=True)
class UnitScores:
    """A unit, or a part of one, with the scores of its tokens.

    Scores have the precision that they are ranked with, float16 or float32. NaN means no score.

    documents: the columns that were asked for. lengths: tokens of each document, int64[n_docs].
    tokens: the scores that are stored, float[n_tokens]. rankings: the scores that are ranked, by
    reference (None if there is one ranking), float[n_tokens] each. ref_loss, base_loss: nats,
    float[n_tokens]. n_bytes: UTF-8 bytes of each token, int64[n_tokens]; None if bytes are not
    counted. unaligned: True for each document that the tokenizers do not read alike, bool[n_docs].
    """

    documents: pa.Table
    lengths: np.ndarray
    tokens: np.ndarray
    rankings: Mapping[str | None, np.ndarray]
    ref_loss: np.ndarray
    base_loss: np.ndarray | None
    n_bytes: np.ndarray | None = None
    unaligned: np.ndarray | None = None

    @property
    def groups(self) -> pa.Array:
        """Group of each document, string[n_docs]; null without a group column."""
        if "group" not in self.documents.column_names:
            return pa.nulls(len(self.lengths), pa.string())
        return self.documents["group"].combine_chunks()

    @property
    def doc_bytes(self) -> np.ndarray:
        """UTF-8 bytes of the scored tokens of each document, int64[n_docs]."""
        assert self.n_bytes is not None
        return run_sums(np.where(np.isnan(self.tokens), 0, self.n_bytes), self.lengths).astype(np.int64)


def combined(
    refs: Mapping[str, np.ndarray], base: np.ndarray | None, how: Combine, bits: Bits
) -> tuple[np.ndarray, np.ndarray, dict[str | None, np.ndarray]]:
    """The reference loss, the score and the rankings of tokens, float[n_tokens] each.

    The score is the excess loss `base - ref`, or `ref` alone without a base. With min and mean, ref
    is the lowest or the mean loss under the references, NaN if one is missing. With union, each
    reference has its own ranking, and ref is the lowest loss that is not NaN.

    refs: losses under each reference, nats, float[n_tokens]. base: those under the base model.
    """
    losses = list(refs.values())
    ref = combined_losses(losses, how)

    def score(loss: np.ndarray) -> np.ndarray:
        return round_score(loss, bits) if base is None else _rounded_difference(base, loss, bits)

    whole = score(ref)
    if how == "union" and len(losses) > 1:
        return ref, whole, {name: score(loss) for name, loss in refs.items()}
    return ref, whole, {None: whole}


def combined_losses(losses: Sequence[np.ndarray], how: Combine) -> np.ndarray:
    """The loss of several references as one, float[n_tokens]: the first part of `combined`."""
    if len(losses) == 1:
        return losses[0]
    if how == "mean":
        mean: np.ndarray = np.mean(losses, axis=0)
        return mean
    fold = {"min": np.minimum, "union": np.fmin}
    lowest: np.ndarray = fold[how].reduce(losses)
    return lowest


def _rounded_difference(base: np.ndarray, ref: np.ndarray, bits: Bits) -> np.ndarray:
    """`base - ref`, rounded as by `round_score`."""
    if bits == 16 and base.dtype == ref.dtype == np.float32:
        return to_float16(base, ref)
    with np.errstate(invalid="ignore"):  # inf - inf: no score
        return round_score(base - ref, bits)


def document_means(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Mean score of each document's scored tokens, float64[n_docs]; NaN if it has none.

    tokens: scores, float[n_tokens]; NaN means no score. lengths: tokens of each document.
    """
    present = ~np.isnan(tokens)
    sums = run_sums(np.where(present, tokens, 0).astype(np.float64), lengths)
    counts = run_sums(present, lengths)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: np.ndarray = sums / counts
    return means


def document_rates(tokens: np.ndarray, lengths: np.ndarray, doc_bytes: np.ndarray) -> np.ndarray:
    """Summed score of each document's scored tokens per byte, float64[n_docs]; NaN if it has none.

    The other arguments are those of `document_means`. doc_bytes: int64[n_docs].
    """
    present = ~np.isnan(tokens)
    sums = run_sums(np.where(present, tokens, 0).astype(np.float64), lengths)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates: np.ndarray = np.where(run_sums(present, lengths) > 0, sums / doc_bytes, np.nan)
    return rates


def score_lists(tokens: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """The scores of tokens (float[n_tokens]) as a list column of float32, one list per document.

    NaN becomes null, and -0.0 becomes 0.0.
    """
    values = tokens.astype(np.float32) + np.float32(0)
    missing = np.isnan(values)
    return list_column(pa.array(values, mask=missing if missing.any() else None), lengths)


def run_sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums of consecutive runs of `values` (float, int or bool[n]), float64[n_runs]."""
    sums = np.zeros(len(lengths))
    full = lengths > 0
    if full.any():
        starts = (np.cumsum(lengths) - lengths)[full]
        with np.errstate(invalid="ignore"):  # inf - inf: no sum
            sums[full] = np.add.reduceat(values, starts, dtype=np.float64)
    return sums


def longer_runs(mask: np.ndarray, lengths: np.ndarray, n: int) -> np.ndarray:
    """`mask` (bool[n_tokens]) without runs of fewer than `n` True values within a document."""
    if n <= 1 or not len(mask):
        return mask
    starts = np.zeros(len(mask) + 1, bool)  # True where a document starts or the mask changes
    starts[np.cumsum(lengths)] = starts[0] = starts[-1] = True
    starts[1:-1] |= mask[1:] != mask[:-1]
    edges = np.flatnonzero(starts)
    long = np.diff(edges) >= n
    kept: np.ndarray = mask & np.repeat(long, np.diff(edges))
    return kept
