"""The whole job with a model behind a server: the losses of a plain float32 forward, whatever is killed or runs out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.files.folder import Folder
from rho_score.servers.endpoint import KEY_VARIABLE
from rho_score.stores.score_set import ScoreSet, quarantined_documents
from tests.conftest import N_DOCUMENTS, N_QUARANTINED, some_text
from tests.fake_server import FakeServer, Faults
from tests.oracle import load_float32, plain_losses
from tests.ray.conftest import digests

OPTIONS = ["--context", "32", "--overlap", "8", "--id-column", "id", "--unit-bytes", "2000"]

SECRET = "sk-CANARY7f3a"


@pytest.fixture(scope="module")
def model(make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory without its weights, which only the server has."""
    folder = Path(shutil.copytree(make_model(1), tmp_path_factory.mktemp("bare") / "model"))
    for path in folder.glob("*.safetensors"):
        path.unlink()
    return folder


def _score(corpus: Path, output: Path, model: Path, server: FakeServer, *more: str) -> int:
    return main(["score", str(corpus), str(output), "--model", str(model), "--server", server.url, *OPTIONS, *more])


def _write(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir()
    rows = [json.dumps({"id": name, "source": "a", "text": text}) for name, text in texts.items()]
    (folder / "a.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def _rows(output: Path) -> dict[str, dict[str, Any]]:
    store = ScoreSet.open(str(output))
    return {row["doc_id"]: row for unit in store.units for row in store.unit_table(unit.unit).to_pylist()}


def _same_as_plain(rows: dict[str, dict[str, Any]], directory: Path) -> None:
    loaded = load_float32(directory)
    for row in rows.values():
        expected = plain_losses(loaded, row["input_ids"], prefix=0, context=32, overlap=8)
        np.testing.assert_allclose(np.array(row["loss"], np.float32), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_run_at_a_server_that_fails(
    kind: str, ray_cluster: str, corpus: Path, model: Path, make_model: Callable[[int], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    more = ["--group-column", "source", "--server-kind", kind, "--workers", "2", "--server-requests", "4"]
    with FakeServer(make_model(1)) as server:
        server.faults = Faults()
        assert _score(corpus, tmp_path / "calm", model, server, *more) == 3
        capsys.readouterr()
        server.faults = Faults(0.05, seed=1)
        assert _score(corpus, tmp_path / "out", model, server, *more) == 3
    printed = capsys.readouterr().out
    assert f"documents in {N_DOCUMENTS} = scored {N_DOCUMENTS - N_QUARANTINED} + quarantined {N_QUARANTINED}" in printed
    assert "server: " in printed
    assert " requests were made again (" in printed
    rows = _rows(tmp_path / "out")
    assert len(rows) == N_DOCUMENTS - N_QUARANTINED
    _same_as_plain(rows, make_model(1))
    assert digests(tmp_path / "out") == digests(tmp_path / "calm")
    manifest = ScoreSet.open(str(tmp_path / "out")).manifest
    assert {manifest["parts"][name] for name in ("server_kind", "server_model")} == {kind, "tiny"}
    assert not {"dtype", "compile", "weights_sha256", "batch_tokens", "device"} & set(manifest["parts"])
    assert (manifest["server"]["version"], manifest["server"]["max_tokens"]) == ("1.2.3", 66)
    assert str(server.port) not in (tmp_path / "out" / "manifest.json").read_text()
    # the server is gone, and the run is finished
    assert _score(corpus, tmp_path / "out", model, server, *more) == 3
    assert "finished already; nothing to do" in capsys.readouterr().out


def test_text_for_openai_and_the_prompt_as_context(
    ray_cluster: str, model: Path, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    rows = [{"id": f"d{i}", "prompt": some_text(4, i), "response": " " + some_text(9, 50 + i)} for i in range(12)]
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = [
        "--prompt-column",
        "prompt",
        "--response-column",
        "response",
        "--server-kind",
        "openai",
        "--context",
        "60",
    ]
    with FakeServer(make_model(1)) as server:
        assert _score(tmp_path / "in", tmp_path / "out", model, server, *columns) == 0
    found, loaded = _rows(tmp_path / "out"), load_float32(make_model(1))
    for row in rows:
        ids = tokenizer(row["prompt"] + row["response"], add_special_tokens=False)["input_ids"]
        n_prompt = len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"])
        assert found[row["id"]]["input_ids"] == ids
        losses = plain_losses(loaded, ids, prefix=0, context=60, overlap=8)
        losses[:n_prompt] = np.nan
        np.testing.assert_allclose(np.array(found[row["id"]]["loss"], np.float32), losses, rtol=1e-3, atol=1e-3)


def test_a_document_that_the_server_refuses_is_quarantined_and_the_key_stays_secret(
    ray_cluster: str, model: Path, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The workers' nodes do not have the key in their environment."""
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    corpus = _write(tmp_path / "in", {f"d{i}": f"{i} {some_text(6, i)}" for i in range(30)})
    bad = tokenizer("7 " + some_text(6, 7), add_special_tokens=False)["input_ids"]
    with FakeServer(make_model(1), key=SECRET, refuse=lambda ids: ids[1:] == bad) as server:
        assert _score(corpus, tmp_path / "out", model, server) == 3
        reason = "the server refuses it: HTTP 400: this text is not to the server's liking"
        assert list(quarantined_documents(Folder(str(tmp_path / "out")), 9)) == [("d7", reason)]
        assert len(_rows(tmp_path / "out")) == 29
        server.refuse = lambda ids: False
        assert _score(corpus, tmp_path / "out", model, server, "--only-quarantined") == 0
    told = capfd.readouterr()
    assert "CANARY" not in told.out + told.err
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"CANARY" in path.read_bytes()]
    rows = _rows(tmp_path / "out")
    assert len(rows) == 30
    _same_as_plain(rows, make_model(1))


def test_losses_are_reused_while_the_server_has_the_same_model(
    ray_cluster: str, model: Path, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What is left to score are the documents that the server refused before, and new ones in another unit."""
    texts = {f"d{i}": f"{i} {some_text(6, i)}" for i in range(60)}
    corpus, older, output = _write(tmp_path / "in", texts), tmp_path / "older", tmp_path / "out"
    bad = [tokenizer(texts[f"d{i}"], add_special_tokens=False)["input_ids"] for i in range(20)]
    more = ["--unit-bytes", "100000"]
    with FakeServer(make_model(1), refuse=lambda ids: ids[1:] in bad) as server:
        assert _score(corpus, older, model, server, *more) == 3
        (corpus / "b.jsonl").write_text(json.dumps({"id": "new", "source": "a", "text": some_text(9, 99)}) + "\n")
        with FakeServer(make_model(2)) as other:
            assert _score(corpus, output, model, other, *more, "--reuse", str(older)) == 2
        assert f"its losses are not those of the model of --reuse {older}" in capsys.readouterr().err
        assert not output.exists()
        assert _score(corpus, output, model, server, *more, "--reuse", str(older)) == 3
    assert "documents in 61 = scored 41 + quarantined 20" in capsys.readouterr().out
    rows, before = _rows(output), _rows(older)
    assert {name: row for name, row in rows.items() if name != "new"} == before
    _same_as_plain(rows, make_model(1))
    older.rename(tmp_path / "moved")  # the run is finished, and the server is gone
    assert _score(corpus, output, model, server, *more, "--reuse", str(older)) == 3
    assert "finished already; nothing to do" in capsys.readouterr().out


def test_a_killed_run_goes_on_to_the_same_bytes(
    ray_cluster: str, model: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    corpus = _write(tmp_path / "in", {f"d{i}": f"{i} {some_text(100, i)}" for i in range(90)})
    output = tmp_path / "out"
    with FakeServer(make_model(1)) as server:
        command = ["score", str(corpus), str(output), "--model", str(model), "--server", server.url, *OPTIONS]
        driver = subprocess.Popen(
            [sys.executable, "-m", "rho_score", *command],
            cwd=Path(__file__).parents[2], start_new_session=True, env={**os.environ, "RAY_ADDRESS": ""},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 150
        while len(list(output.glob("data/[!.]*"))) < 5 and driver.poll() is None:
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        time.sleep(1)
        done = {path: path.stat().st_mtime_ns for path in output.glob("data/[!.]*")}
        assert not (output / "_SUCCESS.json").exists()
        assert len(done) >= 5
    with FakeServer(make_model(1)) as elsewhere:  # the same model at another address
        assert _score(corpus, output, model, elsewhere) == 0
        assert {path: path.stat().st_mtime_ns for path in done} == done
        assert _score(corpus, tmp_path / "calm", model, elsewhere) == 0
    assert digests(output) == digests(tmp_path / "calm")


def test_money_is_never_spent_beyond_the_limit(
    ray_cluster: str, model: Path, make_model: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = _write(tmp_path / "in", {f"d{i}": f"{i} {some_text(60, i)}" for i in range(40)})
    with FakeServer(make_model(1), faults=Faults(0.03, seed=2)) as server:

        def run(money: float) -> int:
            price = ["--price-per-million-tokens", "1000", "--spend-at-most", str(money), "--workers", "2"]
            return _score(corpus, tmp_path / "out", model, server, *price)

        assert run(0.2) == 2
        assert "the check of the server alone needs more" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert run(3) == 1
        told = capsys.readouterr().err
        assert "stopped before --spend-at-most 3.0 was passed" in told
        assert "Run the same command with a higher --spend-at-most to go on" in told
        published = len(list((tmp_path / "out" / "data").iterdir()))
        assert f"{published} of " in told
        assert 0 < published < len(ScoreSet.open(str(tmp_path / "out"), finished=False).units)
        spent = json.loads((tmp_path / "out" / "spent.json").read_text())
        first = spent["tokens_by_price"]["1000.0"]
        assert first <= 3000
        assert spent["wanted"] + first > 3000
        asked = server.n_tokens
        assert run(3) == 2
        assert "which --spend-at-most 3.0 leaves no money for. Give more to go on" in capsys.readouterr().err
        assert server.n_tokens == asked, "a run that has no money asks nothing"
        assert run(1000) == 0
        printed = capsys.readouterr().out
        total = json.loads((tmp_path / "out" / "spent.json").read_text())["tokens_by_price"]["1000.0"]
        assert f"spent {total / 1000:,.6g} for {total:,} tokens" in printed
        assert total >= server.n_tokens, "whatever the server worked on is paid"
        server.faults = Faults()
        assert _score(corpus, tmp_path / "free", model, server) == 0
    got, free = digests(tmp_path / "out"), digests(tmp_path / "free")
    assert got.pop("spent.json")
    assert got == free


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
def test_a_calm_run_spends_what_was_planned(
    kind: str, ray_cluster: str, model: Path, make_model: Callable[[int], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Documents in several windows, copies of them, and an empty one; a text of kind openai has one window."""
    n_words = 4 if kind == "openai" else 60
    texts = {f"d{i}": f"{i % 9} {some_text(n_words, i % 9)}" for i in range(30)} | {"empty": ""}
    corpus, price = _write(tmp_path / "in", texts), ["--server-kind", kind, "--price-per-million-tokens", "1000000"]
    assert main(["plan", str(corpus), "--model", str(model), *OPTIONS, *price]) == 0
    planned = {line[:12].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    with FakeServer(make_model(1), least_tokens=int(kind != "sglang")) as server:
        assert _score(corpus, tmp_path / "out", model, server, *price) == 0
    (spent,) = json.loads((tmp_path / "out" / "spent.json").read_text())["tokens_by_price"].values()
    n_sent, check = (int(planned[name][at].replace(",", "")) for name, at in (("tokens sent", 2), ("check", 1)))
    assert n_sent + check == spent >= server.n_tokens
    assert float(planned["price"][1].replace(",", "")) == pytest.approx(spent, rel=1e-5)


def test_wrong_servers_are_refused_before_anything_is_written(
    ray_cluster: str, corpus: Path, model: Path, make_model: Callable[[int], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    output = tmp_path / "out"
    with FakeServer(make_model(1), key="right") as server:
        monkeypatch.setenv(KEY_VARIABLE, SECRET)
        assert _score(corpus, output, model, server) == 2
        told = capsys.readouterr().err
        assert (
            f"HTTP 401: the key Bearer … is wrong. Give its API key as the environment variable {KEY_VARIABLE}" in told
        )
        assert "CANARY" not in told
        monkeypatch.setenv(KEY_VARIABLE, "right")
        for more, message in (
            (["--server-model", "other"], "does not serve 'other', but tiny"),
            (["--context", "65"], "--context 65 is more than the 64 tokens that the server leaves for it"),
            (["--signals", "entropy"], "does not tell it"),
            (["--dtype", "float32"], "means nothing with --server"),
        ):
            assert _score(corpus, output, model, server, *more) == 2
            assert message in capsys.readouterr().err
        other = Path(shutil.copytree(model, tmp_path / "other"))
        content = json.loads((other / "tokenizer.json").read_text())
        content["model"]["merges"] = content["model"]["merges"][:-40]
        (other / "tokenizer.json").write_text(json.dumps(content))
        assert _score(corpus, output, other, server) == 2
        assert "the server's tokenizer is not that of --model" in capsys.readouterr().err
    assert not output.exists()
    assert _score(corpus, output, model, server) == 1
    assert "no connection" in capsys.readouterr().err
    assert not output.exists()


def test_the_losses_of_a_server_are_verified(
    corpus: Path, model: Path, make_model: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(make_model(1)) as server:
        assert _score(corpus, tmp_path / "out", make_model(1), server, "--verify", "12") == 0
        printed = capsys.readouterr().out
        assert "verified 12 documents" in printed
        assert "(tiny behind a server) against a plain float32 forward" in printed
        assert _score(corpus, tmp_path / "out", make_model(2), server, "--verify", "12") == 0
        (mean,) = (float(line.split()[2]) for line in capsys.readouterr().out.splitlines() if line.startswith("mean"))
        assert mean > 0.5, "another model's weights"
        assert float(printed.splitlines()[1].split()[2]) < 1e-4
        assert _score(corpus, tmp_path / "out", model, server, "--verify", "12") == 2
        assert "there are no *.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
