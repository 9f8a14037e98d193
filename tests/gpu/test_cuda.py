"""What only a GPU can show; skipped, with the reason, where there is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rho_score.scorer import Scorer
from tests.oracle import load_float32, plain_losses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-3), ("float16", 2e-2), ("bfloat16", 2e-1)])
def test_losses_on_the_gpu_are_those_of_a_plain_float32_forward(
    make_model: Callable[[int], Path], dtype: str, error: float
) -> None:
    random = np.random.default_rng(0)
    ids = [random.integers(0, 400, n).astype(np.int32) for n in (1, 2, 31, 33, 90, 200)]
    scorer = Scorer(
        str(make_model(1)), dtype=dtype, context=32, overlap=8, prefix_id=0, batch_tokens=256, device="cuda"
    )
    assert scorer.way.layout == "packed"
    model = load_float32(make_model(1))
    for document, losses in zip(ids, scorer.score_documents(ids), strict=True):
        expected = plain_losses(model, document.tolist(), prefix=0, context=32, overlap=8)
        assert np.abs(losses - expected).mean() <= error
