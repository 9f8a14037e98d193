import gc
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ray.util.state import list_actors
from transformers import PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.config import CorpusConfig, DynamicsConfig, ExportConfig, SelectConfig
from rho_score.corpus.columns import Columns
from rho_score.corpus.documents import documents
from rho_score.corpus.plan import make_plan
from rho_score.errors import InputError, RhoScoreError
from rho_score.exporting.job import export
from rho_score.files.folder import Folder
from rho_score.models.identity import model_identity
from rho_score.selecting.dynamics import dynamics
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from tests.conftest import N_DOCUMENTS, N_QUARANTINED
from tests.oracle import load_float32, plain_log_probabilities, plain_losses
from tests.ray.conftest import OPTIONS, digests, score_into


def test_every_document_is_scored_as_a_plain_forward_scores_it(
    scores: dict[str, Path],
    corpus: Path,
    make_model: Callable[[int], Path],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    store, model = ScoreSet.open(str(scores["ref"])), load_float32(make_model(1))
    plan = make_plan(CorpusConfig(input=str(corpus), unit_bytes=OPTIONS["unit_bytes"]))
    columns = Columns("text", "id", "source")
    n_documents = 0
    for unit in plan.units:
        wanted = [d for d in documents(Folder(plan.root), unit, columns) if d.text is not None]
        rows = store.unit_table(unit.unit).to_pylist()
        assert [row["doc_id"] for row in rows] == [d.doc_id for d in wanted]
        for row, document in zip(rows, wanted, strict=True):
            ids = tokenizer(document.text, add_special_tokens=False)["input_ids"]
            assert row["input_ids"] == ids
            assert row["group"] == document.group
            expected = plain_losses(model, ids, prefix=0, context=32, overlap=8)
            np.testing.assert_allclose(np.array(row["loss"], np.float32), expected, rtol=1e-3, atol=1e-3)
            n_documents += 1
    assert n_documents == N_DOCUMENTS - N_QUARANTINED


@pytest.mark.parametrize(("choice", "prefix"), [("auto", 0), ("7", 7), ("none", None)])
def test_the_prefix_is_the_one_that_was_asked_for(
    choice: str, prefix: int | None, make_model: Callable[[int], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ray_cluster: str,
) -> None:  # fmt: skip
    """The tokenizer names no BOS, but config.json does."""
    monkeypatch.chdir(tmp_path)
    model = Path(shutil.copytree(make_model(1), tmp_path / "model"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (model / name).exists():
            content = json.loads((model / name).read_text())
            (model / name).write_text(
                json.dumps({k: v for k, v in content.items() if k not in ("bos_token", "eos_token")})
            )
    (tmp_path / "a.jsonl").write_text('{"text": "the model learns a token of text"}\n')
    (tmp_path / "notes.md").write_text("left out")
    options = ["--model", "model", "--dtype", "float32", "--context", "32", "--overlap", "8"]
    options += [] if choice == "auto" else ["--no-compile"]  # a worker compiles once, as it does by default
    assert main(["score", "*.*", "out", *options, "--prefix", choice]) == 0
    told = capsys.readouterr()
    assert "notes.md" in told.out
    assert "weights: 1 not in the checkpoint are tied to others: lm_head.weight" in told.out
    store = ScoreSet.open("out")
    assert store.manifest["parts"]["prefix_id"] == prefix
    (row,) = store.unit_table(store.units[0].unit).to_pylist()
    expected = plain_losses(load_float32(model), row["input_ids"], prefix=prefix, context=32, overlap=8)
    assert (row["loss"][0] is None) == (prefix is None)
    np.testing.assert_allclose(np.array(row["loss"], np.float32), expected, rtol=1e-3, atol=1e-3)
    assert main(["score", "*.*", "out", *options, "--prefix", choice]) == 0
    assert "finished already; nothing to do" in capsys.readouterr().out
    assert main(["score", "*.*", "out", *options, "--prefix", "9"]) == 2
    assert "prefix_id" in capsys.readouterr().err
    assert main(["score", "*.*", "other", *options, "--prefix", "900"]) == 2
    assert "--prefix must be auto, none or the id of a token" in capsys.readouterr().err


def test_accounts_are_exact(scores: dict[str, Path]) -> None:
    store = ScoreSet.open(str(scores["ref"]))
    tables = [store.unit_table(unit.unit) for unit in store.units]
    lost = [row for path in sorted((scores["ref"] / "quarantine").iterdir()) for row in pq.read_table(path).to_pylist()]
    total = store.summary
    assert total["documents"] == total["scored"] + total["quarantined"] == N_DOCUMENTS
    assert total["quarantined"] == len(lost) == N_QUARANTINED
    assert total["scored"] == sum(map(len, tables))
    assert total["tokens"] == total["losses"] == sum(len(ids) for t in tables for ids in t["input_ids"].to_pylist())
    losses = [x for t in tables for row in t["loss"].to_pylist() for x in row]
    assert total["total_nats"] == pytest.approx(sum(losses), rel=1e-9)
    assert {row["doc_id"] for row in lost} >= {"null", "number", "none"}
    reasons = {row["doc_id"]: row["reason"] for row in lost}
    assert reasons["null"] == "column 'text' is null"
    assert reasons["none"].startswith("line 9, byte ")
    empty = [row for t in tables for row in t.to_pylist() if row["doc_id"] == "empty"]
    assert empty[0]["input_ids"] == empty[0]["loss"] == []


def test_workers_do_not_matter_and_neither_does_an_interruption(
    scores: dict[str, Path], corpus: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    summary = score_into(corpus, tmp_path / "three", make_model(1), workers="3")
    assert summary.computed == summary.units
    assert digests(tmp_path / "three") == digests(scores["ref"])
    data = sorted((tmp_path / "three" / "data").iterdir())
    for path in [*data[::3], tmp_path / "three" / "_SUCCESS.json"]:
        path.unlink()
    resumed = score_into(corpus, tmp_path / "three", make_model(1), workers="1:2")
    assert resumed.computed == len(data[::3])
    assert resumed.counts == summary.counts
    assert digests(tmp_path / "three") == digests(scores["ref"])


def test_a_finished_run_does_nothing(scores: dict[str, Path], corpus: Path, make_model: Callable[[int], Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in scores["ref"].rglob("*")}
    summary = score_into(corpus, scores["ref"], make_model(1))
    assert summary.computed == 0
    assert summary.counts.documents == N_DOCUMENTS
    assert {path: path.stat().st_mtime_ns for path in scores["ref"].rglob("*")} == before


@pytest.mark.parametrize(
    ("changes", "named"), [({"context": 16}, "context: there 32, now 16"), ({"model": 3}, "weights_sha256")]
)
def test_another_fingerprint_is_refused_with_the_difference(
    scores: dict[str, Path],
    corpus: Path,
    make_model: Callable[[int], Path],
    changes: dict[str, int],
    named: str,
) -> None:
    model = make_model(changes.pop("model", 1))
    before = digests(scores["ref"])
    with pytest.raises(InputError, match=named):
        score_into(corpus, scores["ref"], model, **changes)
    assert digests(scores["ref"]) == before


def test_a_worker_with_another_model_is_refused(
    corpus: Path, make_model: Callable[[int], Path], tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node must not score if its path holds another model than the driver's."""
    other = {**model_identity(str(make_model(1))), "weights_sha256": "of the driver's model"}
    monkeypatch.setattr("rho_score.scoring.settings.model_identity", lambda _: other)
    with pytest.raises(RhoScoreError, match='weights_sha256: the driver "of the driver\'s model", this worker'):
        score_into(corpus, tmp_path / "out", make_model(1))
    assert not (tmp_path / "out" / "_SUCCESS.json").exists()


def test_a_folder_of_other_things_is_not_written_to(
    corpus: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis\.tex"):
        score_into(corpus, tmp_path, make_model(1))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_more_workers_than_the_cluster_has_are_refused(
    ray_cluster: str, corpus: Path, make_model: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rho_score.scoring.preflight.NODES_JOIN_S", 0.0)  # no more nodes will come
    with pytest.raises(InputError, match="4 workers of 1 CPUs and one CPU for reading need 5, but the cluster has 4"):
        score_into(corpus, tmp_path / "out", make_model(1), workers="4")


def test_entropy_and_rank_are_columns_on_request(
    ray_cluster: str, corpus: Path, scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    summary = score_into(corpus, tmp_path / "out", make_model(1), signals=("rank", "entropy"))
    assert 0 < summary.busy_share <= 1
    assert 0 <= summary.padding_share < 1
    store, plain = ScoreSet.open(str(tmp_path / "out")), ScoreSet.open(str(scores["ref"]))
    ranks: list[int] = []
    for unit in store.units:
        table = store.unit_table(unit.unit)
        assert table.column_names == ["doc_id", "group", "input_ids", "loss", "entropy", "rank"]
        assert table["loss"].equals(plain.unit_table(unit.unit)["loss"])
        for row in table.to_pylist():
            assert len(row["entropy"]) == len(row["rank"]) == len(row["input_ids"])
            assert all(0 <= entropy <= np.log(400) + 1e-2 for entropy in row["entropy"])
            ranks += row["rank"]
    assert min(ranks) >= 0
    assert max(ranks) < 400
    assert store.manifest["parts"]["signals"] == ["entropy", "rank"]
    kept = select(SelectConfig(ref=str(tmp_path / "out"), output=str(tmp_path / "sel"), ratio=0.6)).total.tokens_kept
    assert kept == round(0.6 * len(ranks))  # other columns do not disturb it


def test_the_likeliest_tokens_are_columns_on_request(
    ray_cluster: str, corpus: Path, scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    score_into(corpus, tmp_path / "out", make_model(1), signals=("top-k",), top_k=3, precision="float32")
    store, plain = ScoreSet.open(str(tmp_path / "out")), ScoreSet.open(str(scores["ref"]))
    assert store.manifest["parts"]["top_k"] == 3
    model = load_float32(make_model(1))
    for unit in store.units:
        table = store.unit_table(unit.unit)
        assert table.column_names == ["doc_id", "group", "input_ids", "loss", "top_ids", "top_log_p"]
        assert table["input_ids"].equals(plain.unit_table(unit.unit)["input_ids"])
        for row in table.to_pylist():
            log_p = plain_log_probabilities(model, row["input_ids"], prefix=0, context=32, overlap=8)
            values, words = torch.from_numpy(log_p).topk(3, dim=1)
            assert row["top_ids"] == words.tolist()
            np.testing.assert_allclose(np.array(row["top_log_p"]).reshape(-1, 3), values, atol=2e-4)
    with duckdb.connect() as connection:
        (known,) = connection.execute(f"SELECT sum(len(top_ids)) FROM '{tmp_path}/out/data/*.parquet'").fetchone() or (
            0,
        )
    assert known == store.summary["tokens"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 3}, "--top-k needs --signals top-k"),
        ({"top_k": 0, "signals": ("top-k",)}, "between 1 and the 400 words"),
        ({"top_k": 401, "signals": ("top-k",)}, "between 1 and the 400 words"),
    ],
)
def test_a_wrong_number_of_likeliest_tokens_is_refused(
    corpus: Path, make_model: Callable[[int], Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        score_into(corpus, tmp_path / "out", make_model(1), **options)
    assert not (tmp_path / "out").exists()


def test_verify_compares_with_a_plain_forward_and_writes_nothing(
    corpus: Path, make_model: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", str(corpus), str(tmp_path / "out"), "--model", str(make_model(1)), "--context", "32"]
    assert main([*command, "--verify", "20", "--no-compile", "--dtype", "float32", "--gpus-per-worker", "0"]) == 0
    said = capsys.readouterr().out
    assert "verified 20 documents" in said
    assert "(packed in float32) against a plain float32 forward" in said
    mean = float(said.split("mean difference ")[1].split()[0])
    assert 0 <= mean < 1e-4
    assert not (tmp_path / "out").exists()
    assert main([*command, "--verify", "0"]) == 2


def test_a_document_that_overflows_is_counted(
    ray_cluster: str, corpus: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    model = load_float32(make_model(1))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[:, :] *= 3e5
    shutil.copytree(make_model(1), tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    summary = score_into(corpus, tmp_path / "out", tmp_path / "model", dtype="float16")
    assert summary.counts.rescored > 0
    assert summary.counts.scored == N_DOCUMENTS - N_QUARANTINED
    assert ScoreSet.open(str(tmp_path / "out")).summary["rescored"] == summary.counts.rescored


def test_a_run_that_fails_gives_its_workers_back_though_its_error_is_kept(
    corpus: Path, scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(scores["ref"], output)
    for folder in ("data", "quarantine"):
        shutil.rmtree(output / folder)
    (output / "_SUCCESS.json").unlink()
    (output / "quarantine").write_text("not a folder")
    gc.disable()  # nothing else collects them
    try:
        with pytest.raises(RhoScoreError, match="Not a directory"):
            score_into(corpus, output, make_model(1))
        end = time.monotonic() + 30
        while [a for a in list_actors(limit=1000) if a.state == "ALIVE" and "ScoreUnit" in a.class_name]:
            assert time.monotonic() < end, "a worker is still there"
            time.sleep(0.2)
    finally:
        gc.enable()


def test_paths_mean_the_same_to_workers_with_another_working_directory(
    ray_cluster: str, corpus: Path, scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, place in (("corpus", corpus), ("model", make_model(1))):
        Path(name).symlink_to(place)
    score_into(Path("corpus"), Path("out"), Path("model"))
    assert {n: d for n, d in digests(tmp_path / "out").items() if n.startswith("data/")} == {
        n: d for n, d in digests(scores["ref"]).items() if n.startswith("data/")
    }
    select(SelectConfig(output="sel", ref="out", base=os.path.relpath(scores["base"]), ratio=0.5))
    export(ExportConfig(selection="sel", output="bin", format="bin"))
    dynamics(DynamicsConfig(output="dyn", scores=("out", os.path.relpath(scores["base"]))))
    for store in ("sel", "bin", "dyn"):
        assert list((tmp_path / store / "data").iterdir()), store
