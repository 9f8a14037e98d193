"""Every stored number is shown, from any URL; an index that cannot be finished says why."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import orjson
import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.config import ViewConfig
from rho_score.files.parquet import parquet_bytes
from rho_score.stores.open import open_store
from rho_score.stores.schema import score_schema
from rho_score.viewing import index
from rho_score.viewing.answers import Answers
from rho_score.viewing.job import open_answers
from tests.stores import Doc, write_scores
from tests.unit.viewing.conftest import Stores, tables


def _opened(store: str, cache: Path) -> Answers:
    answers = open_answers(ViewConfig(store=store, cache=str(cache)))
    answers.stores[0].index.wait()
    return answers


@pytest.fixture
def signalled(stores: Stores, tmp_path: Path) -> Path:
    """The reference's score set with every signal, made up from the losses."""
    folder = shutil.copytree(stores.url("ref"), tmp_path / "signalled")
    schema = score_schema(grouped=True, signals=("entropy", "rank", "top-k"))
    store = open_store(str(folder))
    for unit in store.units:
        table, metadata = store.read_unit(unit.unit)
        losses = table["loss"].to_pylist()
        columns = {name: table[name] for name in table.column_names} | {
            "entropy": [[None if x is None else x + 1 for x in loss] for loss in losses],
            "rank": [[None if x is None else int(x * 10) for x in loss] for loss in losses],
            "top_ids": [[None if x is None else [3, 4] for x in loss] for loss in losses],
            "top_log_p": [[None if x is None else [-0.5, -1.5] for x in loss] for loss in losses],
        }
        (folder / f"data/{unit.unit}.parquet").write_bytes(parquet_bytes(pa.table(columns, schema), schema, metadata))
    return folder


