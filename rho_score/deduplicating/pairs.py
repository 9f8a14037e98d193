"""The second stage: in each partition, documents with an equal band are compared by their signatures.

pairs/partition-00000.parquet   the pairs that are similar enough
pairs/partition-00000.json      how many these are; written last
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.deduplicating.bands import equal_numbers, estimated_similarity
from rho_score.deduplicating.settings import DedupSettings
from rho_score.deduplicating.sign import SIGNATURES
from rho_score.files.arrow import as_arrow, as_numpy
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.parquet import parquet_bytes, readable

PAIRS = "pairs"
EXACT = 65_535
"""Stands for the number of equal numbers, in pairs with the same text."""
# In a bucket of at most so many documents, all pairs are compared. In a larger one, a document that is
# similar to an earlier one is not compared with those that follow it: it is in a cluster already.
ALL_PAIRS = 256
AT_ONCE = 1 << 20  # pairs whose signatures are compared at a time

SCHEMA = pa.schema(
    [
        pa.field("first", pa.int64(), nullable=False),
        pa.field("second", pa.int64(), nullable=False),
        pa.field("equal", pa.uint16(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class PairsTask:
    """The task of a partition."""

    settings: DedupSettings
    partition: int
    parts: tuple[str, ...]
    n_units: int = 1

    @property
    def name(self) -> str:
        """The name of its result."""
        return f"partition-{self.partition:05}"


@dataclass(frozen=True)
class Rows:
    """The rows of a partition, ordered by key and then by document.

    keys, digests: uint64[n]. documents: int64[n]. signatures: uint8[n, n_bytes].
    """

    keys: np.ndarray
    documents: np.ndarray
    digests: np.ndarray
    signatures: np.ndarray

    @classmethod
    def ordered(cls, keys: np.ndarray, documents: np.ndarray, digests: np.ndarray, signatures: np.ndarray) -> "Rows":
        """These rows in order."""
        order = np.lexsort((documents, keys))
        return cls(keys[order], documents[order], digests[order], signatures[order])


def find_pairs(task: PairsTask) -> JsonObject:
    """Writes the similar pairs of a partition; returns the content of its JSON file."""
    settings, folder = task.settings, Folder(task.settings.output)
    rows = _read(folder, task)
    found = list(similar_pairs(rows, settings.permutations, settings.similarity))
    first, second, equal = (np.concatenate(column) for column in zip(*found, strict=True))
    columns = [as_arrow(rows.documents[first]), as_arrow(rows.documents[second]), as_arrow(equal)]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    folder.publish(f"{PAIRS}/{task.name}.parquet", parquet_bytes(table, SCHEMA))
    content = {"pairs": len(table)}
    folder.publish(f"{PAIRS}/{task.name}.json", dump_json(content))
    return content


def similar_pairs(
    rows: Rows, permutations: int, similarity: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields the similar pairs: the row of the earlier document, of the later one, and their equal numbers.

    int64[n], int64[n] and uint16[n]; `EXACT` if both have the same text. There is at least one array of each.
    """
    n = len(rows.keys)
    begins = np.append(True, rows.keys[1:] != rows.keys[:-1])[:n]
    bucket = np.cumsum(begins) - 1
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, n))
    left = np.flatnonzero(sizes[bucket] <= ALL_PAIRS)
    yield _similar(rows, left[:0], left[:0], permutations, similarity)
    for lag in range(1, ALL_PAIRS):
        left = left[left + lag < (starts + sizes)[bucket[left]]]
        if not len(left):
            break
        for at in range(0, len(left), AT_ONCE):
            some = left[at : at + AT_ONCE]
            yield _similar(rows, some, some + lag, permutations, similarity)
    for large in np.flatnonzero(sizes > ALL_PAIRS):
        waiting = np.arange(starts[large], starts[large] + sizes[large])
        while len(waiting) > 1:
            leader, others = waiting[:1], waiting[1:]
            found = [
                _similar(rows, leader, others[at : at + AT_ONCE], permutations, similarity)
                for at in range(0, len(others), AT_ONCE)
            ]
            yield from found
            waiting = np.setdiff1d(others, np.concatenate([second for _, second, _ in found]), assume_unique=True)


def _similar(
    rows: Rows, left: np.ndarray, right: np.ndarray, permutations: int, similarity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs (left[i], right[i]) that are similar. `left` may be of a single row."""
    equal = equal_numbers(rows.signatures[left], rows.signatures[right], permutations)
    exact = rows.digests[left] == rows.digests[right]
    similar = exact | (estimated_similarity(equal, permutations) >= similarity)
    lefts = np.broadcast_to(left, right.shape)
    return lefts[similar], right[similar], np.where(exact, EXACT, equal)[similar].astype(np.uint16)


def _read(folder: Folder, task: PairsTask) -> Rows:
    def of_part(part: str) -> pa.Table:
        name = f"{SIGNATURES}/{part}.parquet"
        with readable(folder, name), folder.open(name) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            return file.read_row_group(task.partition, use_threads=False)

    with ThreadPoolExecutor(16) as pool:
        table = pa.concat_tables(list(pool.map(of_part, task.parts)))
    signatures = table["signature"].combine_chunks()
    width = signatures.type.byte_width
    content = np.frombuffer(signatures.buffers()[1] or b"", np.uint8)
    offset = signatures.offset * width
    return Rows.ordered(
        as_numpy(table["key"]),
        as_numpy(table["document"]),
        as_numpy(table["digest"]),
        content[offset : offset + len(signatures) * width].reshape(-1, width),
    )
