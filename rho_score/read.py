"""Units into documents: a block a unit, rows in input order, strings as they are.

A document that cannot be scored keeps its row, with `error` set; nothing is dropped.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from rho_score.engine import check_attempts
from rho_score.errors import RhoScoreError
from rho_score.lines import BOM, DAMAGE, LARGEST_SHARD, LONGEST_LINE, Line, is_damage, lines_between
from rho_score.passage import noted_retries
from rho_score.plan import Unit
from rho_score.retries import retries_counted
from rho_score.schema import DOCUMENTS
from rho_score.storage import Folder, without_credentials

BATCH_ROWS = 1 << 13  # decoded at once


class Columns(NamedTuple):
    """Names of the input's columns."""

    text: str
    id: str | None = None
    group: str | None = None

    @property
    def named(self) -> list[str]:
        """The columns to read, each once."""
        return list(dict.fromkeys(column for column in self if column is not None))


class Document(NamedTuple):
    """A row on its way to the scorer."""

    doc_id: str
    group: str | None
    text: str | None
    error: str | None


class CorpusUnits(Datasource):
    """The units of a corpus as a Ray Data source: one read task, one block a unit."""

    def __init__(self, root: str, units: Iterable[Unit], columns: Columns) -> None:
        super().__init__()
        self._root, self._units, self._columns = root, list(units), columns

    def estimate_inmemory_data_size(self) -> int:
        return sum(unit.text_bytes for unit in self._units)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        return [self._task(unit) for unit in self._units]

    def _task(self, unit: Unit) -> ReadTask:
        root, columns = self._root, self._columns
        metadata = BlockMetadata(unit.rows, unit.text_bytes, exec_stats=None, input_files=(unit.shard,))

        def read() -> list[pa.Table]:
            check_attempts(f"reading {without_credentials(root)}/{unit.shard} (unit {unit.unit})")
            return [read_unit(Folder(root), unit, columns)]

        return ReadTask(read, metadata, schema=DOCUMENTS)


def read_unit(root: Folder, unit: Unit, columns: Columns) -> pa.Table:
    """The documents of a unit, with columns `schema.DOCUMENTS`; one row of nulls if it has none.

    Raises:
        RhoScoreError: the shard is not the one that was planned (size, etag or time of change differ), before it is read
            or after.
    """
    with retries_counted() as made:
        check_unchanged(root, unit)
        try:
            rows: list[tuple[str | None, ...]] = [(unit.unit, *document) for document in documents(root, unit, columns)]
        except OSError as error:
            raise root.error("read", unit.shard, error) from error
        check_unchanged(root, unit)
    rows = rows or [(unit.unit, None, None, None, None)]
    arrays = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), DOCUMENTS, strict=True)]
    return noted_retries(pa.Table.from_arrays(arrays, schema=DOCUMENTS), made)


def documents(root: Folder, unit: Unit, columns: Columns) -> Iterator[Document]:
    """The documents of a unit one by one, in input order; those that cannot be scored with their error."""
    read = _read_parquet if unit.format == ".parquet" else _read_jsonl
    return read(root, unit, columns)


def check_unchanged(root: Folder, unit: Unit) -> None:
    """Raise RhoScoreError if the unit's shard is not the one that was planned (size, etag or time of change), or gone."""
    try:
        found = root.info(unit.shard)
    except FileNotFoundError:
        raise RhoScoreError(
            f"{unit.shard} is gone since the run was planned: it is not in {without_credentials(root.url)}. "
            "Restore it, or score into another output."
        ) from None
    if (found.size, found.version) != (unit.size, unit.version):
        raise RhoScoreError(
            f"{unit.shard} changed since the run was planned: {unit.size} bytes, version {unit.version} then; "
            f"{found.size} bytes, version {found.version} now. Restore it, or score into another output."
        )


def _read_parquet(root: Folder, unit: Unit, columns: Columns) -> Iterator[Document]:
    """Encodings make much of little (a dictionary of one text for all rows): a unit has `LARGEST_SHARD` characters at most."""
    assert unit.first_row is not None
    row, size = unit.first_row, 0
    with root.open(unit.shard) as file:
        shard = pq.ParquetFile(file, page_checksum_verification=True)
        for group in range(unit.start, unit.stop):
            n_rows = shard.metadata.row_group(group).num_rows
            default_ids = [f"{unit.shard}#{row + i}" for i in range(n_rows)]
            documents = _row_group(shard, group, default_ids, columns, LARGEST_SHARD - size)
            size += sum(map(_size, documents))
            yield from documents
            row += n_rows


