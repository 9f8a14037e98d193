"""Shards of every name and columns of every kind, taken through score, select and export."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rho_score.cli import main
from rho_score.config import CorpusConfig, ExportConfig, SelectConfig
from rho_score.corpus.plan import make_plan
from rho_score.exporting.job import export
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from tests.conftest import some_text
from tests.ray.conftest import score_into

NAMES: dict[str, Callable[[bytes], bytes]] = {
    "a.json": bytes,
    "b.json.gz": gzip.compress,
    "c.ndjson.bz2": bz2.compress,
    "d.jsonl.xz": lzma.compress,
    "e.jsonl.gz": bytes,  # a download unpacked it
    "f.JSONL.ZSTD": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


def _select(folder: Path) -> None:
    config = SelectConfig(ref=str(folder / "scores"), output=str(folder / "sel"), ratio=0.5, level="document")  # type: ignore[arg-type]
    select(config)


def _export(folder: Path, **options: Any) -> list[bytes]:
    """The lines that were exported, or the exported rows as JSON."""
    config = ExportConfig(selection=str(folder / "sel"), output=str(folder / f"out-{options['format']}"), **options)
    export(config)
    files = sorted((folder / f"out-{options['format']}" / "data").iterdir())
    if options["format"] == "parquet":
        return [json.dumps(row, default=str).encode() for path in files for row in pq.read_table(path).to_pylist()]
    return [line for path in files for line in path.read_bytes().splitlines(keepends=True)]


def _kept(folder: Path) -> list[str]:
    rows = [row for path in sorted((folder / "sel/data").iterdir()) for row in pq.read_table(path).to_pylist()]
    return [row["doc_id"] for row in rows if row["kept"]]


def test_shards_of_every_name_are_scored_and_exported(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (tmp_path / "corpus").mkdir()
    lines = {}
    for name, press in NAMES.items():
        rows = [{"id": f"{name}-{i}", "text": some_text(3 + i, i)} for i in range(6)]
        lines[name] = [json.dumps(row).encode() + b"\n" for row in rows]
        (tmp_path / "corpus" / name).write_bytes(press(b"".join(lines[name])))
    for name in ("1.csv", "2.txt", "_3.json", "4.lz4", "5.jsonl.br", "6.zip", ".7.json"):
        (tmp_path / "corpus" / name).write_bytes(b"not a shard")
    options = [
        "--context",
        "32",
        "--dtype",
        "float32",
        "--no-compile",
        "--gpus-per-worker",
        "0",
        "--cpus-per-worker",
        "1",
    ]
    with caplog.at_level("INFO"):
        assert main(
            ["score", str(tmp_path / "corpus"), str(tmp_path / "scores"), "--model", str(make_model(1)), "--id-column", "id", *options]
        ) == 0  # fmt: skip
    left_out = "6 files of the input are no shards, left out: 1.csv, 2.txt, 4.lz4, 5.jsonl.br, 6.zip …"
    assert left_out in capsys.readouterr().out
    assert left_out in caplog.text
    store = ScoreSet.open(str(tmp_path / "scores"))
    formats = {unit.shard: unit.format for unit in store.units}
    assert formats == {
        "a.json": ".jsonl", "b.json.gz": ".jsonl.gz", "c.ndjson.bz2": ".jsonl.bz2", "d.jsonl.xz": ".jsonl.xz",
        "e.jsonl.gz": ".jsonl", "f.JSONL.ZSTD": ".jsonl.zst",
    }  # fmt: skip
    assert store.summary["scored"] == 36
    _select(tmp_path)
    kept = _kept(tmp_path)
    assert 10 < len(kept) < 30
    by_id = {json.loads(line)["id"]: line for shard in lines.values() for line in shard}
    assert sorted(_export(tmp_path, format="jsonl")) == sorted(by_id[name] for name in kept)


MOMENT = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def nested(ray_cluster: str, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet in Hive's folders, scored and selected.

    An id is made of a folder's name, a nested number and a nested timestamp.
    """
    folder = tmp_path_factory.mktemp("nested")
    for lang, n in (("en", 8), ("zh%2FTW", 6), ("__HIVE_DEFAULT_PARTITION__", 0)):
        (folder / "corpus" / f"lang={lang}").mkdir(parents=True)
        for part in range(2 if n else 0):
            rows = [
                {
                    "meta": {"id": 10 * part + i, "in": {"seen": MOMENT + timedelta(hours=i)}},
                    "body": {"text": some_text(3 + i, i + n)},
                }
                for i in range(n)
            ]
            pq.write_table(
                pa.Table.from_pylist(rows), folder / "corpus" / f"lang={lang}" / f"{part}.parquet", row_group_size=3
            )
    options = {
        "text_column": "body.text",
        "id_column": "lang,meta.id,meta.in.seen",
        "group_column": "lang",
        "unit_bytes": 100,
    }
    score_into(folder / "corpus", folder / "scores", make_model(1), **options)
    _select(folder)
    return folder


def test_ids_and_groups_of_folders_and_paths(nested: Path) -> None:
    store = ScoreSet.open(str(nested / "scores"))
    rows = [row for unit in store.units for row in store.unit_table(unit.unit).to_pylist()]
    assert len(rows) == 28
    assert {row["group"] for row in rows} == {"en", "zh/TW"}
    for row in rows:
        assert row["doc_id"].startswith(f"{row['group']}/")
    ids = {row["doc_id"] for row in rows}
    assert {"en/0/2024-05-01T00:00:00+00:00", "zh/TW/15/2024-05-01T05:00:00+00:00"} <= ids
    assert len(ids) == 28


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_rows_are_found_again_by_ids_of_folders_and_paths(nested: Path, format: str) -> None:
    kept = _kept(nested)
    found = [json.loads(line) for line in _export(nested, format=format)]
    assert len(found) == len(kept) > 5
    numbers = [name.rsplit("/", 2)[1] for name in kept]
    assert [str(row["meta"]["id"]) for row in found] == numbers


def test_an_export_is_a_corpus(nested: Path) -> None:
    """The score set's own JSON files are not shards."""
    for format in ("jsonl", "parquet"):
        if not (nested / f"out-{format}").exists():
            _export(nested, format=format)
        found = make_plan(CorpusConfig(input=str(nested / f"out-{format}"), text_column="body.text"))
        assert {unit.shard.split("/")[0] for unit in found.units} == {"data"}
        assert {"manifest.json", "_SUCCESS.json"} <= set(found.not_shards)


def test_one_json_array_is_refused_before_anything_runs(
    make_model: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": "one"}, {"text": "two"}], indent=2))
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n')
    for command in (
        ["plan", str(tmp_path)],
        ["score", str(tmp_path), str(tmp_path.parent / "out"), "--model", str(make_model(1))],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "a.json: it holds one JSON array, not one object per line" in said
        assert "`jq -c '.[]' FILE > FILE.jsonl`" in said
    assert not (tmp_path.parent / "out").exists()
