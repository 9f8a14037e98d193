"""A unit's file of a store, read: whole, or in parts that stay in the processor's cache."""

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

PART_TOKENS = 900_000  # some parts are a little longer and still fit into 2**20: pyarrow's buffers grow by doubling


class UnitFile(NamedTuple):
    """Where a unit's file is, and what its footer must have: the store's fingerprint, and these fields."""

    folder: Folder
    name: str
    fingerprint: str
    fields: frozenset[str]

    def check(self, metadata: JsonObject) -> None:
        """Raises ValueError where the footer lacks a field, RhoScoreError where it is of another run."""
        if missing := self.fields - metadata.keys():
            raise ValueError(f"its footer has no {', '.join(sorted(missing))}")
        if metadata.get("fingerprint") != self.fingerprint:
            raise RhoScoreError(
                f"{self.folder.url}/{self.name} is of another run than its manifest. Remove it and resume the run."
            )


def read(unit: UnitFile, columns: list[str] | None = None) -> tuple[pa.Table, JsonObject]:
    """The rows of a unit, in input order, and our metadata in its footer.

    Raises:
        RhoScoreError: the file is missing or damaged, or belongs to another run.
    """
    with readable(unit.folder, unit.name), unit.folder.open_mapped(unit.name) as source:
        file, metadata = _opened(unit, source, columns)
        return file.read(columns, use_threads=False), metadata


def parts(unit: UnitFile, columns: list[str]) -> tuple[JsonObject, Iterator[pa.Table]]:
    """Our metadata in the footer of a score set's unit, and its rows in parts of about `PART_TOKENS` tokens.

    How many rows a part has depends on the unit's accounts alone. On a local disk a part is decoded when it is asked for;
    elsewhere the file is fetched whole.

    Raises:
        RhoScoreError: as `read`, from the iterator too.
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


def _opened(unit: UnitFile, source: Any, columns: list[str] | None) -> tuple[pq.ParquetFile, JsonObject]:
    """The file, whose footer is the store's and has these columns, and our metadata in it."""
    remote = not isinstance(source, pa.MemoryMappedFile)  # whose ranges are asked for in one go
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
    """Our metadata in the footers of published units, in the order asked for; read sixteen at a time, held a few thousand."""

    def read(unit: str) -> JsonObject:
        with readable(folder, data_name(unit)), folder.open_mapped(data_name(unit)) as file:
            return footer(pq.ParquetFile(file))

    left = iter(units)
    with ThreadPoolExecutor(16) as pool:
        while some := list(itertools.islice(left, 4096)):
            yield from pool.map(read, some)
