"""`--quantize fp8` on a GPU that multiplies FP8; skipped, with the reason, where there is none."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rho_score.inference.forward import Layout
from rho_score.inference.scorer import Scorer
from rho_score.models.fp8 import CAPABILITY
from rho_score.models.load import ModelSource, load_model
from tests.oracle import load_float32, plain_losses
from tests.unit.models.test_fp8 import calm_model, fp8_by_hand

pytest.importorskip("torchao", reason="torchao is not installed: pip install 'rho-score[fp8]'")
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < CAPABILITY,
    reason="no CUDA device of this machine multiplies FP8",
)


def _scorer(model: Path, **changes: Any) -> Scorer:
    settings = {"dtype": "bfloat16", "context": 64, "overlap": 8, "prefix_id": 0, "batch_tokens": 512}
    return Scorer(ModelSource(model=str(model), quantize="fp8"), **(settings | changes), device="cuda")


def _documents() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 400, n).astype(np.int32) for n in (60, 3, 17, 29, 60, 8, 150)]


@pytest.mark.parametrize("compile", [False, True])
def test_losses_are_near_those_in_float32_and_to_the_same_rounding_done_by_hand(tmp_path: Path, compile: bool) -> None:
    calm_model(tmp_path)
    scorer = _scorer(tmp_path, compile=compile)
    assert scorer.layout == Layout("packed", compiled=compile)
    ids = _documents()
    found = np.concatenate(scorer.score_documents(ids))
    exact, by_hand = (
        np.concatenate([plain_losses(model, one.tolist(), prefix=0, context=64, overlap=8) for one in ids])
        for model in (load_float32(tmp_path), fp8_by_hand(tmp_path))
    )
    error = np.abs(found - exact).mean()
    assert 1e-3 < error < 0.1
    assert np.abs(found - by_hand).mean() < error


def test_neighbours_change_no_bit(tmp_path: Path) -> None:
    calm_model(tmp_path)
    scorer = _scorer(tmp_path)
    one, *others = _documents()
    full = scorer.score_documents([*others, one])
    again = scorer.score_documents([*(other[::-1].copy() for other in others), one])
    assert full[-1].tobytes() == again[-1].tobytes()


def test_weights_of_the_body_take_a_byte_each(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=400, hidden_size=1024, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=128, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    body = LlamaForCausalLM(config)
    body.save_pretrained(tmp_path)
    weights = sum(module.weight.numel() for module in body.model.modules() if isinstance(module, torch.nn.Linear))
    taken = []
    for quantize in (None, "fp8"):
        gc.collect()
        before = torch.cuda.memory_allocated()
        source = ModelSource(model=str(tmp_path), quantize=quantize)  # type: ignore[arg-type]
        model = load_model(source, torch.bfloat16, torch.device("cuda"))
        gc.collect()
        taken.append(torch.cuda.memory_allocated() - before)
        del model
    assert taken[0] - taken[1] == pytest.approx(weights, rel=0.02)  # two bytes a weight, and one
