"""A row group is found by a row, and only by one that the unit has."""

from pathlib import Path

import pyarrow as pa
import pytest

from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.parquet import ParquetBuffer
from rho_score.stores.unit_file import UnitFile, columns_of, row_group_at, row_groups

SCHEMA = pa.schema([pa.field("doc_id", pa.string(), nullable=False), pa.field("input_ids", pa.list_(pa.int32()))])
SIZES = (3, 1, 4)


@pytest.fixture
def unit(tmp_path: Path) -> UnitFile:
    buffer, at = ParquetBuffer(SCHEMA), 0
    for size in SIZES:
        rows = range(at, at + size)
        buffer.add(pa.table({"doc_id": [f"d{i}" for i in rows], "input_ids": [[i] * i for i in rows]}, SCHEMA))
        at += size
    folder = Folder(str(tmp_path))
    folder.publish("data/u.parquet", buffer.finish({"fingerprint": "f"}))
    return UnitFile(folder, "data/u.parquet", "f", frozenset({"fingerprint"}))


def test_every_row_is_found(unit: UnitFile) -> None:
    for row, (first, size) in enumerate([(0, 3)] * 3 + [(3, 1)] + [(4, 4)] * 4):
        found = row_group_at(unit, row, ["doc_id", "input_ids"])
        assert (found.first_row, len(found.table)) == (first, size)
        assert found.table["doc_id"][row - first].as_py() == f"d{row}"
        assert found.table["input_ids"][row - first].as_py() == [row] * row
    assert [group.first_row for group in row_groups(unit, ["doc_id"])] == [0, 3, 4]
    assert columns_of(unit).equals(SCHEMA)


@pytest.mark.parametrize("row", [-1, 8, 10**12])
def test_other_rows_are_told(unit: UnitFile, row: int) -> None:
    with pytest.raises(IndexError, match=f"has 8 rows, and no row {row}"):
        row_group_at(unit, row, ["doc_id"])


def test_a_file_of_another_run_is_refused(unit: UnitFile) -> None:
    with pytest.raises(RhoScoreError, match="was not written by the run"):
        row_group_at(unit._replace(fingerprint="g"), 0, ["doc_id"])
    with pytest.raises(RhoScoreError, match="no column loss"):
        list(row_groups(unit, ["loss"]))
