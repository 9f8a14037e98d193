"""`--quantize fp8`: what it refuses, and the settings that torchao is given.

No CPU multiplies FP8 as a GPU does, and the library refuses CPUs. The tests of its numbers lift that refusal: torch then
computes the same scaled products in its own reference kernels. `make test-fp8` runs them; tests/gpu has those on a GPU.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.errors import InputError
from rho_score.inference.forward import Layout
from rho_score.inference.scorer import Scorer
from rho_score.inference.self_check import FP8, STEADY, TOLERANCE
from rho_score.models import directory, fp8, load
from rho_score.models.fp8 import check_fp8
from rho_score.models.load import ModelSource, load_model
from rho_score.models.model_config import resolve_dtype
from tests.conftest import save_model
from tests.oracle import load_float32, plain_losses


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package counts as installed."""
    monkeypatch.setattr(directory, "find_spec", lambda name: object())


def test_without_the_package_the_remedy_is_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--quantize fp8 needs the package torchao.*rho-score\[fp8\]"):
        check_fp8(torch.bfloat16, gpu=True, here=False)


@pytest.mark.parametrize(
    ("capability", "refused"), [((7, 5), True), ((8, 0), True), ((8, 6), True), ((8, 9), False), ((9, 0), False)]
)
def test_a_gpu_without_fp8_is_refused_by_name(
    installed: None, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], refused: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla X")
    check_fp8(torch.bfloat16, gpu=True, here=False)  # another machine's GPU is not this one
    if not refused:
        check_fp8(torch.bfloat16, gpu=True, here=True)
        return
    with pytest.raises(InputError, match=rf"8\.9 or higher, but Tesla X has {capability[0]}\.{capability[1]}\. Give"):
        check_fp8(torch.bfloat16, gpu=True, here=True)