def _row_group(
    shard: pq.ParquetFile, group: int, default_ids: list[str], columns: Columns, most: int
) -> list[Document]:
    """The documents of a row group, `most` characters of them; where it is damaged, each with that for its error."""
    documents: list[Document] = []
    size = 0
    try:
        n_rows = _rows_at_once(shard, group)
        for batch in shard.iter_batches(n_rows, row_groups=[group], columns=columns.named):
            ids = default_ids[len(documents) : len(documents) + len(batch)]
            for document in _batch_documents(batch, ids, columns):
                size += _size(document)
                if size > most:
                    reason = (
                        f"row group {group}: its unit has more than {LARGEST_SHARD:,} characters of text, the rest is not "
                        "read. Write the file again with smaller row groups, or cut it into smaller units (--unit-bytes)."
                    )
                    return documents + _lost(default_ids[len(documents) :], reason)
                documents.append(document)
        if len(documents) < len(default_ids):
            raise pa.ArrowInvalid(f"{len(documents)} rows, where the footer says {len(default_ids)}")
    except DAMAGE as error:
        if not is_damage(error):
            raise
        return _lost(default_ids, f"row group {group} is damaged: {error}")
    return documents


def _lost(ids: list[str], reason: str) -> list[Document]:
    return [Document(doc_id, None, None, reason) for doc_id in ids]


def _size(document: Document) -> int:
    """Characters of its text, id and group."""
    return sum(len(value) for value in document[:3] if value)


def _rows_at_once(shard: pq.ParquetFile, group: int) -> int:
    """How many rows take no more than `LARGEST_SHARD` bytes were each as long as all that the row group has written.

    Of single columns pyarrow is not asked: where a footer is damaged it ends the process instead of an error.
    """
    size = int(shard.metadata.row_group(group).total_byte_size)
    return min(BATCH_ROWS, max(1, LARGEST_SHARD // max(1, size)))


def _batch_documents(table: pa.RecordBatch, default_ids: list[str], columns: Columns) -> Iterator[Document]:
    texts = _strings(table[columns.text])
    ids = _strings(table[columns.id]) if columns.id else default_ids
    groups = _strings(table[columns.group]) if columns.group else [None] * len(texts)
    for default_id, text, doc_id, group in zip(default_ids, texts, ids, groups, strict=True):
        yield _document(default_id, text, doc_id, group, columns, place="")


def _strings(column: pa.Array) -> list[Any]:
    """The column's values as str, None where null, bytes where they are not valid UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        return [None if value is None else str(value) for value in column.to_pylist()]
    values = []
    for value in (
        column.cast(pa.large_string() if column.type == pa.string_view() else column.type)
        .cast(pa.large_binary())
        .to_pylist()
    ):
        try:
            values.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            values.append(value)
    return values


def _read_jsonl(root: Folder, unit: Unit, columns: Columns) -> Iterator[Document]:
    for line in jsonl_lines(root, unit):
        default_id = f"{unit.shard}@{line.offset}"
        if line.content is None:
            yield Document(default_id, None, None, line.error)
        else:
            yield _line_document(line.content, default_id, line.place, columns)


def jsonl_lines(root: Folder, unit: Unit) -> Iterator[Line]:
    """Lines that begin in [start, stop) of the shard, or of the text of a compressed one; blank lines are no documents."""
    with root.open(unit.shard) as file:
        stop = unit.stop if unit.format == ".jsonl" else LARGEST_SHARD
        yield from lines_between(file, unit.format, unit.start, stop)


def _line_document(line: bytes, default_id: str, place: str, columns: Columns) -> Document:
    try:
        record = orjson.loads(line.removeprefix(BOM).rstrip(b"\r\n"))
    except orjson.JSONDecodeError as error:
        return Document(default_id, None, None, f"{place}: not valid JSON: {error}")
    if not isinstance(record, dict):
        return Document(default_id, None, None, f"{place}: a JSON {type(record).__name__}, not an object")
    doc_id = record.get(columns.id) if columns.id else default_id
    if columns.text not in record:
        known_id = _name(doc_id) if isinstance(_name(doc_id), str) else default_id
        return Document(known_id, None, None, f"{place}: no field {columns.text!r}")
    group = record.get(columns.group) if columns.group else None
    return _document(default_id, record[columns.text], _name(doc_id), _name(group), columns, place=f"{place}: ")


def _name(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _document(default_id: str, text: Any, doc_id: Any, group: Any, columns: Columns, *, place: str) -> Document:
    """A document from the raw values of a row; what is wrong with them becomes its error."""
    if not isinstance(doc_id, str):
        what = "null" if doc_id is None else f"{type(doc_id).__name__}, not a string"
        return Document(default_id, None, None, f"{place}column {columns.id!r} is {what}")
    if group is not None and not isinstance(group, str):
        return Document(doc_id, None, None, f"{place}column {columns.group!r} is {type(group).__name__}, not a string")
    if isinstance(text, str) and len(text) <= LONGEST_LINE:
        return Document(doc_id, group, text, None)
    if text is None:
        what = "null"
    elif isinstance(text, str):
        what = f"longer than {LONGEST_LINE:,} characters. Split the document"
    elif isinstance(text, bytes):
        what = "not valid UTF-8"
    else:
        what = f"{type(text).__name__}, not a string"
    return Document(doc_id, group, None, f"{place}column {columns.text!r} is {what}")
