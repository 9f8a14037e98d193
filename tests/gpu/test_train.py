"""Training on a GPU; skipped, with the reason, where there is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rho_score.config import TrainConfig
from rho_score.files.folder import Folder
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer
from rho_score.stores.claim import claim
from rho_score.stores.training_run import TrainingRun
from rho_score.training.selective_loss import SelectiveLoss
from rho_score.training.settings import resolve_settings
from rho_score.training.worker import train_worker
from tests.stores import random_documents, write_scores

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def test_the_cut_on_a_gpu_is_that_on_a_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(10_000, generator=generator).round(decimals=2)
    eligible = torch.rand(10_000, generator=generator) < 0.9
    here = SelectiveLoss(ratio=0.37).select(scores, eligible)
    there = SelectiveLoss(ratio=0.37).cuda().select(scores.cuda(), eligible.cuda())
    assert torch.equal(here.mask, there.mask.cpu())
    assert float(here.threshold) == float(there.threshold)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_on_a_gpu_is_near_that_on_a_cpu(make_model: Callable[[int], Path], tmp_path: Path, dtype: str) -> None:
    documents = [ref for ref, _ in random_documents(200, seed=1)]
    model = make_model(2)
    sha256 = hash_tokenizer(load_tokenizer(str(model)))
    scores = write_scores(tmp_path / "scores", [[documents]], tokenizer=model, tokenizer_sha256=sha256)
    logs = []
    for gpus in (0, 1):
        config = TrainConfig(
            model=str(model), output=str(tmp_path / f"{gpus}"), scores=(str(scores),), ratio=0.5, steps=4,
            block_size=64, batch_tokens=256, gpus_per_worker=gpus, dtype=dtype if gpus else "float32",  # type: ignore[arg-type]
            cache=str(tmp_path / "cache"),
        )  # fmt: skip
        settings, manifest = resolve_settings(config, gpu_here=bool(gpus))
        claim(Folder(config.output), manifest, {})
        train_worker(settings, lambda *_: None)
        logs.append(TrainingRun.open(config.output).log())
    for column in ("loss", "loss_kept"):
        np.testing.assert_allclose(*(log[column].to_numpy() for log in logs), rtol=1e-3 if dtype == "float32" else 5e-2)
