"""A unit's file of a store, read: whole, or in parts of some tokens that stay in the processor's cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.errors import RhoScoreError
from rho_score.schema import footer
from rho_score.storage import Folder, with_retries

PART_TOKENS = 1 << 20


def read(
    folder: Folder, name: str, fingerprint: str, columns: list[str] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of a unit, in input order, and our metadata in its footer.

    Raises:
        RhoScoreError: the file is missing or damaged, or belongs to another run.
    """

    def read_whole() -> tuple[pa.Table, dict[str, Any]]:
        with folder.open_mapped(name) as source:
            remote = not isinstance(source, pa.MemoryMappedFile)  # whose ranges are asked for in one go
            file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=remote)
            return file.read(columns, use_threads=False), footer(file)

    with _explained(folder, name):
        table, metadata = with_retries(read_whole, attempts=3)
    _check(metadata, folder, name, fingerprint)
    return table, metadata


def parts(folder: Folder, name: str, fingerprint: str, columns: list[str]) -> tuple[dict[str, Any], Iterator[pa.Table]]:
    """Our metadata in the footer of a score set's unit, and its rows in parts of about `PART_TOKENS` tokens.

    How many rows a part has depends on the unit's accounts alone. On a local disk a part is decoded when it is asked for;
    elsewhere the file is fetched whole.

    Raises:
        RhoScoreError: as `read`, from the iterator too.
    """
    with _explained(folder, name):
        source = folder.open_mapped(name)
        if not isinstance(source, pa.MemoryMappedFile):
            source.close()
            table, metadata = read(folder, name, fingerprint, columns)
            n_rows = _rows(metadata)
            return metadata, (table.slice(start, n_rows) for start in range(0, len(table), n_rows))
        file = pq.ParquetFile(source, page_checksum_verification=True)
        metadata = footer(file)
    _check(metadata, folder, name, fingerprint)
    return metadata, _decoded(folder, name, source, file, columns, _rows(metadata))


def _decoded(
    folder: Folder, name: str, source: pa.MemoryMappedFile, file: pq.ParquetFile, columns: list[str], n_rows: int
) -> Iterator[pa.Table]:
    with source, _explained(folder, name):
        for batch in file.iter_batches(n_rows, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch])


def _rows(metadata: dict[str, Any]) -> int:
    rows, tokens = (int(metadata["accounts"][name]) for name in ("scored", "tokens"))
    return max(1, rows * PART_TOKENS // max(tokens, 1))


@contextmanager
def _explained(folder: Folder, name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, pa.ArrowException, OSError) as error:
        raise RhoScoreError(f"{folder.url}/{name} cannot be read: {error}. Remove it and resume its run.") from error


def _check(metadata: dict[str, Any], folder: Folder, name: str, fingerprint: str) -> None:
    if metadata.get("fingerprint") != fingerprint:
        raise RhoScoreError(f"{folder.url}/{name} is of another run than its manifest. Remove it and resume the run.")