def test_what_cannot_run_is_refused_before_anything_is_written(
    installed: None, make_model: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    command = ["score", str(tmp_path / "a.jsonl"), str(tmp_path / "out"), "--model", str(make_model(1))]
    for options, told in (
        (["--gpus-per-worker", "0"], "needs a GPU that computes in FP8. Give --gpus-per-worker"),
        (["--gpus-per-worker", "1", "--dtype", "float16"], "computes in bfloat16 between its products, not in float16"),
    ):
        assert main([*command, "--quantize", "fp8", *options]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="give --quantize int8"):
        load_model(ModelSource(model=str(make_model(1)), quantize="fp8"), torch.bfloat16, torch.device("cpu"))


def test_the_dtype_of_fp8_is_bfloat16() -> None:
    assert resolve_dtype("auto", gpu=True, quantize="fp8") == "bfloat16"
    assert resolve_dtype("auto", gpu=True, quantize="int8") == resolve_dtype("auto", gpu=True) == "float16"
    assert resolve_dtype("float32", gpu=True, quantize="fp8") == "float32"  # which is then refused


def test_what_may_differ_between_layouts_is_wider_than_in_bfloat16_but_neighbours_may_not_show() -> None:
    assert TOLERANCE[FP8] > TOLERANCE[torch.bfloat16]
    assert STEADY[FP8] == STEADY[torch.bfloat16]


# --- with the package


@pytest.fixture
def torchao_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao takes a CPU."""
    pytest.importorskip("torchao", reason="torchao is not installed; see make test-fp8")
    from torchao.quantization import quant_api

    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda granularity: None)
    monkeypatch.setattr(load, "check_fp8", lambda *_, **__: None)


def calm_model(folder: Path) -> None:
    """A tiny random Llama with weights of the usual size."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.1, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def fp8_by_hand(folder: Path) -> Any:
    """The model in float32, with weights and inputs of the body's products rounded to FP8, each row with its scale."""
    model = load_float32(folder)

    def rounded(values: torch.Tensor) -> torch.Tensor:
        scale = values.abs().amax(dim=-1, keepdim=True) / 448
        return (values / scale).to(torch.float8_e4m3fn).float() * scale

    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = rounded(module.weight.data)
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    return model


def _scorer(model: Path, **changes: Any) -> Scorer:
    settings = {"dtype": "bfloat16", "context": 64, "overlap": 8, "prefix_id": 0, "batch_tokens": 512}
    return Scorer(ModelSource(model=str(model), quantize="fp8"), **(settings | changes))


def test_the_library_is_given_a_scale_for_each_row_and_the_body_alone(
    torchao_on_cpu: None, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    from torchao.quantization import Float8Tensor, PerRow
    from torchao.quantization.quantize_.common import KernelPreference

    settings = fp8.fp8_settings().quant_type
    assert settings.granularity == [PerRow(), PerRow()]  # of activations and of weights
    assert settings.weight_dtype == settings.activation_dtype == torch.float8_e4m3fn
    assert settings.kernel_preference is KernelPreference.TORCH
    save_model(tmp_path, 1, tokenizer, width=64)
    source = ModelSource(model=str(tmp_path), quantize="fp8")
    model = load_model(source, torch.bfloat16, torch.device("cpu"))
    in_fp8 = {name for name, weight in model.named_parameters() if isinstance(weight, Float8Tensor)}
    assert in_fp8 == {name for name, _ in model.named_parameters() if "_proj." in name}
    for name in in_fp8:
        weight = model.get_parameter(name)
        assert weight.qdata.dtype == torch.float8_e4m3fn
        assert weight.scale.shape == (weight.shape[0], 1)
        assert weight.act_quant_kwargs.granularity == PerRow()
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16
    assert not isinstance(model.get_output_embeddings().weight, Float8Tensor)


def test_losses_in_fp8_are_near_and_neighbours_do_not_matter(torchao_on_cpu: None, tmp_path: Path) -> None:
    calm_model(tmp_path)
    scorer = _scorer(tmp_path)
    assert scorer.layout == Layout("packed")
    random = np.random.default_rng(0)
    one, *others = [random.integers(0, 400, n).astype(np.int32) for n in (60, 3, 17, 29, 60, 8)]
    full = scorer.score_documents([*others, one])[-1]
    exact = plain_losses(load_float32(tmp_path), one.tolist(), prefix=0, context=64, overlap=8)
    in_fp8 = plain_losses(fp8_by_hand(tmp_path), one.tolist(), prefix=0, context=64, overlap=8)
    error = np.abs(full - exact).mean()
    assert 1e-3 < error < 0.1
    assert np.abs(full - in_fp8).mean() < error  # nearer to the same rounding done by hand
    changed = scorer.score_documents([*(other[::-1].copy() for other in others), one])[-1]
    assert changed.tobytes() == full.tobytes()


def test_with_one_scale_for_all_rows_a_token_would_depend_on_later_ones(
    torchao_on_cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchao import quantization

    monkeypatch.setattr(quantization, "PerRow", quantization.PerTensor)
    calm_model(tmp_path)
    losses = []
    model = load_model(ModelSource(model=str(tmp_path), quantize="fp8"), torch.bfloat16, torch.device("cpu"))
    for last in (5, 90, 300):
        losses.append(plain_losses(model, [3, 4, 5, 6, last], prefix=0, context=64, overlap=8)[:4])
    assert np.ptp(losses, axis=0).max() > 0


@pytest.mark.long  # half a minute of compiling
def test_layers_in_fp8_are_compiled(torchao_on_cpu: None, tmp_path: Path) -> None:
    calm_model(tmp_path)
    assert _scorer(tmp_path, compile=True).layout == Layout("packed", compiled=True)


def test_a_document_that_overflows_is_scored_again_without_fp8(
    torchao_on_cpu: None, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, 1, tokenizer, width=64)
    scorer = _scorer(tmp_path)
    one = np.arange(3, 40, dtype=np.int32)
    monkeypatch.setattr(scorer, "is_finite", lambda loss: False)
    scored = scorer.score([one])
    assert scored.rescored == 1
    expected = plain_losses(load_float32(tmp_path), one.tolist(), prefix=0, context=64, overlap=8)
    np.testing.assert_allclose(scored.loss[0], expected, atol=1e-3)
