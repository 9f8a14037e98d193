"""Rows of shards with all their own columns: reads the ones that are kept, and writes them as files."""

import base64
import io
from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.corpus.formats import format_of
from rho_score.corpus.units import Unit
from rho_score.files.folder import Folder

Compression = Literal["none", "gzip", "zstd"]
_ENDINGS = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}


def without_rows(units: Iterable[Unit]) -> str | None:
    """The first shard whose rows cannot be written again, such as a tar; None if there is none."""
    return next((unit.shard for unit in units if format_of(unit).ROWS is None), None)


def whole_rows(root: Folder, unit: Unit, keep: np.ndarray) -> Iterator[Any]:
    """The kept rows of a unit with all their columns: tables or lines, see `formats.Format.ROWS`.

    keep: bool[n_rows].
    """
    return format_of(unit).rows(root, unit, keep)


def jsonl_rows(root: Folder, unit: Unit, keep: np.ndarray) -> Iterator[bytes]:
    """The kept rows of a unit as lines of JSON.

    Lines of JSON stay as they are. Rows of tables are written as JSON: a date or time as ISO 8601, a
    decimal number or a duration (in seconds) as a string, binary data as base64, and NaN as null.
    """
    for found in whole_rows(root, unit, keep):
        if isinstance(found, bytes):
            yield found
        else:
            for row in found.to_pylist():
                yield orjson.dumps(row, default=_as_json, option=orjson.OPT_APPEND_NEWLINE)


class ParquetRows:
    """Parquet files in memory, with the tables' own schema. A new schema begins a new file."""

    def __init__(self) -> None:
        self._sinks: list[io.BytesIO] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Appends a table as a row group."""
        if self._writer is None or not self._writer.schema.equals(table.schema):
            self._close()
            self._sinks.append(io.BytesIO())
            self._writer = pq.ParquetWriter(self._sinks[-1], table.schema, compression="zstd", write_page_checksum=True)
        self._writer.write_table(table, row_group_size=len(table))

    def files(self) -> dict[str, bytes]:
        """The files by what follows the part's name: .parquet, -1.parquet, -2.parquet …"""
        self._close()
        return {f"-{i}.parquet" if i else ".parquet": sink.getvalue() for i, sink in enumerate(self._sinks)}

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class JsonlRows:
    """A JSONL file in memory, compressed as it grows."""

    def __init__(self, compression: Compression) -> None:
        self._ending, self._any = _ENDINGS[compression], False
        self._sink = pa.BufferOutputStream()
        self._stream = self._sink if compression == "none" else pa.CompressedOutputStream(self._sink, compression)

    def add(self, line: bytes) -> None:
        """Appends a line."""
        self._any = True
        self._stream.write(line)

    def files(self) -> dict[str, bytes]:
        """The file by its ending; empty if there was no line."""
        if self._stream is not self._sink:
            self._stream.close()
        return {self._ending: self._sink.getvalue().to_pybytes()} if self._any else {}


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON. Use --format parquet.")
