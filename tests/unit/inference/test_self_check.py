"""The proof at load reaches beyond every length of the configuration, and what it cannot prove goes alone or is refused."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PhimoeConfig, RobertaConfig

from rho_score.errors import InputError
from rho_score.inference import self_check as proof
from rho_score.inference.scorer import Scorer
from rho_score.inference.self_check import RUN, long_document
from rho_score.models.load import load_model
from tests.families.sweep import Row, sweep
from tests.families.tiny import LENGTH, tiny_config, tiny_model
from tests.oracle import plain_losses

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97,
         "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, "initializer_range": 0.3}  # fmt: skip


def _saved(config: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    return model


def _scorer(folder: Path, **changes: Any) -> Scorer:
    settings = {"dtype": "float32", "context": 512, "overlap": 8, "prefix_id": 0, "batch_tokens": 1024}
    return Scorer(str(folder), **(settings | changes))


def test_a_window_that_lives_in_the_mask_alone_is_seen_behind_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Phi-MoE's attention is called without its window: packed, losses are nats off from token 201 on."""
    config = PhimoeConfig(
        **SMALL, sliding_window=200, max_position_embeddings=512, num_local_experts=4, num_experts_per_tok=2
    )
    model = _saved(config, tmp_path)
    with caplog.at_level(logging.WARNING):
        scorer = _scorer(tmp_path)
    assert scorer.layout.kind == "padded"
    assert "the packed layout is not used" in caplog.text
    assert "beyond sliding_window = 200" in caplog.text
    document = np.random.default_rng(0).integers(0, 97, 300)
    for ids in ([document], [document, document[:50], np.roll(document, 7)]):
        for one, loss in zip(ids, scorer.score_documents(ids), strict=True):
            np.testing.assert_allclose(
                loss, plain_losses(model, one.tolist(), prefix=0, context=512, overlap=8), atol=2e-4
            )


def test_a_fault_behind_one_length_does_not_drown_in_a_long_document() -> None:
    random = np.random.default_rng(0)
    expected = random.random(3000).astype(np.float32)
    found = expected + random.normal(0, 1e-6, 3000).astype(np.float32)
    assert proof._fault_behind({2900: "window"}, found, expected, torch.float32) is None
    found[2950:2960] += 3e-4  # 1e-6 in the mean of all
    assert "beyond window = 2900" in str(proof._fault_behind({2900: "window"}, found, expected, torch.float32))


@pytest.mark.parametrize("lengths", [[100], [100, 300], [64, 70, 80], [5000]])
def test_a_run_comes_again_right_behind_each_length(lengths: list[int]) -> None:
    document = long_document(np.random.default_rng(0), 50_000, lengths, 4096)
    assert len(document) <= 4096
    for length in lengths:
        if length + proof.APART + RUN < 4096:
            back = length + proof.APART
            same = document[back:] == document[:-back]
            assert np.convolve(same, np.ones(RUN), "valid").max() == RUN


def test_warnings_say_what_they_mean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Mamba goes padded, and only its chunks fail: that is no reason to say that it does not go padded."""
    tiny_model(tiny_config("mamba")).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        scorer = _scorer(tmp_path, context=320)
    assert scorer.layout.kind == "padded"
    assert "the padded layout is not used" not in caplog.text
    assert "windows longer than a pass go through the model whole, not in chunks" in caplog.text


def test_a_table_with_fewer_positions_than_the_configuration_says_is_refused_at_load(tmp_path: Path) -> None:
    """RoBERTa's positions begin behind the padding's id: of 514 there are 512."""
    config = RobertaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=97,
                           max_position_embeddings=130, is_decoder=True)  # fmt: skip
    _saved(config, tmp_path)
    with pytest.raises(InputError, match=r"fails on random tokens, at most 130 in a row.*smaller --context"):
        _scorer(tmp_path, context=130)
    with pytest.raises(InputError, match=r"fails on random tokens, at most 129 in a row"):
        _scorer(tmp_path, context=129, prefix_id=None)
    assert _scorer(tmp_path, context=128).layout.kind == "plain"


def _altered(monkeypatch: pytest.MonkeyPatch, alter: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Last hidden states, Shape (1, N, D), are altered from now on in every model that is loaded."""

    def load(*arguments: Any) -> Any:
        model = load_model(*arguments)
        forward = model.model.forward

        def altered(input_ids: torch.Tensor, **options: Any) -> Any:
            out = forward(input_ids, **options)
            out.last_hidden_state = alter(out.last_hidden_state)
            return out

        model.model.forward = altered
        return model

    monkeypatch.setattr("rho_score.inference.scorer.load_model", load)


