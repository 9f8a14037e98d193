"""Documents that a model dies of, through the command line: they are found and quarantined, and cost nobody else a number."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from transformers import PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.cluster import ray_cluster as ray_cluster_module
from rho_score.cluster import tasks
from rho_score.errors import RhoScoreError
from rho_score.stores.score_set import quarantined_documents
from tests.conftest import some_text
from tests.poison.model import losses_by_document, save_poisoned_model, write_texts
from tests.poison.poisoned import RUN
from tests.ray.conftest import digests

DEEDS = {"q": "segmentation fault", "j": "memory", "v": "a shape", "Z": "kernel", "X": "hang"}
HANG_S = 60  # as long as a unit may take; a document that hangs takes it as often as it is tried


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The small Llama with code of its own."""
    folder = tmp_path_factory.mktemp("poisoned") / "model"
    save_poisoned_model(folder, tokenizer, DEEDS)
    return folder


def _score(corpus: Path, output: Path, model: Path, *more: str) -> int:
    options = ["--model", str(model), "--trust-remote-code", "--id-column", "id", "--unit-bytes", "400", "--gpus-per-worker", "0",
               "--cpus-per-worker", "1", "--context", "32", "--dtype", "float32", "--no-compile", *more]  # fmt: skip
    return main(["score", str(corpus), str(output), *options])


@pytest.mark.parametrize("hangs", [False, pytest.param(True, marks=pytest.mark.long)])
def test_poison_is_quarantined_and_the_rest_is_as_if_it_were_not_there(
    hangs: bool, ray_cluster: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {f"d{i:02}": some_text(30, i) for i in range(16)}
    letters = [letter for letter in DEEDS if hangs or DEEDS[letter] != "hang"]
    poison = {f"d{i:02}": letter * 3 * RUN for i, letter in zip((2, 6, 9, 13, 15), letters, strict=False)}
    corpus = write_texts(tmp_path / "corpus", texts | poison)
    assert _score(corpus, tmp_path / "out", model, "--unit-timeout", str(HANG_S) if hangs else "600") == 3
    printed = capsys.readouterr().out
    assert f"documents in 16 = scored {16 - len(poison)} + quarantined {len(poison)}" in printed
    reasons = dict(quarantined_documents(_folder(tmp_path / "out"), 100))
    assert {name: DEEDS[poison[name][0]] for name in reasons} == {name: DEEDS[text[0]] for name, text in poison.items()}
    assert reasons["d02"] == "the model fails on it: it killed its worker 2 times when scored alone"
    assert "out of memory" in reasons["d06"]
    assert reasons["d09"] == "the model fails on it: RuntimeError: shape mismatch: a shape"
    assert (
        "killed its worker 2 times when scored alone: AcceleratorError: CUDA error: an illegal memory access"
        in reasons["d13"]
    )
    assert not hangs or f"times when scored alone: not done after {HANG_S} s (--unit-timeout)" in reasons["d15"]
    assert all(f"quarantined: {name}: " in printed for name in reasons)
    assert not list((tmp_path / "out" / "attempts").glob("*"))

    assert (
        _score(
            write_texts(tmp_path / "clean", {k: v for k, v in texts.items() if k not in poison}),
            tmp_path / "peace",
            model,
        )
        == 0
    )
    found, peace = losses_by_document(tmp_path / "out"), losses_by_document(tmp_path / "peace")
    assert found.keys() == peace.keys()
    for name, losses in peace.items():
        torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(losses), atol=2e-3, rtol=1e-3)


def test_quarantined_units_are_scored_once_more_and_no_others(ray_cluster: str, model: Path, tmp_path: Path) -> None:
    corpus = write_texts(tmp_path / "corpus", {f"d{i}": some_text(30, i) for i in range(6)} | {"d3": "v" * 3 * RUN})
    output = tmp_path / "out"
    assert _score(corpus, output, model, "--only-quarantined") == 2  # nothing is there yet
    assert _score(corpus, output, model) == 3
    undisturbed = digests(output)
    (quarantine,) = (output / "quarantine").iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in (output / "data").iterdir()}
    assert _score(corpus, output, model, "--only-quarantined") == 3
    after = {path.name: path.stat().st_mtime_ns for path in (output / "data").iterdir()}
    assert [name for name in before if before[name] != after[name]] == [quarantine.name]
    assert digests(output) == undisturbed


def _folder(path: Path) -> Any:
    from rho_score.files.folder import Folder

    return Folder(str(path))


def test_a_task_that_ends_its_worker_each_time_is_not_begun_for_ever(ray_cluster: str) -> None:
    @ray.remote(max_retries=-1)  # as Ray Data's tasks that read, tokenize and publish
    def deadly() -> None:
        tasks.TASK_RETRIES = 2
        tasks.check_attempts("reading s3://corpus/a.parquet (unit a)")
        os.kill(os.getpid(), signal.SIGKILL)

    with (
        pytest.raises(
            RhoScoreError, match=r"^reading s3://corpus/a.parquet \(unit a\) ended its worker 2 times; Ray's logs"
        ),
        ray_cluster_module.cluster(local_cpus=1),
    ):
        ray.get(deadly.remote())
