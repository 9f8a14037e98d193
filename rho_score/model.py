"""Which model: its configuration, what it can do, its weights. Loading refuses pickles and remote code."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from rho_score.config import Quantize
from rho_score.errors import InputError
from rho_score.model_files import first_line, model_files, own_code, wants_own_code
from rho_score.quantized import check_quantized, quantization_of, without_outliers
from rho_score.weights import check_adapter, check_weights, named_weights, stored_names

LONGEST_DEFAULT_CONTEXT = 2048
_TABLES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
_REPORT = "transformers.modeling_utils"  # the logger that prints a table of weights in the middle of a log


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Which model, and how it is loaded."""

    model: str
    """A directory, or a Hugging Face id (`ID` or `ID@REVISION`)."""
    trust_remote_code: bool = False
    """Run the Python files that come with the model."""
    quantize: Quantize | None = None
    """Weights of the body in 8 or 4 bits (bitsandbytes)."""
    n_gpus: int = 1
    """GPUs of one node that the layers are spread over."""


def load_config(model: str, *, trust_remote_code: bool = False) -> Any:
    """The model's configuration (of an adapter: its base model's), checked to be that of a causal language model, alone or as
    the text part of a vision-language model, with safetensors.

    Raises:
        InputError: not a causal language model, or no weights as safetensors.
    """
    directory, adapter = model_files(model)
    if adapter is not None:
        _require("peft", f"{model} is an adapter, which", extra="adapters")
        check_adapter(adapter)
    if not (directory / "config.json").exists() and (files := sorted(directory.glob("*.gguf"))):
        raise InputError(
            f"{directory} holds GGUF files ({files[0].name}) and no config.json. GGUF is not scored with: take the model's "
            "safetensors, or write them by AutoModelForCausalLM.from_pretrained(DIRECTORY, gguf_file=FILE).save_pretrained(…)."
        )
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
        config.get_text_config()
    except Exception as error:  # a damaged file makes transformers raise errors of any kind
        if wants_own_code(error):
            raise InputError(own_code("model", directory)) from error
        reason = " ".join(str(error).split())
        raise InputError(f"no readable config.json in {directory}: {reason} Copy the model's own there.") from error
    named = named_weights(directory, getattr(config, "transformers_weights", None))
    if not trust_remote_code:
        _refuse_kernels(directory, config)
    _refuse_other_kinds(model, config, trust_remote_code)
    check_weights(directory, named)
    return config


def _refuse_other_kinds(model: str, config: Any, trust_remote_code: bool) -> None:
    """Refuse what is no causal language model, by what it is."""
    brings_class = trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or brings_class or _sees_images(config)
    known = known and isinstance(getattr(config.get_text_config(), "vocab_size", None), int)
    both_ways = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", None) is False
    if not (config.is_encoder_decoder or not known or both_ways):
        return
    kind = "an encoder and a decoder" if config.is_encoder_decoder else ""
    kind = "an encoder that sees both ways" if both_ways else kind
    named = ", ".join([*(getattr(config, "architectures", None) or []), *([kind] if kind else [])])
    raise InputError(
        f"{model} is a {config.model_type!r} model{f' ({named})' if named else ''}, not a causal language model; it gives no "
        "token losses."
    )


def _sees_images(config: Any) -> bool:
    """Whether it is a vision-language model that is loaded as one, though nothing but text is scored with it."""
    kinds = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return config.model_type in kinds and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _refuse_kernels(directory: Path, config: Any) -> None:
    """Refuse attention that is code from a hub, which the configuration may ask for."""
    for part in (config, config.get_text_config()):
        if "/" in str(attention := getattr(part, "_attn_implementation", None)):
            raise InputError(
                f"{directory}/config.json asks for the attention {attention!r}, which is code from the Hugging Face hub. "
                "Take the line out, or give --trust-remote-code."
            )


def load_model(source: ModelSource, dtype: torch.dtype, device: torch.device) -> Any:
    """The model for inference, arithmetic in `dtype`, on `device` or spread over the GPUs that this process sees; an adapter is
    merged into it. `weight_note` of it tells what of the files it does not use.

    Raises:
        InputError: weights that are missing or of other shapes, GPUs too small for it, a package that is not installed.
    """
    config = load_config(source.model, trust_remote_code=source.trust_remote_code)
    check_quantized(config, source.model, gpu=device.type == "cuda", here=True)
    spread = source.n_gpus > 1
    quantized = source.quantize is not None or quantization_of(config) is not None
    options: dict[str, Any] = {}
    if source.quantize is not None:
        refuse_quantizing_twice(source, config)
        _require("bitsandbytes", f"--quantize {source.quantize}")
        options["quantization_config"] = _quantization(source.quantize, dtype)
    if quantized:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at every product that it casts
    if spread or quantized:
        _require("accelerate", "a model on several GPUs, or a quantized one,")
        options["device_map"] = "auto" if spread else {"": str(device)}
    loaded = _load_weights(source, config, dtype, options)
    if outside := {str(place) for place in getattr(loaded, "hf_device_map", {}).values()} & {"cpu", "disk"}:
        if device.type != "cpu":
            raise InputError(
                f"{source.model} does not fit into {source.n_gpus} GPU(s): parts of it would lie on {sorted(outside)}. "
                "Raise --gpus-per-worker, or give --quantize int8."
            )
    elif not options:
        loaded = loaded.to(device)
    loaded = _with_adapter(loaded, source.model, quantized)
    return loaded.eval().requires_grad_(False)


def refuse_quantizing_twice(source: ModelSource, config: Any) -> None:
    """Raise InputError for --quantize of weights that are quantised already."""
    if source.quantize is not None and (found := quantization_of(config)) is not None:
        kind = found.get("quant_method", "bitsandbytes")
        raise InputError(f"the weights of {source.model} are quantised already ({kind}). Leave --quantize out.")


