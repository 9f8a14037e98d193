import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from rho_score.errors import InputError
from rho_score.inference import forward as forward_module
from rho_score.inference.forward import Layout
from rho_score.inference.loss import Head
from rho_score.inference.scorer import Scorer
from rho_score.models.load import ModelSource
from tests.conftest import save_model
from tests.oracle import load_float32, plain_log_probabilities, plain_losses

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.5, "head_dim": 8,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
WITHOUT = {k: v for k, v in SMALL.items() if k not in ("num_key_value_heads", "head_dim")}
# Each family, and the way that it takes: packed, or padded where packing would let documents see each other.
FAMILIES = [
    (LlamaConfig(**SMALL), "packed"),
    (Qwen2Config(**SMALL), "packed"),
    (Qwen3Config(**SMALL), "packed"),
    (MistralConfig(**SMALL, sliding_window=8), "packed"),
    (GemmaConfig(**SMALL), "packed"),
    (Gemma2Config(**SMALL, final_logit_softcapping=3.0, query_pre_attn_scalar=8, sliding_window=8), "padded"),
    (
        Gemma3TextConfig(
            **SMALL, sliding_window=8, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8
        ),
        "packed",
    ),
    (CohereConfig(**SMALL, logit_scale=0.25), "packed"),
    (GraniteConfig(**SMALL, logits_scaling=4.0), "packed"),
    (Olmo2Config(**WITHOUT), "packed"),
    (MixtralConfig(**SMALL, num_local_experts=4), "packed"),
    (GPTNeoXConfig(**WITHOUT), "packed"),
    (PhiConfig(**WITHOUT), "packed"),
    (GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1), "packed"),
    (
        OPTConfig(
            vocab_size=97, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.5,
        ),
        "packed",
    ),
    (
        FalconConfig(
            vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, bos_token_id=0, eos_token_id=1
        ),
        "padded",
    ),
    (BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4), "padded"),
    (MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2), "padded"),
]  # fmt: skip


@pytest.mark.parametrize(("context", "layout"), [(128, "packed"), (160, "plain")])
def test_where_frequencies_depend_on_the_length_windows_go_alone(context: int, layout: str, tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "rope_theta": 1e4,
            "original_max_position_embeddings": 128, "factor": 2.0}  # fmt: skip
    torch.manual_seed(0)
    longer = WITHOUT | {"max_position_embeddings": 256}
    config = Phi3Config(**longer, rope_parameters=rope, original_max_position_embeddings=128)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_float32(tmp_path)
    ids = _documents(97, [3, 20, 200, 150])
    scorer = _scorer(tmp_path, context=context, batch_tokens=512)
    assert scorer.layout.kind == layout
    for document, losses in zip(ids, scorer.score_documents(ids), strict=True):
        expected = plain_losses(model, document.tolist(), prefix=0, context=context, overlap=8)
        np.testing.assert_allclose(losses, expected, atol=2e-4, rtol=1e-3)


def _documents(vocabulary: int, lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, vocabulary, n).astype(np.int32) for n in lengths]


def _scorer(model: Path | ModelSource, **changes: Any) -> Scorer:
    settings = {"dtype": "float32", "context": 32, "overlap": 8, "prefix_id": 0, "batch_tokens": 64}
    return Scorer(model if isinstance(model, ModelSource) else str(model), **(settings | changes))


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


@pytest.mark.parametrize(("config", "layout"), FAMILIES, ids=lambda value: getattr(value, "model_type", value))
def test_every_family_goes_its_fastest_way_and_is_right(config: Any, layout: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_float32(tmp_path)
    ids = _documents(97, [3, 20, 50])
    for batch_tokens in (64, 16, 4096):  # at 16 windows go in chunks, at 4096 what fills a pass up is longer than they
        scorer = _scorer(tmp_path, batch_tokens=batch_tokens)
        assert scorer.layout.kind == layout
        for document, losses in zip(ids, scorer.score_documents(ids), strict=True):
            expected = plain_losses(model, document.tolist(), prefix=0, context=32, overlap=8)
            np.testing.assert_allclose(losses, expected, atol=5e-4, rtol=1e-4)


def test_the_same_document_has_the_same_bits_alone_first_last_and_in_a_full_batch(
    make_model: Callable[[int], Path],
) -> None:
    scorer = _scorer(make_model(1), batch_tokens=512)  # passes have multiples of 32 positions
    one, *others = _documents(400, [25, 3, 17, 29, 60, 8, 31, 12])
    (alone,) = scorer.score_documents([one])
    for batch in ([one, *others], [*others, one], [*others * 6, one, *others * 6]):
        place = next(i for i, document in enumerate(batch) if document is one)
        assert scorer.score_documents(batch)[place].tobytes() == alone.tobytes()


def test_a_document_as_long_as_the_context_is_scored_exactly_in_chunks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL | {"max_position_embeddings": 4096, "initializer_range": 0.2})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    scorer = _scorer(tmp_path, context=4096, overlap=0, batch_tokens=256)
    ids = _documents(97, [3000, 10, 256, 257])
    model = load_float32(tmp_path)
    for document, losses in zip(ids, scorer.score_documents(ids), strict=True):
        expected = plain_losses(model, document.tolist(), prefix=0, context=4096, overlap=0)
        np.testing.assert_allclose(losses, expected, atol=5e-4, rtol=1e-4)


