"""Parquet files: written into memory with page checksums, and read so that a damaged one is a clear error."""

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
"""What parsers raise on content that is not what it should be."""
METADATA_KEY = b"rho_score"


def read_table(content: bytes, schema: pa.Schema, what: str) -> pa.Table:
    """The columns of `schema` out of a small Parquet file.

    Raises:
        InputError: it is damaged, lacks one of them, or has null where the schema has none; names `what`.
    """
    try:
        table = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True).read(schema.names)
        table = table.select(schema.names).cast(schema)
        table.validate(full=True)
    except BROKEN as error:
        raise InputError(f"{what} is damaged: {error}") from error
    if missing := [field.name for field in schema if not field.nullable and table[field.name].null_count]:
        raise InputError(f"{what} is damaged: null in {', '.join(missing)}.")
    return table


@contextmanager
def readable(folder: Folder, name: str) -> Iterator[None]:
    """Turns whatever reading a unit's file raises into an error of ours: it is damaged or gone, or the storage fails."""
    try:
        yield
    except RhoScoreError:
        raise
    except BROKEN as error:
        if getattr(error, "errno", None) not in (None, errno.ENOENT):
            raise folder.error("read", name, error) from error
        raise RhoScoreError(f"{folder.url}/{name} cannot be read: {error}. Remove it and resume its run.") from error


class ParquetBuffer:
    """A Parquet file in memory with exactly the columns of `schema`, a row group for each table that is added.

    Scores, token ids and groups repeat, so they take a dictionary before zstd: scores rounded to float16 have at most
    65,536 values, and every reader has that encoding. Columns in `split` (lists of float) have their bytes split by their
    place instead, which is written faster and read slower.
    """

    def __init__(self, schema: pa.Schema, split: Sequence[str] = ()) -> None:
        lists = {f.name: f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema}
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
        """Write a row group; raises TypeError where the columns differ from the schema in name, order or type."""
        if not table.schema.equals(self._schema):
            raise TypeError(f"columns differ from the contract\nhave: {table.schema}\nwant: {self._schema}")
        self._writer.write_table(table)

    def finish(self, metadata: JsonObject | None = None) -> bytes:
        """The whole file, with `metadata` as JSON in the footer under `rho_score`."""
        if metadata is not None:
            self._writer.add_key_value_metadata({METADATA_KEY: orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)})
        self._writer.close()
        content: bytes = self._sink.getvalue().to_pybytes()
        return content


def parquet_bytes(table: pa.Table, schema: pa.Schema, metadata: JsonObject | None = None) -> bytes:
    """`table` as a Parquet file, see `ParquetBuffer`."""
    buffer = ParquetBuffer(schema)
    buffer.add(table)
    return buffer.finish(metadata)


def footer(file: pq.ParquetFile) -> JsonObject:
    """Our metadata in a file's footer; empty where there is none."""
    content = (file.metadata.metadata or {}).get(METADATA_KEY)
    return dict(orjson.loads(content)) if content else {}