def _load_weights(source: ModelSource, config: Any, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    """The model with every one of its weights from the files: transformers makes up those that are missing."""
    loaded: Any
    report: Any
    directory = model_files(source.model).base
    without_outliers(config)
    auto: Any = AutoModelForImageTextToText if _sees_images(config) else AutoModelForCausalLM
    with _report_kept() as table:
        try:
            loaded, report = auto.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=source.trust_remote_code,
                output_loading_info=True,
                **_generation_options(directory),
                **options,
            )
        except torch.OutOfMemoryError:
            raise
        except ImportError as error:
            raise InputError(
                f"{source.model} needs a package that is not installed: {first_line(error)} Install it on every node."
            ) from error
        except Exception as error:  # whatever a model's code or a library of quantisation raises
            raise InputError(
                f"the weights in {source.model} do not load: {_worst_line(table) or first_line(error)} Check that they belong to "
                "its config.json."
            ) from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{source.model} lacks {len(missing)} of the weights that its config.json asks for, such as {missing[0]}. "
            "They would be random numbers: fetch the whole model."
        )
    loaded.weight_note = _weight_note(loaded, sorted(report["unexpected_keys"]), stored_names(directory))
    return loaded


def _generation_options(directory: Path) -> dict[str, Any]:
    """Another generation_config.json than the model's where that is not readable: nothing is generated here."""
    try:
        GenerationConfig.from_pretrained(directory)
    except OSError:  # there is none
        return {}
    except Exception:  # whatever odd values make of it
        return {"generation_config": GenerationConfig()}
    return {}


def _weight_note(model: Any, unused: list[str], stored: set[str]) -> str:
    """What of the files' weights the model does not use, and which of its own are not there but tied; empty where neither."""
    tied = sorted(name for name in getattr(model, "all_tied_weights_keys", None) or {} if name not in stored)
    parts = []
    if unused:
        parts.append(f"{len(unused)} in the checkpoint are not used by the model, such as {unused[0]}")
    if tied:
        parts.append(f"{len(tied)} not in the checkpoint are tied to others: {', '.join(tied[:3])}")
    return "; ".join(parts)


@contextmanager
def _report_kept() -> Iterator[list[str]]:
    """The tables of weights that transformers would print meanwhile. Its bars over the weights are not shown either."""
    kept: list[str] = []

    class Keep(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            kept.append(record.getMessage())
            return "LOAD REPORT" not in kept[-1]

    told = transformers.utils.logging
    logger, keep, bars = told.get_logger(_REPORT), Keep(), told.is_progress_bar_enabled()
    logger.addFilter(keep)
    told.disable_progress_bar()
    try:
        yield kept
    finally:
        logger.removeFilter(keep)
        if bars:
            told.enable_progress_bar()


def _worst_line(tables: list[str]) -> str:
    """The first weight that did not fit, of a table that transformers prints: its name and what is wrong."""
    for line in re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(tables)).splitlines():
        cells = [cell.strip() for cell in line.split("|") if cell.strip()]
        if len(cells) > 1 and cells[1] in ("MISMATCH", "CONVERSION"):
            return f"{cells[0]}: {'; '.join(cells[2:]) or cells[1].lower()}."
    return ""


def _with_adapter(loaded: Any, model: str, quantized: bool) -> Any:
    """The model with the adapter of its directory merged into its weights; as it is, where there is none."""
    adapter = model_files(model).adapter
    if adapter is None:
        return loaded
    if quantized:
        raise InputError(
            f"{model} is an adapter of a quantised model, into which it cannot be merged exactly. Name the unquantised base model "
            "in its adapter_config.json, and leave --quantize out."
        )
    from peft import PeftModel

    note = loaded.weight_note
    try:
        loaded = PeftModel.from_pretrained(loaded, adapter, use_safetensors=True).merge_and_unload(safe_merge=True)
    except Exception as error:  # whatever peft says of an adapter that is of another model or cannot be merged
        raise InputError(
            f"the adapter {model} does not go into its base model: {first_line(error)} Check base_model_name_or_path in its "
            "adapter_config.json, or merge it yourself and save the whole model."
        ) from error
    loaded.weight_note = note
    return loaded


def _quantization(quantize: Quantize, dtype: torch.dtype) -> BitsAndBytesConfig:
    """As `quantized.without_outliers`, for weights that are quantised as they are loaded."""
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _require(package: str, what: str, *, extra: str = "large") -> None:
    if find_spec(package) is None:
        raise InputError(f"{what} needs the package {package}: pip install 'rho-score[{extra}]' on every node.")


def longest_context(config: Any) -> int | None:
    """The most positions that the model was made for; None where its configuration does not say."""
    text = config.get_text_config()
    return next((int(found) for name in _TABLES if (found := getattr(text, name, None))), None)


def default_context(config: Any) -> int:
    """The model's longest context, at most 2048 (the paper's)."""
    return min(longest_context(config) or LONGEST_DEFAULT_CONTEXT, LONGEST_DEFAULT_CONTEXT)


def resolve_dtype(dtype: str, *, gpu: bool) -> str:
    """`auto` made concrete: float16 where the device computes it (CUDA, AMX-FP16), else bfloat16 (AMX-BF16), else float32.

    Mean error to float32 on SmolLM2-135M: float16 4.5e-3 nats, bfloat16 2.8e-2 to 3.7e-2 (docs/decisions/004).
    """
    if dtype != "auto":
        return dtype
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if not gpu and cpuinfo.exists() else set()
    if gpu or "amx_fp16" in flags:
        return "float16"
    return "bfloat16" if "amx_bf16" in flags else "float32"
