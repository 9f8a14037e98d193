"""Makes documents of the rows of Arrow record batches, which Parquet and Arrow shards are read as."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rho_score.corpus.columns import Columns, Document, document, joined_id
from rho_score.corpus.content import packed
from rho_score.corpus.parquet_columns import Source, Sources
from rho_score.corpus.values import Value, texts_of

MOST_ROWS = 1 << 24
"""The most rows of a row group or a record batch.

A unit has whole ones, and all its rows are in memory at the same time.
"""
BATCH_ROWS = 1 << 13
"""The most rows decoded at a time."""


def all_lost(ids: Sequence[str], reason: str) -> list[Document]:
    """Documents that cannot be read, with these ids."""
    return [Document(doc_id, None, None, reason) for doc_id in ids]


def size_of(document: Document) -> int:
    """The number of characters in a document's text, id and group."""
    return sum(len(value) for value in document[:3] if value)


def documents_up_to(
    batches: Iterable[pa.RecordBatch], ids: list[str], sources: Sources, columns: Columns, most: int, reason: str
) -> list[Document]:
    """The documents in the rows of batches, until they have more than `most` characters.

    ids: those of all rows, if no column holds them. reason: the error of the documents after that.
    """
    documents: list[Document] = []
    size = 0
    for batch in batches:
        here = ids[len(documents) : len(documents) + len(batch)]
        for found in documents_in(batch, here, sources, columns):
            size += size_of(found)
            if size > most:
                return documents + all_lost(ids[len(documents) :], reason)
            documents.append(found)
    return documents


def documents_in(
    batch: pa.RecordBatch, default_ids: list[str], sources: Sources, columns: Columns
) -> Iterator[Document]:
    """The documents in the rows of a batch. default_ids: the ids of rows, if no column holds them."""
    texts, contexts, rejected = (
        [None] * len(batch) if source is None else _content(batch, source)
        for source in (sources.text, sources.context, sources.rejected)
    )
    groups = [None] * len(texts) if sources.group is None else _values(batch, sources.group)
    parts = [_values(batch, source) for source in sources.id]
    ids: list[Value] = list(default_ids)
    if len(parts) == 1:
        ids = parts[0]
    elif parts:
        names = [source.name for source in sources.id]
        ids = [joined_id(list(zip(names, row, strict=True))) for row in zip(*parts, strict=True)]
    contents = (packed(columns, *row) for row in zip(texts, contexts, rejected, strict=True))
    for default_id, content, doc_id, group in zip(default_ids, contents, ids, groups, strict=True):
        yield document(default_id, content, doc_id, group, columns)


def _values(batch: pa.RecordBatch, source: Source) -> list[Value]:
    """The column's values as text; None if the value, or a struct around it, is null."""
    return [source.value] * len(batch) if source.path is None else texts_of(_column(batch, source))


def _content(batch: pa.RecordBatch, source: Source) -> list[Any]:
    """The column's values: lists as they are, all others as text."""
    column = _column(batch, source)
    is_list = pa.types.is_nested(column.type) and not pa.types.is_struct(column.type)
    return list(column.to_pylist()) if is_list else list(texts_of(column))


def _column(batch: pa.RecordBatch, source: Source) -> pa.Array:
    """The column, null where a struct around it is."""
    assert source.path is not None
    column = batch[source.path[0]]
    for name in source.path[1:]:
        column = pc.struct_field(column, [column.type.get_field_index(name)])
    return column
