"""Sorts documents by difficulty, over a corpus larger than memory, into parts of that order.

Difficulty is the mean of a document's token scores (excess or loss, nats). Tokens without a score
do not count. Each part of the corpus is first written to storage as a sorted run. Documents have
16-bit keys in the order of their difficulty, and ranges of keys cut all runs alike. A range is
small enough to be sorted in memory. Equal difficulties keep corpus order, and documents without any
score come last.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.files.arrow import as_numpy, flat_values, list_column, list_lengths
from rho_score.files.folder import Folder
from rho_score.ranking.keys import N_COUNTERS, keys_of
from rho_score.ranking.scores import document_means
from rho_score.stores.framing import Documents
from rho_score.stores.schema import IDS, MASK

ROW_GROUPS = 64  # of a run, so that a range reads at most a 64th of the run too much at each end
BATCH_TOKENS = 4_000_000

_RUN = pa.schema(
    [
        pa.field("key", pa.uint16(), nullable=False),
        pa.field("rank", pa.float32()),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("input_ids", IDS),
        pa.field("mask", MASK),
    ]
)


@dataclass(frozen=True)
class KeyRange:
    """The keys with `first` <= key < `stop`."""

    first: int
    stop: int


def document_ranks(scores: np.ndarray, lengths: np.ndarray, *, hard_first: bool) -> np.ndarray:
    """What documents are sorted by, ascending, float32[n_docs].

    It is the mean of a document's scores, negated if `hard_first`, or NaN without a score. scores:
    float32[n_tokens]; NaN means no score. lengths: tokens of each document, int64[n_docs].
    """
    means = document_means(scores, lengths).astype(np.float32)
    ranks: np.ndarray = -means if hard_first else means
    return ranks


def rank_keys(ranks: np.ndarray) -> np.ndarray:
    """The key of each rank, uint16[n]. Smaller ranks have no larger keys; NaN has the largest."""
    return np.where(np.isnan(ranks), N_COUNTERS - 1, keys_of(ranks)).astype(np.uint16)


def run_file(documents: Documents, ranks: np.ndarray) -> bytes:
    """A sorted run as a Parquet file. Documents of equal rank keep their order."""
    order = np.argsort(ranks, kind="stable")
    table = pa.Table.from_arrays(
        [
            pa.array(rank_keys(ranks)),
            pa.array(ranks, pa.float32()),
            documents.doc_ids,
            list_column(documents.input_ids, documents.lengths),
            list_column(documents.mask, documents.lengths),
        ],
        schema=_RUN,
    ).take(pa.array(order))
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression="zstd", row_group_size=max(1, -(-len(table) // ROW_GROUPS)), write_page_checksum=True
    )
    return sink.getvalue()


def tokens_by_key(ranks: np.ndarray, lengths: np.ndarray) -> tuple[list[int], list[int]]:
    """The keys that occur, and the number of tokens in the documents of each key."""
    keys, inverse = np.unique(rank_keys(ranks), return_inverse=True)
    return keys.tolist(), np.bincount(inverse, lengths, len(keys)).astype(np.int64).tolist()


def cut_order(histograms: Iterable[tuple[Sequence[int], Sequence[int]]], n_parts: int) -> list[KeyRange]:
    """`n_parts` consecutive ranges of keys with about the same number of tokens. Some may be empty.

    histograms: the result of `tokens_by_key` for each run.
    """
    tokens = np.zeros(N_COUNTERS, np.int64)
    for keys, counts in histograms:
        tokens[np.array(keys, np.int64)] += np.array(counts, np.int64)
    before, total = np.cumsum(tokens) - tokens, max(1, int(tokens.sum()))
    targets = [total * part // n_parts for part in range(1, n_parts)]
    stops = [*np.searchsorted(before, targets).tolist(), N_COUNTERS]
    return [KeyRange(first, stop) for first, stop in zip([0, *stops[:-1]], stops, strict=True)]


def read_range(folder: Folder, runs: Sequence[str], keys: KeyRange) -> Iterator[Documents]:
    """The documents of a range in order, in batches of a few million tokens.

    runs: names of the runs' files, in corpus order.
    """
    tables = [_read_run(folder, run, keys) for run in runs] if keys.first < keys.stop else []
    if not sum(map(len, tables)):
        return
    table = pa.concat_tables(tables)
    table = table.take(pa.array(np.argsort(as_numpy(table["rank"]), kind="stable")))
    batch = np.cumsum(list_lengths(table["input_ids"])) // BATCH_TOKENS
    edges = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(table)]
    for start, stop in pairwise(edges):
        yield documents_of(table.slice(start, stop - start))


def documents_of(table: pa.Table) -> Documents:
    """The columns doc_id, input_ids and mask as flat arrays."""
    return Documents(
        doc_ids=table["doc_id"].combine_chunks(),
        lengths=list_lengths(table["input_ids"]),
        input_ids=as_numpy(flat_values(table["input_ids"])),
        mask=as_numpy(flat_values(table["mask"])),
    )


def _read_run(folder: Folder, run: str, keys: KeyRange) -> pa.Table:
    with folder.open(run) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        statistics = [file.metadata.row_group(i).column(0).statistics for i in range(file.num_row_groups)]
        wanted = [i for i, s in enumerate(statistics) if s and s.max >= keys.first and s.min < keys.stop]
        table = file.read_row_groups(wanted, columns=["key", "rank", "doc_id", "input_ids", "mask"])
    key = as_numpy(table["key"])
    first, stop = np.searchsorted(key, [keys.first, keys.stop])
    return table.slice(first, stop - first)
