"""Checkpoints whose weights are quantised already: checks what they need before they are loaded."""

import logging
from typing import Any

from transformers.quantizers.auto import AutoHfQuantizer, AutoQuantizationConfig

from rho_score.errors import InputError
from rho_score.models.directory import first_line


def quantization_of(config: Any) -> dict[str, Any] | None:
    """Returns what a configuration says about quantised weights; None if they are not quantised."""
    for part in (config, config.get_text_config()):
        if found := getattr(part, "quantization_config", None):
            return dict(found if isinstance(found, dict) else found.to_dict())
    return None


def without_outliers(config: Any) -> None:
    """Turns off the outlier columns of 8-bit weights of bitsandbytes.

    Outlier columns are found over all tokens of a pass. With them, a token's loss would depend on
    its neighbours, even on later ones.
    """
    found = getattr(config, "quantization_config", None)
    if isinstance(found, dict) and found.get("load_in_8bit"):
        found["llm_int8_threshold"] = 0.0


def check_quantized(config: Any, model: str, *, gpu: bool, here: bool) -> None:
    """Raises InputError if a quantised checkpoint would not load.

    gpu: True if it is loaded on a GPU. here: True if this process loads it. Otherwise only what
    every machine must have is checked, because this machine may lack the GPU that the workers have.

    Raises:
        InputError: transformers does not know the kind of quantisation, or something that it needs
            is missing. The message names both.
    """
    quantization = quantization_of(config)
    if quantization is None:
        return
    kind = quantization.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(quantization) else None)
    logging.getLogger("transformers.quantizers.auto").setLevel(logging.ERROR)
    if kind is None or not AutoHfQuantizer.supports_quant_method(quantization):
        raise InputError(
            f"the weights of {model} are quantised ({kind or 'its config.json does not say how'}) in a way that the installed "
            "transformers cannot load. Take the model's unquantised weights."
        )
    try:
        quantizer = AutoHfQuantizer.from_config(AutoQuantizationConfig.from_dict(quantization), pre_quantized=True)
        quantizer.validate_environment(device_map={"": "cuda" if gpu else "cpu"}, weights_only=True)
    except ImportError as error:
        raise InputError(
            f"the weights of {model} are quantised ({kind}), and loading them needs a package that is not installed: "
            f"{first_line(error)} Install it on every node, or take the model's unquantised weights."
        ) from error
    except Exception as error:
        if gpu and not here:
            return
        raise InputError(
            f"the weights of {model} are quantised ({kind}) and do not load {'here' if gpu else 'without a GPU'}: "
            f"{first_line(error)} Take the model's unquantised weights{'' if gpu else ', or give --gpus-per-worker'}."
        ) from error


def _is_bitsandbytes(quantization: dict[str, Any]) -> bool:
    return bool(quantization.get("load_in_8bit") or quantization.get("load_in_4bit"))
