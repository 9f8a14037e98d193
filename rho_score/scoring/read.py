"""Reads units into documents: each block is a unit, rows are in input order, strings are unchanged.

A document that cannot be scored keeps its row, with `error` set; nothing is dropped.
"""

import time
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from rho_score.cluster.tasks import check_attempts
from rho_score.corpus.columns import Columns
from rho_score.corpus.documents import read_unchanged
from rho_score.corpus.units import Unit
from rho_score.files.folder import Folder
from rho_score.files.retries import retries_counted
from rho_score.files.urls import without_credentials
from rho_score.scoring.blocks import DOCUMENTS
from rho_score.scoring.unit_stats import add_seconds, attach_retries


class CorpusUnits(Datasource):
    """The units of a corpus as a Ray Data source, with one read task and one block per unit."""

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
    """Returns the documents of a unit with the columns `rho_score.scoring.blocks.DOCUMENTS`.

    A unit without documents gives one row of nulls.

    Raises:
        RhoScoreError: the shard is not the one that was planned (its size, etag or time of change
            differs), before or after it is read.
    """
    before = time.perf_counter()
    with retries_counted() as made:
        read = read_unchanged(root, unit, columns)
    rows: list[tuple[str | None, ...]] = [(unit.unit, *document) for document in read]
    rows = rows or [(unit.unit, None, None, None, None)]
    arrays = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), DOCUMENTS, strict=True)]
    table = attach_retries(pa.Table.from_arrays(arrays, schema=DOCUMENTS), made)
    return add_seconds(table, "read", time.perf_counter() - before)
