"""What only a GPU can show; skipped, with the reason, where there is none."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rho_score.inference.attention import packed_attention
from rho_score.inference.forward import Layout
from rho_score.inference.scorer import CUDA_BATCH_TOKENS, Scorer
from tests.families.tiny import CONTEXT, VOCABULARY, tiny_config, tiny_model
from tests.oracle import load_float32, plain_log_probabilities, plain_losses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def _documents(lengths: list[int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 400, n).astype(np.int32) for n in lengths]


def _scorer(model: Path, **changes: Any) -> Scorer:
    settings = {"dtype": "float16", "context": 32, "overlap": 8, "prefix_id": 0, "batch_tokens": 256}
    return Scorer(str(model), **(settings | changes), device="cuda")


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-3), ("float16", 2e-2), ("bfloat16", 2e-1)])
@pytest.mark.parametrize("batch_tokens", [256, 16])
def test_losses_on_the_gpu_are_those_of_a_plain_float32_forward(
    make_model: Callable[[int], Path], dtype: str, error: float, batch_tokens: int
) -> None:
    ids = _documents([1, 2, 31, 33, 90, 200])
    scorer = _scorer(make_model(1), dtype=dtype, batch_tokens=batch_tokens)
    assert scorer.layout.kind == "packed"
    model = load_float32(make_model(1))
    for document, losses in zip(ids, scorer.score_documents(ids), strict=True):
        expected = plain_losses(model, document.tolist(), prefix=0, context=32, overlap=8)
        assert np.abs(losses - expected).mean() <= error


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(("lengths", "past"), [([7, 30, 1], 0), ([16], 33)])
def test_the_variable_length_kernel_does_what_the_loop_does(lengths: list[int], past: int, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    n = sum(lengths)
    query = torch.randn(1, 4, n, 64, generator=generator)
    key, value = (torch.randn(1, 2, n + past, 64, generator=generator) for _ in range(2))
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    settings = {"max_length_q": max(lengths), "sliding_window": window}
    expected, _ = packed_attention(torch.nn.Identity(), query, key, value, None, cu_seq_lens_q=ends, **settings)
    on_gpu = (tensor.half().cuda() for tensor in (query, key, value))
    found, _ = packed_attention(torch.nn.Identity(), *on_gpu, None, cu_seq_lens_q=ends.cuda(), **settings)
    torch.testing.assert_close(found.float().cpu(), expected, atol=5e-3, rtol=5e-3)


def test_neighbours_change_no_bit(make_model: Callable[[int], Path]) -> None:
    scorer = _scorer(make_model(1), batch_tokens=512)
    one, *others = _documents([25, 3, 17, 29, 60, 8, 31, 12])
    full = scorer.score_documents([*others * 4, one])
    again = scorer.score_documents([*[other[::-1].copy() for other in others] * 4, one])
    assert full[-1].tobytes() == again[-1].tobytes()


def test_compiled_layers_and_signals(make_model: Callable[[int], Path]) -> None:
    ids = _documents([31, 5, 90])
    plain = _scorer(make_model(1), signals=("entropy", "rank")).score(ids)
    scorer = _scorer(make_model(1), signals=("entropy", "rank"), compile=True)
    assert scorer.layout == Layout("packed", compiled=True)
    compiled = scorer.score(ids)
    for a, b in zip(plain.loss, compiled.loss, strict=True):
        assert np.abs(a - b).mean() <= 2e-2
    assert all(np.isfinite(values).all() for values in compiled.signals["rank"])


def test_the_likeliest_tokens_on_the_gpu_are_those_of_a_plain_float32_forward(
    make_model: Callable[[int], Path],
) -> None:
    ids = _documents([31, 5, 90])
    found = _scorer(make_model(1), signals=("top-k",), top_k=4, dtype="float32").score(ids).signals
    model = load_float32(make_model(1))
    for document, words, log_p in zip(ids, found["top_ids"], found["top_log_p"], strict=True):
        every = plain_log_probabilities(model, document.tolist(), prefix=0, context=32, overlap=8)
        np.testing.assert_allclose(log_p, -np.sort(-every, axis=1)[:, :4], atol=2e-3)
        chosen = np.take_along_axis(every, words.astype(np.int64), axis=1)
        np.testing.assert_allclose(chosen, log_p, atol=2e-3)


def test_the_budget_comes_from_memory_and_is_halved_when_it_runs_out(
    make_model: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = _scorer(make_model(1), batch_tokens=None)
    assert CUDA_BATCH_TOKENS[0] <= scorer.passes.batch_tokens <= CUDA_BATCH_TOKENS[1]
    ids = _documents([200] * 400)
    expected = scorer.score_documents(ids)
    taken = torch.cuda.memory_allocated() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, taken + 0.0003))
    try:
        with caplog.at_level(logging.WARNING):
            found = scorer.score_documents(ids)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory: going on with" in caplog.text
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-2)


@pytest.mark.parametrize("family", ["phimoe", "gemma3_text", "llama4_text", "cohere2"])
def test_lengths_of_the_configuration_bind_on_the_gpu_too(family: str, tmp_path: Path) -> None:
    model = tiny_model(tiny_config(family))
    model.save_pretrained(tmp_path)
    settings = {"dtype": "float32", "context": CONTEXT, "prefix_id": 1, "batch_tokens": 1024}
    scorer = _scorer(tmp_path, **settings)
    for document, losses in zip(ids := _short(), scorer.score_documents(ids), strict=True):
        expected = plain_losses(model, document.tolist(), prefix=1, context=CONTEXT, overlap=8)
        assert np.abs(losses - expected).mean() <= 1e-3


def _short() -> list[np.ndarray]:
    return [one % VOCABULARY for one in _documents([300, 20, 200, 150])]