def test_every_signal_is_a_layer(signalled: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    answers = _opened(str(signalled), tmp_path / "cache")
    layers = {layer["key"]: layer["kind"] for layer in answers.about({})[0]["layers"]}
    assert layers == {"loss": "number", "entropy": "number", "rank": "rank"}
    for unit, number, row in tables(str(signalled)):
        place = {"unit": str(unit), "row": str(number)}
        found = answers.document(place)
        assert found["candidates"] == ["this store"]
        for key in layers:
            expected: Any = row[key]
            assert found["values"][key] == [None if x is None else pytest.approx(x, rel=1e-5) for x in expected]
        for token, loss in enumerate(row["loss"][:2]):  # type: ignore[index]
            likeliest = answers.candidates({**place, "token": str(token)})["this store"]
            wanted = [] if loss is None else [(tokenizer.decode([i]), p) for i, p in ((3, -0.5), (4, -1.5))]
            assert likeliest == wanted
    low, middle, high = answers.scale({"layer": "entropy"})
    first = [
        x
        for unit, _, row in tables(str(signalled))
        if unit == 0
        for loss in [row["entropy"]]
        for x in loss
        if x is not None
    ]  # type: ignore[attr-defined]
    assert [low, middle, high] == pytest.approx(np.quantile(first, [0.05, 0.5, 0.95]))
    answers.close()


def test_a_store_behind_another_url_is_read_the_same(stores: Stores, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(stores.url("selection"), "/viewed/selection", recursive=True)
    here, there = (
        _opened(url, tmp_path / name)
        for url, name in ((stores.url("selection"), "a"), ("memory://viewed/selection", "b"))
    )
    for question, query in (("cut", {"threshold": "0.5"}), ("documents", {"sort": "mean"}), ("tokens", {})):
        assert here.questions[question](query) == there.questions[question](query)
    mine, other = (answers.document({"unit": "1", "row": "2"}) for answers in (here, there))
    assert other["values"] == {
        name: values for name, values in mine["values"].items() if "." not in name
    }  # no sets behind
    here.close()
    there.close()
    memory.rm("/viewed", recursive=True)


def test_more_groups_than_are_counted_are_counted_as_one(
    tmp_path: Path, make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "MOST_GROUPS", 3)
    docs = [Doc(f"d{i}", f"g{i}", [5, 6], [float(i), None]) for i in range(8)]
    write_scores(tmp_path / "scores", [[docs[:2], docs[2:5], docs[5:]]], tokenizer=make_model(1))
    answers = _opened(f"{tmp_path}/scores", tmp_path / "cache")
    found = answers.cut({"threshold": "3"})
    assert (found["total"]["items_kept"], found["total"]["items"]) == (5, 8)
    assert found["groups"] == []
    assert sorted(row["name"] for row in answers.groups({})) == [f"g{i}" for i in range(8)]
    assert answers.histogram({"group": "4"}) == answers.histogram({})
    assert (
        answers.documents({"group": str(answers.stores[0].index.group_number("g4"))})["documents"][0]["doc_id"] == "d4"
    )
    answers.close()


def test_an_index_is_made_once_and_made_again_if_it_is_damaged(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = _opened(stores.url("ref"), tmp_path / "cache")
    cut = first.cut({"threshold": "2"})
    listed = first.documents({})
    first.close()
    monkeypatch.setattr(index.Index, "_run", None)  # nothing is read again
    again = _opened(stores.url("ref"), tmp_path / "cache")
    assert (again.cut({"threshold": "2"}), again.documents({})) == (cut, listed)
    again.close()
    assert caplog.text == ""
    monkeypatch.undo()
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"no index")
    mended = _opened(stores.url("ref"), tmp_path / "cache")
    assert mended.documents({}) == listed
    mended.close()
    assert "cannot be read and is made again" in caplog.text


def test_a_page_that_asks_all_the_time_does_not_keep_the_index_from_its_end(stores: Stores, tmp_path: Path) -> None:
    answers = open_answers(ViewConfig(store=stores.url("ref"), cache=str(tmp_path)))
    shown, end = answers.stores[0].index, threading.Event()

    def ask() -> int:
        asked = 0
        while not end.is_set():
            ((n,),) = shown.rows(
                "select count(*) from documents a, documents b, documents c where a.mean < b.mean + c.mean"
            )
            asked += n >= 0
        return asked

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        shown.wait()
        end.set()
        assert all(one.result() for one in asking)
    assert shown.progress.ready, shown.progress.error
    answers.close()


def test_a_search_is_made_again_once_all_is_indexed(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, scan = threading.Event(), index.scan

    def one_unit_and_no_more(store: Any, unit: int, *group: Any) -> Any:
        if unit != first:
            go.wait()
        return scan(store, unit, *group)

    first = int(np.random.default_rng(0).permutation(len(open_store(stores.url("ref")).units))[0])
    monkeypatch.setattr(index, "scan", one_unit_and_no_more)
    answers = open_answers(ViewConfig(store=stores.url("ref"), cache=str(tmp_path)))

    def searched() -> Any:
        end = time.monotonic() + 60
        while True:
            found = answers.documents({"text": "the", "limit": "100"})
            if found["search"]["done"]:
                return found
            assert time.monotonic() < end
            time.sleep(0.02)

    early = searched()
    assert not early["search"]["whole"]
    go.set()
    answers.stores[0].index.wait()
    late = searched()
    assert (late["search"]["whole"], late["search"]["of"]) == (True, 60)
    assert late["n"] == sum("the" in text for text in stores.texts) > early["n"]
    answers.close()


def test_what_killed_processes_left_is_removed_after_a_day(stores: Stores, tmp_path: Path) -> None:
    old, new = tmp_path / ".scores-1.2.duckdb.wal", tmp_path / ".selection-1.2.duckdb"
    for path in (old, new):
        path.touch()
    os.utime(old, (1e9, 1e9))
    _opened(stores.url("ref"), tmp_path).close()
    assert not old.exists()
    assert new.exists()


def test_a_damaged_unit_is_told_and_what_was_read_is_listed(stores: Stores, tmp_path: Path) -> None:
    folder = shutil.copytree(stores.url("ref"), tmp_path / "damaged")
    store = open_store(str(folder))
    order = np.random.default_rng(0).permutation(len(store.units)).tolist()
    broken = folder / f"data/{store.units[order[-1]].unit}.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])
    answers = _opened(str(folder), tmp_path / "cache")
    (progress,) = answers.progress({})
    assert broken.name in progress["error"]
    assert not progress["ready"]
    assert 0 < answers.documents({})["n"] == progress["documents"] < 60
    assert orjson.dumps(progress)
    answers.close()
    assert list((tmp_path / "cache").iterdir()) == []  # the next run begins anew
