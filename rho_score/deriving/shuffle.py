"""Brings values to the units of their documents, by document id, in bounded memory.

Values come in any order and cut into any shards, and there may be more than any machine holds. So
both sides are sorted into partitions by a hash of the document's id: each task writes one file, of
which row group p is partition p. A partition of both sides is then joined in memory, and what is
found is written as one file, of which row group b goes to batch b of units. Each file is published
when it is complete, so that a resumed run goes on behind it.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.corpus.columns import Columns
from rho_score.corpus.documents import read_unchanged
from rho_score.corpus.units import Unit
from rho_score.deriving.units import Batch
from rho_score.files.arrow import as_numpy
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import ParquetBuffer, footer, readable
from rho_score.stores.reopened import Reopened
from rho_score.stores.schema import IDS
from rho_score.stores.score_set import ScoreSet

WORK = "work"
PARTITION_BYTES, PARTITION_DOCUMENTS = 128 << 20, 1 << 20

DOC_IDS = pa.schema([pa.field("doc_id", pa.string(), nullable=False)])
ROWS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("values", pa.list_(pa.float64())),
        pa.field("ids", IDS),
        pa.field("reason", pa.string()),
    ]
)
"""A row of the values. values: one number for a document. ids: those of the tokens, or empty.
reason: why the values cannot be used; they are then empty."""


def n_partitions(value_bytes: int, n_documents: int) -> int:
    """The number of partitions, so that one of them fits into a task's memory."""
    return max(1, -(-value_bytes // PARTITION_BYTES), -(-n_documents // PARTITION_DOCUMENTS))


class Matched(NamedTuple):
    """What became of the rows of the values in a partition, or in all of them."""

    rows: int = 0
    unknown: int = 0
    """Rows whose id no document of the score set has."""
    repeated: int = 0
    """Rows whose id other rows have too."""
    example: str | None = None
    """The first of the unknown ids, by the alphabet."""

    def plus(self, other: "Matched") -> "Matched":
        """The sum of both."""
        examples = [one for one in (self.example, other.example) if one is not None]
        return Matched(
            self.rows + other.rows,
            self.unknown + other.unknown,
            self.repeated + other.repeated,
            min(examples, default=None),
        )


@dataclass(frozen=True, kw_only=True)
class Shuffle(Reopened):
    """The shuffle of an import. It is small, and is sent to every worker."""

    root: str
    """Where the values are."""
    columns: Columns
    whole: bool
    """True if a document has one value, False if it has a list of them."""
    like: str
    output: str
    n_values: int
    """Units that the values are cut into."""
    n_batches: int
    partitions: int

    @cached_property
    def _folder(self) -> Folder:
        return Folder(self.output)

    def scatter_values(self, item: tuple[int, Unit]) -> None:
        """Writes the rows of a unit of the values by partition. item: its number, and the unit."""
        index, unit = item
        documents = read_unchanged(Folder(self.root), unit, self.columns)
        reasons: list[str | None] = []
        numbers: list[list[float | None]] = []
        ids: list[list[int]] = []
        for document in documents:
            found, own, reason = self._parsed(document.text, document.error)
            numbers.append(found)
            ids.append(own)
            reasons.append(reason)
        table = pa.table([[d.doc_id for d in documents], numbers, ids, reasons], schema=ROWS)
        self._scatter(f"values-{index:06}", table, ROWS)

    def _parsed(self, text: str | None, error: str | None) -> tuple[list[float | None], list[int], str | None]:
        """The values of a row, the ids of their tokens, and why they cannot be used."""
        if text is None:
            return [], [], error or "it has no values"
        found, ids = orjson.loads(text)
        if isinstance(found, list) == self.whole:
            wanted, there = ("one number", "a list") if self.whole else ("a list of numbers", "one number")
            return [], [], f"column {self.columns.text!r} is {there}, not {wanted}; see --level"
        return [found] if self.whole else found, ids or [], None

    def scatter_documents(self, batch: Batch) -> None:
        """Writes the ids of the documents of a batch of units by partition."""
        scores = ScoreSet.open(self.like)
        tables = [scores.unit_table(unit, ["doc_id"]) for unit in batch.units]
        self._scatter(f"documents-{batch.index:06}", pa.concat_tables(tables).cast(DOC_IDS), DOC_IDS)

    def _scatter(self, name: str, table: pa.Table, schema: pa.Schema) -> None:
        of = [zlib.crc32(doc_id.encode()) % self.partitions for doc_id in table["doc_id"].to_pylist()]
        self._publish(name, table, np.array(of, np.int64), self.partitions, schema)

    def _publish(
        self, name: str, table: pa.Table, of: np.ndarray, n_groups: int, schema: pa.Schema, about: JsonObject | None = None
    ) -> None:  # fmt: skip
        """Writes a table, of which `of` says the row group of each row, int64[n_rows]."""
        order = np.argsort(of, kind="stable")
        table = table.take(order)
        ends = np.searchsorted(of[order], np.arange(n_groups + 1))
        buffer = ParquetBuffer(schema)
        for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            buffer.add(table.slice(start, stop - start))
        self._folder.publish(f"{WORK}/{name}.parquet", buffer.finish(about))

    def _read(self, name: str, group: int) -> pa.Table:
        name = f"{WORK}/{name}.parquet"
        with readable(self._folder, name), self._folder.open_mapped(name) as source:
            return pq.ParquetFile(source, page_checksum_verification=True).read_row_group(group, use_threads=False)

    def match(self, partition: int) -> Matched:
        """Joins a partition, and writes the rows that have a document by the document's batch."""
        documents = [self._read(f"documents-{b:06}", partition) for b in range(self.n_batches)]
        rows = pa.concat_tables(self._read(f"values-{v:06}", partition) for v in range(self.n_values)).combine_chunks()
        batch_of = np.repeat(np.arange(self.n_batches), [len(table) for table in documents])
        doc_ids = pa.concat_tables(documents)["doc_id"]
        every = pa.chunked_array([*doc_ids.chunks, *rows["doc_id"].chunks], pa.string()).combine_chunks()
        codes = as_numpy(every.dictionary_encode().indices)
        of_documents, of_rows = codes[: len(doc_ids)], codes[len(doc_ids) :]
        n_codes = int(codes.max(initial=-1)) + 1
        n_documents, n_rows = (np.bincount(of, minlength=n_codes) for of in (of_documents, of_rows))
        first = np.zeros(n_codes, np.int64)
        first[of_rows[::-1]] = np.arange(len(of_rows))[::-1]
        found = np.flatnonzero(n_rows[of_documents] > 0)
        code = of_documents[found]
        table = _told(rows.take(first[code]), n_documents[code], n_rows[code])
        unknown = n_documents[of_rows] == 0
        strangers = rows["doc_id"].filter(pa.array(unknown)).to_pylist()
        matched = Matched(len(rows), int(unknown.sum()), int((n_rows[of_rows] > 1).sum()), min(strangers, default=None))
        self._publish(
            f"matched-{partition:06}", table, batch_of[found], self.n_batches, ROWS, {"matched": list(matched)}
        )
        return matched

    def matched(self, partition: int) -> Matched:
        """What `match` returned for a partition that it has written."""
        name = f"{WORK}/matched-{partition:06}.parquet"
        with readable(self._folder, name), self._folder.open_mapped(name) as source:
            return Matched(*footer(pq.ParquetFile(source))["matched"])

    def rows_of(self, batch: Batch) -> pa.Table:
        """The rows that the documents of a batch have, in no order. See `ROWS`."""
        return pa.concat_tables(self._read(f"matched-{p:06}", batch.index) for p in range(self.partitions))


def _told(table: pa.Table, n_documents: np.ndarray, n_rows: np.ndarray) -> pa.Table:
    """The rows, without values where an id is not that of one document and of one row.

    n_documents, n_rows: how many have the id of each row, int64[n].
    """
    reasons = table["reason"].to_pylist()
    for i in np.flatnonzero((n_documents > 1) | (n_rows > 1)).tolist():
        many, what = (
            (n_documents[i], "documents of the score set") if n_documents[i] > 1 else (n_rows[i], "rows of the values")
        )
        reasons[i] = f"{many} {what} have its id"
    return table.set_column(ROWS.get_field_index("reason"), ROWS.field("reason"), pa.array(reasons, pa.string()))


def total(parts: Iterable[Matched]) -> Matched:
    """The sum over all partitions."""
    found = Matched()
    for part in parts:
        found = found.plus(part)
    return found
