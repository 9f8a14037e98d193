"""Loading: adapters, quantised checkpoints, prefixes, what is said of weights, and errors that nobody foresaw."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from rho_score.cli import main
from rho_score.errors import InputError, RhoScoreError
from rho_score.inference.scorer import Scorer
from rho_score.models.identity import model_identity
from rho_score.models.load import ModelSource, load_model
from rho_score.models.tokenizer import load_tokenizer, prefix_id
from rho_score.scoring.live import Reporter
from rho_score.scoring.settings import ScorerSettings
from rho_score.scoring.worker import ScoreUnit, WorkerSettings
from tests.oracle import load_float32, plain_losses

IDS = np.arange(50) % 97 + 3
CUT = {"context": 32, "overlap": 8}


@pytest.fixture
def model(tmp_path: Path, make_model: Callable[[int], Path]) -> Path:
    return Path(shutil.copytree(make_model(1), tmp_path / "model"))


def _scorer(model: Path, **changes: Any) -> Scorer:
    return Scorer(str(model), **({"dtype": "float32", "prefix_id": 0} | CUT | changes))


def _change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _adapter(base: Path, folder: Path, **options: Any) -> Path:
    """A LoRA adapter with random weights that change the losses."""
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, **options)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config).save_pretrained(folder)
    _change(folder / "adapter_config.json", base_model_name_or_path=str(base))
    return folder


def test_an_adapter_is_scored_with_its_base_model(model: Path, tmp_path: Path) -> None:
    adapter = _adapter(model, tmp_path / "adapter")
    (loss,) = _scorer(adapter).score_documents([IDS])
    own = PeftModel.from_pretrained(load_float32(model), adapter)  # not merged: another way to the same numbers
    np.testing.assert_allclose(loss, plain_losses(own, IDS.tolist(), prefix=0, **CUT), atol=2e-4)
    assert np.abs(loss - _scorer(model).score_documents([IDS])[0]).mean() > 1e-2
    assert prefix_id(load_tokenizer(str(adapter))) == prefix_id(load_tokenizer(str(model)))


def test_an_adapters_identity_is_that_of_both(model: Path, tmp_path: Path) -> None:
    adapter = _adapter(model, tmp_path / "adapter")
    base, both = model_identity(str(model)), model_identity(str(adapter))
    assert base.items() <= both.items()
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, adapter / "adapter_model.safetensors")
    assert model_identity(str(adapter))["adapter_sha256"] != both["adapter_sha256"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder, _: _change(folder / "adapter_config.json", base_model_name_or_path=None), "names no base model"),
        (lambda folder, _: _change(folder / "adapter_config.json", base_model_name_or_path="/no/such"), "whose base model is not found"),
        (lambda folder, _: (folder / "adapter_model.safetensors").write_bytes(b"x"), "not a readable safetensors file"),
        (lambda folder, patch: patch.setattr("rho_score.models.directory.find_spec", lambda name: None), r"needs the package peft.*rho-score\[adapters\]"),
    ],
    ids=["no base named", "no base there", "weights cut off", "no peft"],
)  # fmt: skip
def test_what_is_wrong_with_an_adapter_is_told_before_anything_runs(
    spoil: Callable[[Path, pytest.MonkeyPatch], object], words: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    adapter = _adapter(model, tmp_path / "adapter")
    spoil(adapter, monkeypatch)
    with pytest.raises(InputError, match=words):
        _scorer(adapter)


def test_an_adapter_of_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    adapter = _adapter(model, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: value[:, :2].contiguous() for name, value in weights.items()}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(InputError, match="cannot be merged into its base model"):
        _scorer(adapter)


# --- already quantised checkpoints


@pytest.mark.parametrize("how", ["int8", "int4", "fp8"])
def test_a_quantised_checkpoint_gives_the_librarys_own_losses(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=400,
                         num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.1)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "full")
    if how == "fp8":
        _write_fp8(tmp_path / "full", tmp_path / how)
    else:
        options = {"load_in_8bit": True} if how == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
        quantized = AutoModelForCausalLM.from_pretrained(
            tmp_path / "full", quantization_config=BitsAndBytesConfig(**options), device_map={"": "cpu"}, dtype=torch.float32
        )  # fmt: skip
        quantized.save_pretrained(tmp_path / how)
    config = AutoConfig.from_pretrained(tmp_path / how)
    if how == "int8":  # outlier columns are found over all tokens: what is right here has none
        assert config.quantization_config["llm_int8_threshold"] == 6
        config.quantization_config["llm_int8_threshold"] = 0.0
    own = AutoModelForCausalLM.from_pretrained(
        tmp_path / how, config=config, device_map={"": "cpu"}, dtype=torch.float32
    ).eval()
    scorer = _scorer(tmp_path / how)
    (loss,) = scorer.score_documents([IDS])
    np.testing.assert_allclose(loss, plain_losses(own, IDS.tolist(), prefix=0, **CUT), atol=2e-3)
    (full,) = _scorer(tmp_path / "full").score_documents([IDS])
    assert 1e-3 < np.abs(loss - full).mean() < 0.5  # quantised it is, and the same model
    with pytest.raises(InputError, match=r"quantised already \((bitsandbytes|fp8)\)\. Leave --quantize out"):
        load_model(ModelSource(model=str(tmp_path / how), quantize="int8"), torch.float32, torch.device("cpu"))


def _write_fp8(full: Path, folder: Path) -> None:
    """Weights of the projections in float8, a scale for each block of 128 x 128."""
    shutil.copytree(full, folder)
    weights = {}
    for name, weight in load_file(full / "model.safetensors").items():
        weights[name] = weight
        if "proj" in name:
            blocks = weight.reshape(weight.shape[0] // min(128, weight.shape[0]), -1, weight.shape[1] // 128, 128)
            scale = blocks.abs().amax(dim=(1, 3)) / 448
            weights[name] = (blocks / scale[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
            weights[f"{name}_scale_inv"] = scale
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    own = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    _change(folder / "config.json", quantization_config=own)


KINDS = {
    "gptq": {"bits": 4, "group_size": 128},
    "awq": {"bits": 4, "group_size": 128},
    "compressed-tensors": {"format": "pack-quantized", "config_groups": {}},
    "aqlm": {},
    "hqq": {"weight_quant_params": {"nbits": 4}},
    "quanto": {"weights": "int8"},
    "eetq": {},
    "vptq": {},
    "spqr": {},
    "higgs": {},
    "fbgemm_fp8": {},
    "auto-round": {"bits": 4, "group_size": 128},
    "a-new-kind": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_checkpoint_that_does_not_load_is_refused_by_name_before_anything_runs(
    kind: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _change(model / "config.json", quantization_config={"quant_method": kind, **KINDS[kind]})
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    assert main(["score", str(tmp_path / "a.jsonl"), str(tmp_path / "out"), "--model", str(model)]) == 2
    told = capsys.readouterr().err
    assert f"are quantised ({kind})" in told
    assert "unquantised weights" in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


# --- the prefix


def test_a_prefix_is_found_in_config_json(model: Path, tmp_path: Path) -> None:
    named = load_tokenizer(str(model))
    assert named.bos_token_id == 0
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (model / name).exists():
            _change(model / name, bos_token=None, eos_token=None)
    tokenizer = load_tokenizer(str(model))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (named.bos_token_id, named.eos_token_id)
    texts = ["<s> one </s>", "two"]
    assert tokenizer(texts, split_special_tokens=True)["input_ids"] == named(texts, split_special_tokens=True, add_special_tokens=False)["input_ids"]  # fmt: skip
    _change(model / "config.json", bos_token_id=None, eos_token_id=[1, 2])
    assert prefix_id(load_tokenizer(str(model))) == 1
    _change(model / "config.json", bos_token_id=4000, eos_token_id=None)  # no id of the tokenizer
    assert prefix_id(load_tokenizer(str(model))) is None


# --- what is said of weights, and of errors


def test_one_line_tells_of_weights_that_are_not_used_or_tied(
    model: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _scorer(model).weight_note == "1 not in the checkpoint are tied to others: lm_head.weight"
    weights = load_file(model / "model.safetensors")
    save_file({**weights, "other.weight": torch.ones(2)}, model / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING):
        note = _scorer(model).weight_note
    assert note.startswith(
        "1 in the checkpoint are not used by the model, such as other.weight; 1 not in the checkpoint"
    )
    assert "LOAD REPORT" not in caplog.text + capfd.readouterr().err


def test_a_weight_of_another_shape_is_named(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    save_file({**weights, "model.norm.weight": torch.ones(3)}, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"do not load: model\.norm\.weight: .*3"):
        _scorer(model)


def test_whatever_loading_raises_is_one_final_error(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(*_: object) -> Scorer:
        raise AttributeError("module 'kernels' has no attribute 'fused'")

    monkeypatch.setattr("rho_score.scoring.worker._load", load)
    monkeypatch.setattr("rho_score.scoring.worker.node_name", lambda: "node")
    scorer = ScorerSettings(
        model=ModelSource(model=str(model)), dtype="float32", context=8, overlap=0, prefix_id=None, batch_tokens=None,
        signals=(), compile=False,
    )  # fmt: skip
    settings = WorkerSettings(
        scorer=scorer, identity={}, threads=1, gpus=0, precision="float32", output=str(tmp_path / "out"), run="a",
        limit_s=60, hide_context=False,
    )  # fmt: skip
    worker = ScoreUnit(settings, Reporter(None, every_s=1.0))
    with pytest.raises(
        RhoScoreError, match=r"does not load on .*AttributeError: module 'kernels' has no attribute 'fused'"
    ):
        worker(None)  # type: ignore[arg-type]
