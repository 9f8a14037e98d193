"""A model's configuration: what kind of model it is, the length of its context, and its dtype."""

from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from rho_score.config import Quantize
from rho_score.errors import InputError
from rho_score.models.directory import model_files, own_code, require_package, wants_own_code
from rho_score.models.weights import check_adapter, check_weights, named_weights

LONGEST_DEFAULT_CONTEXT = 2048
_TABLES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")


def load_config(model: str, *, trust_remote_code: bool = False, weights: bool = True) -> Any:
    """Returns the model's configuration, or that of its base model for an adapter, after checks.

    The model must be a causal language model, alone or as the text part of a vision-language model,
    and its weights must be safetensors. Without `weights`, these need not be there.

    Raises:
        InputError: the configuration is not readable, the model is not a causal language model, or
            it has no weights as safetensors.
    """
    directory, adapter = model_files(model, weights=weights)
    if adapter is not None and weights:
        require_package("peft", f"{model} is an adapter, which", extra="adapters")
        check_adapter(adapter)
    if not (directory / "config.json").exists() and (files := sorted(directory.glob("*.gguf"))):
        raise InputError(
            f"{directory} holds GGUF files ({files[0].name}) and no config.json. GGUF files cannot be used for scoring. Take the model's "
            "safetensors, or write them with AutoModelForCausalLM.from_pretrained(DIRECTORY, gguf_file=FILE).save_pretrained(…)."
        )
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
        config.get_text_config()
    except Exception as error:  # a damaged file makes transformers raise errors of any kind
        if wants_own_code(error):
            raise InputError(own_code("model", directory)) from error
        reason = " ".join(str(error).split())
        raise InputError(
            f"there is no readable config.json in {directory}: {reason} Copy the model's own there."
        ) from error
    named = named_weights(directory, getattr(config, "transformers_weights", None)) if weights else None
    if not trust_remote_code:
        _refuse_kernels(directory, config)
    _refuse_other_kinds(model, config, trust_remote_code)
    if named is not None:
        check_weights(directory, named)
    return config


def _refuse_other_kinds(model: str, config: Any, trust_remote_code: bool) -> None:
    """Raises InputError unless it is a causal language model; the message says what it is."""
    brings_class = trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or brings_class or sees_images(config)
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


def sees_images(config: Any) -> bool:
    """True if it is a vision-language model that must be loaded as one.

    Only text is scored with it, too.
    """
    kinds = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return config.model_type in kinds and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _refuse_kernels(directory: Path, config: Any) -> None:
    """Raises InputError if the configuration asks for attention that is code from a hub."""
    for part in (config, config.get_text_config()):
        if "/" in str(attention := getattr(part, "_attn_implementation", None)):
            raise InputError(
                f"{directory}/config.json asks for the attention {attention!r}, which is code from the Hugging Face hub. "
                "Remove that line, or give --trust-remote-code."
            )


def longest_context(config: Any) -> int | None:
    """Returns the most positions the model was made for; None if its configuration does not say."""
    text = config.get_text_config()
    return next((int(found) for name in _TABLES if (found := getattr(text, name, None))), None)


def default_context(config: Any) -> int:
    """Returns the model's longest context, but at most 2048, which is the paper's context."""
    return min(longest_context(config) or LONGEST_DEFAULT_CONTEXT, LONGEST_DEFAULT_CONTEXT)


def resolve_dtype(dtype: str, *, gpu: bool, quantize: Quantize | None = None) -> str:
    """Returns `dtype`, or for `auto` the dtype that suits the device.

    That is float16 where the device computes in it (CUDA, AMX-FP16), else bfloat16 (AMX-BF16), else
    float32. Mean difference from float32 on SmolLM2-135M: float16 4.5e-3 nats, bfloat16 2.8e-2 to
    3.7e-2 (docs/decisions/004). FP8 is computed between bfloat16 values alone.
    """
    if dtype != "auto":
        return dtype
    if quantize == "fp8":
        return "bfloat16"
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if not gpu and cpuinfo.exists() else set()
    if gpu or "amx_fp16" in flags:
        return "float16"
    return "bfloat16" if "amx_bf16" in flags else "float32"