def test_a_hundred_thousand_tokens_in_windows(make_model: Callable[[int], Path]) -> None:
    (document,) = _documents(400, [100_000])
    scored = _scorer(make_model(1), context=64, overlap=16, batch_tokens=2048).score([document])
    assert scored.loss[0].shape == (100_000,)
    assert np.isfinite(scored.loss[0]).all()
    assert scored.positions - scored.padding == 100_000 + 16 * -(-(100_000 - 64) // 48)  # and no token more


def test_entropy_and_rank_come_from_the_same_pass(make_model: Callable[[int], Path]) -> None:
    ids = _documents(400, [30, 5])
    scorer = _scorer(make_model(1), signals=("rank", "entropy"))
    scored = scorer.score(ids)
    assert list(scored.signals) == ["entropy", "rank"]
    model = load_float32(make_model(1))
    for i, document in enumerate(ids):
        with torch.inference_mode():
            logits = model(torch.tensor([[0, *document.tolist()[:-1]]])).logits[0].double()
        log_p = logits.log_softmax(dim=1)
        targets = torch.from_numpy(document.astype(np.int64))[:, None]
        rank = (logits > logits.gather(1, targets)).sum(dim=1)
        np.testing.assert_allclose(scored.signals["entropy"][i], -(log_p.exp() * log_p).sum(dim=1), atol=1e-3)
        np.testing.assert_array_equal(scored.signals["rank"][i], rank)
    plain = _scorer(make_model(1)).score_documents(ids)
    assert all(np.array_equal(a, b) for a, b in zip(scored.loss, plain, strict=True))


@pytest.mark.parametrize("prefix", [0, None])
@pytest.mark.parametrize("layout", ["packed", "padded", "plain"])
def test_the_likeliest_tokens_are_those_of_a_plain_forward(
    make_model: Callable[[int], Path], prefix: int | None, layout: Literal["packed", "padded", "plain"]
) -> None:
    ids = _documents(400, [1, 0, 5, 90, 31])  # some longer than the context
    scorer = _scorer(make_model(1), signals=("top-k",), top_k=5, prefix_id=prefix)
    scorer.passes.forward.use_layout(Layout(layout))
    scored = scorer.score(ids)
    assert list(scored.signals) == ["top_log_p", "top_ids"]
    model = load_float32(make_model(1))
    for i, document in enumerate(ids):
        log_p = plain_log_probabilities(model, document.tolist(), prefix=prefix, context=32, overlap=8)
        values, words = torch.from_numpy(log_p).topk(5, dim=1)
        known = ~np.isnan(log_p[:, 0])
        assert known.sum() == len(document) - (prefix is None and len(document) > 0)
        assert scored.signals["top_ids"][i].shape == (len(document), 5)
        np.testing.assert_array_equal(scored.signals["top_ids"][i][known], words[known])
        np.testing.assert_allclose(scored.signals["top_log_p"][i], np.where(known[:, None], values, np.nan), atol=2e-4)
        losses = plain_losses(model, document.tolist(), prefix=prefix, context=32, overlap=8)
        np.testing.assert_allclose(scored.loss[i], losses, atol=5e-4, rtol=1e-4)


def test_the_likeliest_tokens_of_a_window_in_chunks(make_model: Callable[[int], Path]) -> None:
    (document,) = _documents(400, [50])
    scorer = _scorer(make_model(1), signals=("top-k",), top_k=3, context=64, batch_tokens=16)
    assert scorer.passes.chunked
    scored = scorer.score([document])
    log_p = plain_log_probabilities(load_float32(make_model(1)), document.tolist(), prefix=0, context=64, overlap=8)
    values, words = torch.from_numpy(log_p).topk(3, dim=1)
    np.testing.assert_array_equal(scored.signals["top_ids"][0], words)
    np.testing.assert_allclose(scored.signals["top_log_p"][0], values, atol=2e-4)


def test_out_of_memory_halves_the_batch_and_goes_on(
    make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = _scorer(make_model(1), batch_tokens=512, context=32)
    ids = _documents(400, [40, 3, 17, 29, 60, 8] * 8)
    expected = scorer.score_documents(ids)
    whole = scorer.passes.forward._packed

    def small_device(inputs: Any, size: int | None) -> torch.Tensor:
        if sum(len(one.tokens) for one in inputs) > 200:
            raise torch.OutOfMemoryError("no more")
        return whole(inputs, size)

    monkeypatch.setattr(scorer.passes.forward, "_packed", small_device)
    with caplog.at_level(logging.WARNING):
        found = scorer.score_documents(ids)
    assert scorer.passes.batch_tokens == 128
    assert "out of memory: going on with 128 tokens in a pass" in caplog.text
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_document_that_no_memory_is_enough_for_leaves_the_batch_as_it_was(
    make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = _scorer(make_model(1), batch_tokens=512, context=32)
    whole = scorer.passes.forward._packed

    def poisoned(inputs: Any, size: int | None) -> torch.Tensor:
        if any((one.tokens == 7).any() for one in inputs):
            raise torch.OutOfMemoryError("never")
        return whole(inputs, size)

    monkeypatch.setattr(scorer.passes.forward, "_packed", poisoned)
    good, bad = np.full(30, 5, np.int32), np.full(30, 7, np.int32)
    with pytest.raises(torch.OutOfMemoryError):
        scorer.score_documents([good, bad])
    assert scorer.passes.batch_tokens == 512
    assert np.isfinite(scorer.score_documents([good])[0]).all()


def test_compiled_layers_give_the_same_losses(make_model: Callable[[int], Path]) -> None:
    scorer = _scorer(make_model(1), compile=True, signals=("entropy", "rank"))
    assert scorer.layout == Layout("packed", compiled=True)
    ids = _documents(400, [40, 3, 17, 29, 60, 8])
    model = load_float32(make_model(1))
    for document, losses in zip(ids, scorer.score_documents(ids), strict=True):
        expected = plain_losses(model, document.tolist(), prefix=0, context=32, overlap=8)
        np.testing.assert_allclose(losses, expected, atol=5e-4, rtol=1e-4)


def test_where_nothing_compiles_it_says_so_and_goes_on(
    make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch.compiler.reset()
    with caplog.at_level(logging.WARNING), torch._inductor.utils.fresh_cache():
        scorer = _scorer(make_model(1), compile=True)
    torch.compiler.reset()
    assert scorer.layout == Layout("packed")
    assert "the packed compiled layout is not used" in caplog.text


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
        forward_module,
        "Head",
        type("Wrong", (), {"of": staticmethod(lambda model: Head(model.lm_head.weight, scale=0.5))}),
    )
    with caplog.at_level(logging.WARNING):
        scorer = _scorer(make_model(1))
    assert scorer.layout == Layout("plain")
    assert "differs from the plain forward" in caplog.text
    (document,) = _documents(400, [50])
    expected = plain_losses(load_float32(make_model(1)), document.tolist(), prefix=0, context=32, overlap=8)
    np.testing.assert_allclose(scorer.score_documents([document])[0], expected, atol=2e-4)


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BertLMHeadModel(BertConfig(**WITHOUT, is_decoder=False)).save_pretrained(tmp_path)
    monkeypatch.setattr(
        "rho_score.models.model_config.MODEL_FOR_MASKED_LM_MAPPING_NAMES", {}
    )  # as if its kind were not known
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
    scored = scorer.score([document])
    (losses,) = scored.loss
    assert scorer.is_finite(losses)
    assert scored.rescored == 1
    assert "scoring them again in torch.bfloat16" in caplog.text
    expected = plain_losses(load_float32(tmp_path), document.tolist(), prefix=0, context=32, overlap=8)
    assert np.abs(losses - expected).mean() < 0.5  # bfloat16 of a model with wild weights


def test_where_a_wider_type_has_no_room_the_reason_says_so(
    make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: torch.dtype) -> None:
        raise InputError("parts of it would lie on the CPU")  # as with several GPUs

    scorer = _scorer(make_model(1), dtype="bfloat16")
    assert "not even in float32" in scorer.overflow
    monkeypatch.setattr(scorer, "_load", full)
    monkeypatch.setattr(scorer, "is_finite", lambda loss: len(loss) < 20)
    scored = scorer.score(_documents(400, [10, 20]))
    assert scored.rescored == 1
    assert [np.isnan(loss).all() for loss in scored.loss] == [False, True]
    assert scorer.overflow == "its losses are not finite in bfloat16, and there was not enough memory to try float32"


@pytest.mark.parametrize(("quantize", "allowed"), [("int8", 0.5), ("int4", 3.0)])
def test_quantized_weights_are_near_and_neighbours_do_not_matter(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, quantize: Any, allowed: float
) -> None:
    # bitsandbytes packs four bits otherwise where a CPU has AVX512-BF16, and fails on narrower weights.
    save_model(tmp_path, 1, tokenizer, width=64)
    scorer = _scorer(ModelSource(model=str(tmp_path), quantize=quantize), batch_tokens=512)
    assert scorer.layout == Layout("packed")
    one, *others = _documents(400, [60, 3, 17, 29, 60, 8])
    exact = _scorer(tmp_path).score_documents([one])[0]
    full = scorer.score_documents([*others, one])[-1]
    assert 0 < np.abs(full - exact).mean() < allowed
    changed = scorer.score_documents([*(other[::-1].copy() for other in others), one])[-1]
    np.testing.assert_allclose(changed, full, atol=1e-5)
