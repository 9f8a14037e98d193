from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rho_score.errors import RhoScoreError, StorageError
from rho_score.files.folder import Folder
from rho_score.scoring.blocks import COUNTS, SCORED
from rho_score.scoring.publish import PublishSettings, publish_unit
from rho_score.scoring.unit_stats import UnitStats, attach_stats
from rho_score.stores.schema import FLOATS

ROWS = [
    {"doc_id": "a", "input_ids": [1, 2], "loss": [0.5, 1.5]},
    {"doc_id": "b", "error": "no text"},
    {"doc_id": "c", "input_ids": [], "loss": []},
]


def _settings(output: Path, **given: bool) -> PublishSettings:
    return PublishSettings(output=str(output), fingerprint="f", grouped=False, signals=(), **given)


def _publish(
    rows: list[dict[str, Any]],
    output: Path,
    *,
    prefix: bool = True,
    hidden: bool = False,
    planned: int = 3,
    again: bool = False,
) -> dict[str, Any]:
    whole = not any("counts" in row for row in rows)
    schema = SCORED if whole else SCORED.append(COUNTS)
    table = pa.Table.from_pylist([{"unit": "u", **row} for row in rows], schema=schema)
    settings = _settings(output, prefix=prefix, whole=whole, hidden=hidden, again=again)
    counts: dict[str, Any] = publish_unit(table, settings=settings, expected_rows={"u": planned}).to_pylist()[0][
        "counts"
    ]
    return counts


def test_a_unit_becomes_two_files_and_its_accounts(tmp_path: Path) -> None:
    accounts = _publish(ROWS, tmp_path)
    assert accounts == {
        "documents": 3, "scored": 2, "quarantined": 1, "rescored": 0, "copied": 0, "reused": 0, "tokens": 2, "losses": 2,
        "total_nats": 2.0,
    }  # fmt: skip
    assert pq.ParquetFile(tmp_path / "data" / "u.parquet").read()["loss"].to_pylist() == [[0.5, 1.5], []]
    quarantined = pq.ParquetFile(tmp_path / "quarantine" / "u.parquet").read().to_pylist()
    assert quarantined == [{"doc_id": "b", "reason": "no text"}]


def test_a_missing_loss_behind_a_prefix_is_refused(tmp_path: Path) -> None:
    rows = [{"doc_id": "a", "input_ids": [1, 2], "loss": [None, 1.5]}, *ROWS[1:]]
    with pytest.raises(RhoScoreError, match=r"unit u: 1 tokens have a loss, but 2 must have one\. Nothing was written"):
        _publish(rows, tmp_path)
    assert not list(tmp_path.iterdir())
    assert _publish(rows, tmp_path, prefix=False)["losses"] == 1
    found = pq.ParquetFile(tmp_path / "data" / "u.parquet").read()["loss"]
    assert found.type.equals(FLOATS)
    assert found.to_pylist() == [[None, 1.5], []]


def test_every_token_that_counts_has_a_loss(tmp_path: Path) -> None:
    rows = [
        {"doc_id": "a", "input_ids": [1, 2, 3], "loss": [None, 1.5, None], "counts": [False, True, False]},
        {"doc_id": "b", "input_ids": [1, 2], "loss": [None, 0.5], "counts": [True, True]},
        {"doc_id": "c", "input_ids": [], "loss": [], "counts": []},
    ]
    with pytest.raises(RhoScoreError, match="unit u: 2 tokens have a loss, but 3 must have one"):
        _publish(rows, tmp_path)
    counts = _publish(rows, tmp_path, prefix=False)  # nothing is before the first token of the second document
    assert (counts["tokens"], counts["losses"]) == (5, 2)
    with pytest.raises(RhoScoreError, match="2 tokens have a loss, but 1 must have one"):
        _publish(
            rows, tmp_path, prefix=False, hidden=True
        )  # the model read one token of the first and two of the second
    file = pq.ParquetFile(tmp_path / "data" / "u.parquet")
    assert file.schema_arrow.names == ["doc_id", "input_ids", "loss"]
    assert file.read()["loss"].to_pylist() == [[None, 1.5, None], [None, 0.5], []]


def test_other_rows_than_planned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RhoScoreError, match=r"unit u: 4 rows were planned, but 3 were read\. Nothing was written"):
        _publish(ROWS, tmp_path, planned=4)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("step", "of"), [("remove", "quarantine/u.parquet"), ("publish", "data/u.parquet")])
def test_a_unit_that_mends_is_unpublished_until_it_is_whole(
    step: str, of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(ROWS, tmp_path)
    mended = [ROWS[0], {"doc_id": "b", "input_ids": [3], "loss": [2.5]}, ROWS[2]]
    true = getattr(Folder, step)

    def until(folder: Folder, name: str, *content: bytes) -> None:
        if name == of:
            raise StorageError("the disk is full")
        true(folder, name, *content)

    monkeypatch.setattr(Folder, step, until)
    with pytest.raises(StorageError):
        _publish(mended, tmp_path, again=True)
    assert not (tmp_path / "data" / "u.parquet").exists(), (
        "the document is in neither file, and the unit counts as done"
    )
    monkeypatch.undo()
    assert _publish(mended, tmp_path)["scored"] == 3
    assert not (tmp_path / "quarantine" / "u.parquet").exists()


def test_a_unit_that_was_not_paid_is_not_written(tmp_path: Path) -> None:
    table = attach_stats(pa.table({"unit": ["u"], "input_ids": [[1, 2]]}), UnitStats(paid=False))
    settings = _settings(tmp_path, prefix=True, whole=True, hidden=False, again=False)
    (row,) = publish_unit(table, settings=settings, expected_rows={"u": 1}).to_pylist()
    assert (row["unit"], row["stats"]["paid"], row["counts"]["documents"]) == ("u", False, 0)
    assert not list(tmp_path.iterdir())
