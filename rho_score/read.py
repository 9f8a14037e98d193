"""Units into documents: a block a unit, rows in input order, strings as they are.

A document that cannot be scored keeps its row, with `error` set; nothing is dropped.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from rho_score import jsonl_shards, parquet_shards
from rho_score.columns import Columns, Document
from rho_score.engine import check_attempts
from rho_score.errors import RhoScoreError
from rho_score.passage import noted_retries
from rho_score.retries import retries_counted
from rho_score.schema import DOCUMENTS
from rho_score.storage import Folder, without_credentials
from rho_score.units import Unit


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
    read = parquet_shards.read if unit.format == parquet_shards.FORMAT else jsonl_shards.read
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
