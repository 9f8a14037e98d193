"""Whole commands on a GPU, workers and all; skipped, with the reason, where there is none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.files.folder import Folder
from rho_score.stores.score_set import quarantined_documents
from tests.conftest import save_model, some_text
from tests.oracle import load_float32, plain_losses
from tests.poison.model import losses_by_document, save_poisoned_model, write_texts
from tests.poison.poisoned import RUN

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
DEEDS = {"j": "allocation", "Z": "device assert"}  # of the GPU itself; the others are in tests/poison


def _score(corpus: Path, output: Path, model: Path, *more: str) -> int:
    options = ["--model", str(model), "--id-column", "id", "--unit-bytes", "400", "--context", "32", *more]
    return main(["score", str(corpus), str(output), *options])


@pytest.mark.parametrize("more", [[], ["--gpus-per-worker", "0.4", "--workers", "2"], ["--no-compile"]])
def test_a_job_gives_the_losses_of_a_plain_float32_forward(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, more: list[str]
) -> None:
    save_model(tmp_path / "model", 1, tokenizer)
    texts = {f"d{i:02}": some_text(40, i) for i in range(24)}
    assert _score(write_texts(tmp_path / "corpus", texts), tmp_path / "out", tmp_path / "model", *more) == 0
    found = losses_by_document(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {"device": "cuda", "dtype": "float16"}.items() <= manifest["parts"].items()
    model, own = load_float32(tmp_path / "model"), AutoTokenizer.from_pretrained(tmp_path / "model")
    for name, text in texts.items():
        ids = own(text, add_special_tokens=False)["input_ids"]
        expected = plain_losses(model, ids, prefix=manifest["parts"]["prefix_id"], context=32, overlap=8)
        assert np.abs(np.array(found[name]) - expected).mean() <= 2e-2


@pytest.mark.timeout(900)  # each death of a worker is another start of CUDA
def test_documents_that_break_the_gpu_are_quarantined_and_cost_nobody_else_a_number(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_poisoned_model(tmp_path / "model", tokenizer, DEEDS)
    texts = {f"d{i:02}": some_text(30, i) for i in range(16)}
    poison = {f"d{i:02}": letter * 3 * RUN for i, letter in zip((2, 9), DEEDS, strict=True)}
    options = ["--trust-remote-code", "--no-compile"]
    assert _score(write_texts(tmp_path / "corpus", texts | poison), tmp_path / "out", tmp_path / "model", *options) == 3
    reasons = dict(quarantined_documents(Folder(str(tmp_path / "out")), 100))
    assert reasons.keys() == poison.keys()
    assert "out of memory" in reasons["d02"]
    assert "device-side assert" in reasons["d09"]
    clean = write_texts(tmp_path / "clean", {name: text for name, text in texts.items() if name not in poison})
    assert _score(clean, tmp_path / "peace", tmp_path / "model", *options) == 0
    found, peace = losses_by_document(tmp_path / "out"), losses_by_document(tmp_path / "peace")
    assert found.keys() == peace.keys()
    for name, losses in peace.items():
        np.testing.assert_allclose(np.array(found[name]), np.array(losses), atol=2e-2)
