"""Reads the file of a unit of a store, whole or in parts."""

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import footer, readable
from rho_score.stores.layout import data_name
from rho_score.stores.schema import check_columns

# A part that is a little longer still fits into 2**20 tokens; pyarrow's buffers grow by doubling.
PART_TOKENS = 900_000


class UnitFile(NamedTuple):
    """The place of a unit's file, and the fingerprint and the fields that its footer must have."""

    folder: Folder
    name: str
    fingerprint: str
    fields: frozenset[str]

    def check(self, metadata: JsonObject) -> None:
        """Raises an error unless the footer is one of this store.

        Raises:
            ValueError: the footer lacks a field.
            RhoScoreError: the footer has another fingerprint.
        """
        if missing := self.fields - metadata.keys():
            raise ValueError(f"its footer has no {', '.join(sorted(missing))}")
        if metadata.get("fingerprint") != self.fingerprint:
            raise RhoScoreError(
                f"{self.folder.url}/{self.name} was not written by the run of its manifest. Remove it and resume the run."
            )


def read(unit: UnitFile, columns: list[str] | None = None) -> tuple[pa.Table, JsonObject]:
    """The rows of a unit, in input order, and the metadata in its footer.

    Raises:
        RhoScoreError: the file is missing or damaged, or belongs to another run.
    """
    with readable(unit.folder, unit.name), unit.folder.open_mapped(unit.name) as source:
        file, metadata = _opened(unit, source, columns)
        return file.read(columns, use_threads=False), metadata


def parts(unit: UnitFile, columns: list[str]) -> tuple[JsonObject, Iterator[pa.Table]]:
    """The metadata in the footer of a score set's unit, and its rows in parts.

    A part has about `PART_TOKENS` tokens, which stay in the processor's cache. The number of rows
    in a part depends only on the unit's counts. On a local disk, a part is decoded when the
    iterator reaches it. Elsewhere, the whole file is fetched first.

    Raises:
        RhoScoreError: as in `read`. The iterator raises it too.
    """
    with readable(unit.folder, unit.name):
        source = unit.folder.open_mapped(unit.name)
        if not isinstance(source, pa.MemoryMappedFile):
            source.close()
            table, metadata = read(unit, columns)
            n_rows = _rows(metadata)
            return metadata, (table.slice(start, n_rows) for start in range(0, len(table), n_rows))
        file, metadata = _opened(unit, source, columns)
        return metadata, _decoded(unit, source, file, columns, _rows(metadata))


class RowGroup(NamedTuple):
    """A row group of a unit's file, and the number in the unit of its first row."""

    first_row: int
    table: pa.Table


def columns_of(unit: UnitFile) -> pa.Schema:
    """The columns of a unit's file, with their types; raises RhoScoreError as in `read`."""
    with readable(unit.folder, unit.name), unit.folder.open_mapped(unit.name) as source:
        return _opened(unit, source, None)[0].schema_arrow


def row_groups(unit: UnitFile, columns: list[str]) -> Iterator[RowGroup]:
    """Yields the row groups of a unit one by one; raises RhoScoreError as in `read`."""
    with readable(unit.folder, unit.name), unit.folder.open_mapped(unit.name) as source:
        file, _ = _opened(unit, source, columns)
        first = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns, use_threads=False)
            yield RowGroup(first, table)
            first += len(table)


def row_group_at(unit: UnitFile, row: int, columns: list[str]) -> RowGroup:
    """The row group that holds a row of a unit.

    Raises:
        IndexError: the unit has no such row.
        RhoScoreError: as in `read`.
    """
    first = 0
    with readable(unit.folder, unit.name), unit.folder.open_mapped(unit.name) as source:
        file, _ = _opened(unit, source, columns)
        for group in range(file.num_row_groups):
            n_rows = file.metadata.row_group(group).num_rows
            if first <= row < first + n_rows:
                return RowGroup(first, file.read_row_group(group, columns))
            first += n_rows
    raise IndexError(f"{unit.name} has {first} rows, and no row {row}")


def _opened(unit: UnitFile, source: Any, columns: list[str] | None) -> tuple[pq.ParquetFile, JsonObject]:
    """The opened file and the metadata in its footer, after checking the columns and the footer."""
    remote = not isinstance(source, pa.MemoryMappedFile)  # its ranges are fetched in one go
    file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=remote)
    check_columns(file.schema_arrow, columns)
    metadata = footer(file)
    unit.check(metadata)
    return file, metadata


def _decoded(
    unit: UnitFile, source: pa.MemoryMappedFile, file: pq.ParquetFile, columns: list[str], n_rows: int
) -> Iterator[pa.Table]:
    with source:
        with readable(unit.folder, unit.name):
            batches = file.iter_batches(n_rows, columns=columns, use_threads=False)
        while True:
            with readable(unit.folder, unit.name):
                batch = next(batches, None)
                if batch is None:
                    return
            yield pa.Table.from_batches([batch])


def _rows(metadata: JsonObject) -> int:
    rows, tokens = (int(metadata["accounts"][name]) for name in ("scored", "tokens"))
    return max(1, rows * PART_TOKENS // max(tokens, 1))


def footers(folder: Folder, units: Iterable[str]) -> Iterator[JsonObject]:
    """Yields the metadata in the footers of published units, in the order of `units`.

    Sixteen footers are read at the same time, and at most 4096 are held in memory.
    """

    def read(unit: str) -> JsonObject:
        with readable(folder, data_name(unit)), folder.open_mapped(data_name(unit)) as file:
            return footer(pq.ParquetFile(file))

    left = iter(units)
    with ThreadPoolExecutor(16) as pool:
        while some := list(itertools.islice(left, 4096)):
            yield from pool.map(read, some)
