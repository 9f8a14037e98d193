"""Reads a unit of a store once, for what its documents and vocabulary entries are listed by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_arrow, as_numpy, flat_values, list_lengths
from rho_score.ranking.histogram import Group
from rho_score.ranking.scores import document_means, run_sums
from rho_score.stores.counts import group_codes
from rho_score.stores.selection import Selection
from rho_score.stores.store import Store


@dataclass(frozen=True)
class RowGroupScan:
    """What is found in one row group of a unit.

    documents: a row for each, with the columns of `index.DOCUMENTS`; `grp` is an index into `groups`.
    scores: float32[n_tokens], NaN where a token has none. lengths: tokens of each document,
    int64[n_docs]. owners: index of each document's group in `groups`, int64[n_docs]. vocabulary:
    for each token id, how many tokens have a score, how many are kept and the sum of their scores,
    float64[3, n_ids].
    """

    documents: pa.Table
    scores: np.ndarray
    lengths: np.ndarray
    owners: np.ndarray
    groups: Sequence[Group]
    vocabulary: np.ndarray


def columns_to_scan(store: Store, names: Sequence[str]) -> list[str]:
    """The columns that `scan` reads. names: those of the store's files."""
    wanted = ["doc_id", "input_ids", store.score_column, *(["group"] if store.grouped else [])]
    return [*wanted, *(name for name in ("mask", "doc_score") if name in names)]


def scan(store: Store, unit: int, first_row: int, table: pa.Table) -> RowGroupScan:
    """What is in a row group. unit: its number in the plan. first_row: the number of its first row in the unit."""
    lengths = list_lengths(table["input_ids"])
    ids = as_numpy(flat_values(table["input_ids"]))
    scores = as_numpy(flat_values(table[store.score_column])).astype(np.float32, copy=False)
    present = ~np.isnan(scores)
    mask = as_numpy(flat_values(table["mask"])) if isinstance(store, Selection) else np.zeros(len(ids), bool)
    n = len(table)
    names = table["group"].combine_chunks() if store.grouped else pa.nulls(n, pa.string())
    owners, groups = group_codes(names)
    means = document_means(scores, lengths).astype(np.float32)
    documents = pa.table(
        {
            "unit": as_arrow(np.full(n, unit, np.int32)),
            "row": as_arrow(np.arange(first_row, first_row + n, dtype=np.int32)),
            "doc_id": table["doc_id"],
            "grp": as_arrow(owners.astype(np.int32)),
            "tokens": as_arrow(lengths.astype(np.int32)),
            "scored": as_arrow(run_sums(present, lengths).astype(np.int32)),
            "kept": as_arrow(run_sums(mask, lengths).astype(np.int32)),
            "mean": pa.array(means, mask=np.isnan(means)),
            "doc_score": table["doc_score"] if "doc_score" in table.column_names else pa.nulls(n, pa.float32()),
        }
    )
    known = ids[present]
    sums = [np.bincount(known), np.bincount(known, mask[present]), np.bincount(known, scores[present])]
    return RowGroupScan(documents, scores, lengths, owners, groups, np.stack([s.astype(np.float64) for s in sums]))
