import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    OPTConfig,
    PhiConfig,
    Qwen3Config,
)

from rho_score import scorer as scorer_module
from rho_score.errors import InputError
from rho_score.loss import Head
from rho_score.scorer import Scorer
from tests.oracle import load_float32, plain_losses

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.5, "head_dim": 8,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
WITHOUT = {k: v for k, v in SMALL.items() if k not in ("num_key_value_heads", "head_dim")}
FAMILIES = [
    Qwen3Config(**SMALL),
    Gemma2Config(**SMALL, final_logit_softcapping=3.0, query_pre_attn_scalar=8),
    CohereConfig(**SMALL, logit_scale=0.25),
    GraniteConfig(**SMALL, logits_scaling=4.0),
    GPTNeoXConfig(**WITHOUT),
    PhiConfig(**WITHOUT),
    FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, bos_token_id=0, eos_token_id=1),
    GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1),
    OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.5,
    ),
]  # fmt: skip


def _documents(vocabulary: int, lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, vocabulary, n).astype(np.int32) for n in lengths]


def _scorer(model: Path, **changes: Any) -> Scorer:
    settings = {"dtype": "float32", "context": 32, "overlap": 8, "prefix_id": 0, "batch_tokens": 64}
    return Scorer(str(model), **(settings | changes))


@pytest.mark.parametrize("prefix_id", [0, None])
@pytest.mark.parametrize(("context", "overlap"), [(32, 8), (7, 0), (16, 14)])
def test_losses_are_those_of_a_plain_forward(
    make_model: Callable[[int], Path], context: int, overlap: int, prefix_id: int | None
) -> None:
    ids = _documents(400, [0, 1, 2, 31, 32, 33, 34, 90, 5, 64])
    scored = _scorer(make_model(1), context=context, overlap=overlap, prefix_id=prefix_id).score_documents(ids)
    model = load_float32(make_model(1))
    for document, losses in zip(ids, scored, strict=True):
        expected = plain_losses(model, document.tolist(), prefix=prefix_id, context=context, overlap=overlap)
        assert losses.dtype == np.float32
        np.testing.assert_allclose(losses, expected, atol=2e-4, rtol=1e-4)
        assert np.isnan(losses).sum() == (prefix_id is None and len(document) > 0)


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_every_family_uses_the_fast_path_and_is_right(config: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    scorer = _scorer(tmp_path)
    assert scorer.fast
    model = load_float32(tmp_path)
    ids = _documents(97, [3, 20, 50])
    for document, losses in zip(ids, scorer.score_documents(ids), strict=True):
        expected = plain_losses(model, document.tolist(), prefix=0, context=32, overlap=8)
        np.testing.assert_allclose(losses, expected, atol=5e-4, rtol=1e-4)


def test_neighbours_and_order_do_not_matter(make_model: Callable[[int], Path]) -> None:
    scorer = _scorer(make_model(1))
    ids = _documents(400, [40, 3, 17, 29, 60, 8])
    together = scorer.score_documents(ids)
    backwards = scorer.score_documents(ids[::-1])[::-1]
    for i, document in enumerate(ids):
        alone = scorer.score_documents([document])[0]
        np.testing.assert_allclose(alone, together[i], atol=1e-4)
        np.testing.assert_allclose(backwards[i], together[i], atol=1e-4)


def test_the_same_documents_give_the_same_bits(make_model: Callable[[int], Path]) -> None:
    ids = _documents(400, [40, 3, 17, 29, 60, 8])
    first, second = (_scorer(make_model(1)).score_documents(ids) for _ in range(2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def test_a_wrong_fast_path_is_found_out_and_not_used(
    make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        scorer_module,
        "Head",
        type("Wrong", (), {"of": staticmethod(lambda model: Head(model.lm_head.weight, scale=0.5))}),
    )
    with caplog.at_level(logging.WARNING):
        scorer = _scorer(make_model(1))
    assert not scorer.fast
    assert "differs from the plain forward" in caplog.text
    (document,) = _documents(400, [50])
    expected = plain_losses(load_float32(make_model(1)), document.tolist(), prefix=0, context=32, overlap=8)
    np.testing.assert_allclose(scorer.score_documents([document])[0], expected, atol=2e-4)


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    BertLMHeadModel(BertConfig(**WITHOUT, is_decoder=False)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is not causal"):
        _scorer(tmp_path)


def test_what_overflows_in_float16_is_scored_in_a_wider_type(
    make_model: Callable[[int], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_float32(make_model(1))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[:, :] *= 3e5  # its activations pass 65,504
    model.save_pretrained(tmp_path)
    scorer = _scorer(tmp_path, dtype="float16")
    (document,) = _documents(400, [20])
    (losses,) = scorer.score_documents([document])
    assert scorer.is_finite(losses)
    assert "scoring them again in torch.bfloat16" in caplog.text
    expected = plain_losses(load_float32(tmp_path), document.tolist(), prefix=0, context=32, overlap=8)
    assert np.abs(losses - expected).mean() < 0.5  # bfloat16 of a model with wild weights
