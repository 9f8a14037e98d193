"""Writes Parquet files in memory, with page checksums, and reads them with clear errors."""

import errno
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject

BROKEN = (
    pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip
"""Errors that parsers raise on damaged content."""
METADATA_KEY = b"rho_score"


def read_table(content: bytes, schema: pa.Schema, what: str) -> pa.Table:
    """The columns of `schema`, read from a small Parquet file.

    what: the name of the file, for the message.

    Raises:
        InputError: the file is damaged, lacks a column, or has a null that the schema forbids.
    """
    try:
        table = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True).read(schema.names)
        table = table.select(schema.names).cast(schema)
        table.validate(full=True)
    except BROKEN as error:
        raise InputError(f"{what} is damaged: {error}. Restore the file.") from error
    if missing := [field.name for field in schema if not field.nullable and table[field.name].null_count]:
        raise InputError(f"{what} is damaged: it has nulls in {', '.join(missing)}. Restore the file.")
    return table


@contextmanager
def readable(folder: Folder, name: str) -> Iterator[None]:
    """Turns the errors of reading a unit's file into an error that names the file and the remedy.

    Raises:
        RhoScoreError: the file is damaged or missing.
        StorageError: the storage failed.
    """
    try:
        yield
    except RhoScoreError:
        raise
    except BROKEN as error:
        if getattr(error, "errno", None) not in (None, errno.ENOENT):
            raise folder.error("read", name, error) from error
        raise RhoScoreError(f"{folder.url}/{name} cannot be read: {error}. Remove it and resume its run.") from error


class ParquetBuffer:
    """A Parquet file in memory, with exactly the columns of `schema`, one row group for each table.

    Scores, token ids and groups repeat, so they are dictionary-encoded before zstd compresses them.
    Scores rounded to float16 have at most 65,536 values, and every reader knows this encoding.
    The columns in `split` (lists of floats) are byte-stream-split instead, which is faster to write
    and slower to read.
    """

    def __init__(self, schema: pa.Schema, split: Sequence[str] = ()) -> None:
        lists = {f.name: _path(f.name, f.type) for f in schema}
        plain = {
            "doc_id",
            *split,
            *(f.name for f in schema if pa.types.is_boolean(getattr(f.type, "value_type", f.type))),
        }
        self._schema, self._sink = schema, pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[path for name, path in lists.items() if name not in plain],
            use_byte_stream_split=[lists[name] for name in split],
            dictionary_pagesize_limit=4 << 20,
            write_page_checksum=True,
        )

    def add(self, table: pa.Table) -> None:
        """Writes a row group.

        Raises:
            TypeError: the columns differ from the schema in name, order or type.
        """
        if not table.schema.equals(self._schema):
            raise TypeError(f"the columns differ from the schema\nhave: {table.schema}\nwant: {self._schema}")
        self._writer.write_table(table)

    def finish(self, metadata: JsonObject | None = None) -> bytes:
        """The file's content, with `metadata` as JSON in the footer under the key `rho_score`."""
        if metadata is not None:
            self._writer.add_key_value_metadata({METADATA_KEY: orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)})
        self._writer.close()
        content: bytes = self._sink.getvalue().to_pybytes()
        return content


def _path(name: str, kind: pa.DataType) -> str:
    """The path of a column's values, through any lists around them."""
    return _path(f"{name}.list.element", kind.value_type) if pa.types.is_list(kind) else name


def parquet_bytes(table: pa.Table, schema: pa.Schema, metadata: JsonObject | None = None) -> bytes:
    """`table` as the content of a Parquet file, see `ParquetBuffer`."""
    buffer = ParquetBuffer(schema)
    buffer.add(table)
    return buffer.finish(metadata)


def footer(file: pq.ParquetFile) -> JsonObject:
    """The metadata under the key `rho_score` in a file's footer; empty if there is none."""
    content = (file.metadata.metadata or {}).get(METADATA_KEY)
    return dict(orjson.loads(content)) if content else {}