def test_losses_that_depend_on_what_was_read_before_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As frequencies that stay those of the longest pass until one is short again."""
    _saved(LlamaConfig(**SMALL, max_position_embeddings=512, refresh_length=120), tmp_path)
    longest = 0

    def remember(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal longest
        n = hidden.shape[1]
        longest = n if n < 120 else max(longest, n)
        return hidden * (1 + longest / 100 if longest > 120 else 1)

    _altered(monkeypatch, remember)
    with pytest.raises(InputError, match=r"depend on what it read before.*Give a --context below 120"):
        _scorer(tmp_path)


def test_a_model_that_looks_ahead_only_in_long_documents_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _saved(LlamaConfig(**SMALL, max_position_embeddings=512, peeking_distance=150), tmp_path)
    _altered(monkeypatch, lambda h: h + h[:, 150:].mean(dim=1, keepdim=True) if h.shape[1] > 150 else h)
    with pytest.raises(InputError, match="is not causal: the loss of a token depends on tokens after it"):
        _scorer(tmp_path)


def test_losses_that_change_with_the_length_of_a_pass_go_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _saved(LlamaConfig(**SMALL, max_position_embeddings=512, switch_length=150), tmp_path)
    _altered(monkeypatch, lambda h: h * 2 if h.shape[1] > 150 else h)
    with caplog.at_level(logging.WARNING):
        assert _scorer(tmp_path).layout.kind == "plain"
    assert "changes with the length of its pass (switch_length = 150)" in caplog.text


# --- the sweep of families, in short: those with lengths, and one of each kind of layer; all: python -m tests.families

SHORT_FORM = {
    "llama": "packed", "gemma3_text": "packed", "gpt_oss": "padded", "phimoe": "padded", "qwen2_moe": "padded", "gpt_neo": "padded",
    "llama4_text": "padded", "cohere2": "packed", "modernbert-decoder": "plain", "recurrent_gemma": "plain", "mamba2": "padded",
    "jamba": "padded", "minimax": "padded", "deepseek_v32": "plain", "axk2": "plain", "doge": "padded", "inkling2_text": "padded",
    "bloom": "padded", "opt": "packed", "qwen3_next": None, "xlnet": "refused", "reformer": "refused", "cpmant": "refused",
}  # fmt: skip


@pytest.mark.parametrize("family", SHORT_FORM)
def test_no_family_is_wrong_without_a_warning(family: str, tmp_path: Path) -> None:
    row = sweep(family, tmp_path / "model")
    assert row.way == SHORT_FORM[family] or (SHORT_FORM[family] is None and row.is_scored), row
    assert not row.is_wrong, row
    assert row.way == "packed" or row.reason


def test_the_sweep_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the lengths hidden, the proof lets Phi-MoE go packed, and the sweep tells."""
    monkeypatch.setattr("rho_score.inference.self_check.special_lengths", lambda config, context: {})
    row: Row = sweep("phimoe", tmp_path / "model", sliding_window=LENGTH)
    assert row.way == "packed"
    assert row.is_wrong


@pytest.mark.parametrize("prefix_id", [0, None])
def test_a_window_one_short_of_the_context_is_seen(prefix_id: int | None, tmp_path: Path) -> None:
    """A pass has at most as many positions as the context: the last one alone is beyond the window."""
    config = PhimoeConfig(
        **SMALL, sliding_window=199, max_position_embeddings=512, num_local_experts=4, num_experts_per_tok=2
    )
    _saved(config, tmp_path)
    assert _scorer(tmp_path, context=200, prefix_id=prefix_id).layout.kind == "padded"
    assert _scorer(tmp_path, context=199, prefix_id=prefix_id).layout.kind == "packed"
