"""Parquet shards: cutting them into units by their footers, and reading them by row groups."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.config import CorpusConfig
from rho_score.corpus.columns import Columns, Document, Row
from rho_score.corpus.compression import DAMAGE, is_damage
from rho_score.corpus.content import columns_of
from rho_score.corpus.lines import LARGEST_SHARD
from rho_score.corpus.parquet_columns import Sources, find_sources
from rho_score.corpus.record_batches import BATCH_ROWS, MOST_ROWS, all_lost, documents_up_to, size_of
from rho_score.corpus.units import Unit, new_unit
from rho_score.errors import InputError
from rho_score.files.folder import FileInfo, Folder

FORMAT = NAMES = ".parquet"
ROWS: Final = "tables"
FOOTER_SIGNATURE = 28  # bytes


def is_name(name: str) -> bool:
    """True if a file with this name is read as a Parquet shard."""
    return name.lower().endswith(FORMAT)


def may_be_empty(name: str) -> bool:
    """False: a Parquet file without rows has a header and a footer too."""
    return False


def holds(unit: Unit) -> bool:
    """True if the unit belongs to a Parquet shard."""
    return unit.format == FORMAT


def info(root: Folder, name: str) -> FileInfo:
    """The size and version of a shard."""
    return root.info(name)


def cut(root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
    """The units of a shard, each of whole row groups.

    Raises:
        InputError: the shard cannot be read, lacks a column, or has row groups that are too large.
    """
    columns = columns_of(corpus)
    with root.open(name) as file:
        footer = _Footer(file)
        shard = pq.ParquetFile(footer)
        metadata = shard.metadata
        _refuse_encrypted(file, info.size, metadata)
        footer.all_read = True
        _check_row_groups(shard, columns.text)
        contents = find_sources(shard.schema_arrow, columns, name).contents
        for content in contents:
            _check_row_groups(shard, content)
    paths = [metadata.schema.column(i).path for i in range(len(metadata.schema))]
    leaves = [i for i, path in enumerate(paths) if any(path == of or path.startswith(f"{of}.") for of in contents)]
    units: list[Unit] = []
    start = row = rows = size = 0
    for i in range(metadata.num_row_groups):
        n_rows = metadata.row_group(i).num_rows
        n_bytes = sum(metadata.row_group(i).column(leaf).total_uncompressed_size for leaf in leaves)
        for what, found, most in (("rows", n_rows, MOST_ROWS), ("bytes of text", n_bytes, LARGEST_SHARD)):
            if found > most:
                raise InputError(f"row group {i} has {found:,} {what}, more than {most:,}. Write smaller row groups.")
        rows, size = rows + n_rows, size + n_bytes
        if size >= corpus.unit_bytes or rows >= MOST_ROWS or i + 1 == metadata.num_row_groups:
            if rows:
                place = {"first_row": row, "rows": rows, "text_bytes": size}
                units.append(new_unit(name, start, i + 1, format=FORMAT, size=info.size, version=info.version, **place))
            start, row, rows, size = i + 1, row + rows, 0, 0
    return units


def _check_row_groups(shard: pq.ParquetFile, column: str) -> None:
    """Checks the row groups in the footer, without reading more than the footer (see `_Footer`).

    Raises:
        InputError: the numbers of rows in the footer contradict each other, or a row group lacks
            columns.
        pyarrow.ArrowException, OSError: what the footer says about the column is damaged.
    """
    rows = [shard.metadata.row_group(i).num_rows for i in range(shard.metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != shard.metadata.num_rows:
        raise InputError(
            f"not readable (its footer says {shard.metadata.num_rows:,} rows, its row groups {sum(rows):,}). "
            "Replace it or take it out of the corpus."
        )
    for i in range(shard.metadata.num_row_groups):
        if shard.metadata.row_group(i).num_columns != len(shard.metadata.schema):
            raise InputError(f"not readable (row group {i} lacks columns). Replace it or take it out of the corpus.")
        with suppress(_AllReadError):
            shard.read_row_group(i, columns=[column])


class _AllReadError(Exception):
    """pyarrow asked for more than the footer."""


class _Footer:
    """A Parquet file that raises an error instead of reading once `all_read` is set.

    With it, pyarrow's reader checks what the footer says about a column, without reading the
    column. If the footer is damaged there, the reader raises an error. Asked through its metadata,
    pyarrow would end the process.
    """

    closed = False

    def __init__(self, file: Any) -> None:
        self._file, self.all_read = file, False
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> Any:
        """Reads like a file, until `all_read` is set."""
        if self.all_read:
            raise _AllReadError
        return self._file.read(size)


def _refuse_encrypted(file: Any, size: int, metadata: pq.FileMetaData) -> None:
    """Refuses a readable footer over encrypted columns, because pyarrow would end the process.

    Such a footer is signed: 28 bytes of nonce and tag come between the footer and its length, which
    is in the four bytes before the last four of the file.
    """
    file.seek(size - 8)
    (length,) = struct.unpack("<I", file.read(4))
    if length - metadata.serialized_size == FOOTER_SIGNATURE:
        raise InputError("it has encrypted columns. Write the file again without encryption.")


def read(root: Folder, unit: Unit, columns: Columns) -> Iterator[Row]:
    """Yields the rows of a unit in input order. Those that cannot be scored have an error.

    At most `LARGEST_SHARD` characters are read, because a small file can hold much text: a
    dictionary holds one text for all rows.
    """
    assert unit.first_row is not None
    assert unit.rows is not None
    row, size = unit.first_row, 0
    with root.open(unit.shard) as file:
        shard = pq.ParquetFile(file, page_checksum_verification=True)
        sources = find_sources(shard.schema_arrow, columns, unit.shard)
        for group in range(unit.start, unit.stop):
            n_rows = shard.metadata.row_group(group).num_rows
            default_ids = [f"{unit.shard}#{row + i}" for i in range(n_rows)]
            documents = _row_group(shard, group, default_ids, sources, columns, LARGEST_SHARD - size)
            size += sum(map(size_of, documents))
            for i, one in enumerate(documents):
                yield Row(one, (row + i - unit.first_row) / unit.rows)
            row += n_rows


def rows(root: Folder, unit: Unit, keep: np.ndarray) -> Iterator[pa.Table]:
    """The kept rows of a unit with all columns, a table for each row group that has such rows."""
    row = 0
    with root.open(unit.shard) as source:
        shard = pq.ParquetFile(source, page_checksum_verification=True)
        for group in range(unit.start, unit.stop):
            n_rows = shard.metadata.row_group(group).num_rows
            chosen = keep[row : row + n_rows]
            row += n_rows
            if chosen.any():
                yield shard.read_row_group(group).filter(pa.array(chosen))


def _row_group(
    shard: pq.ParquetFile, group: int, default_ids: list[str], sources: Sources, columns: Columns, most: int
) -> list[Document]:
    """The documents of a row group. If it is damaged, each of them has an error.

    most: the most characters to read. The documents after that have an error.
    """
    reason = (
        f"row group {group}: its unit has more than {LARGEST_SHARD:,} characters of text, the rest is not "
        "read. Write the file again with smaller row groups, or cut it into smaller units (--unit-bytes)."
    )
    try:
        batches = shard.iter_batches(_rows_at_once(shard, group), row_groups=[group], columns=sources.in_file)
        documents = documents_up_to(batches, default_ids, sources, columns, most, reason)
        if len(documents) < len(default_ids):
            raise pa.ArrowInvalid(f"{len(documents)} rows, where the footer says {len(default_ids)}")
    except DAMAGE as error:
        if not is_damage(error):
            raise
        return all_lost(default_ids, f"row group {group} is damaged: {error}")
    return documents


def _rows_at_once(shard: pq.ParquetFile, group: int) -> int:
    """The number of rows to decode at a time, so that they take at most `LARGEST_SHARD` bytes.

    Each row is taken to be as large as the whole row group, as in a dictionary of one text. The
    size of the row group is used, not those of its columns: asked about a column, pyarrow ends the
    process if the footer is damaged.
    """
    size = int(shard.metadata.row_group(group).total_byte_size)
    return min(BATCH_ROWS, max(1, LARGEST_SHARD // max(1, size)))
