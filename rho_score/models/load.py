"""Loads a model in a dtype, quantized or spread over GPUs, with an adapter merged into it.

No pickle is ever read.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    GenerationConfig,
)

from rho_score.config import Quantize
from rho_score.errors import InputError
from rho_score.models.directory import first_line, model_files, require_package
from rho_score.models.fp8 import check_fp8, fp8_settings
from rho_score.models.model_config import (
    load_config,
    sees_images,
)
from rho_score.models.quantized import check_quantized, quantization_of, without_outliers
from rho_score.models.weights import stored_names

_REPORT = "transformers.modeling_utils"  # its logger prints a table of weights into the log


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Which model is loaded, and how."""

    model: str
    """A directory, or a Hugging Face id (`ID` or `ID@REVISION`)."""
    trust_remote_code: bool = False
    """True to run the Python files that come with the model."""
    quantize: Quantize | None = None
    """How to quantize the weights of the body (int8 and int4: bitsandbytes; fp8: torchao).

    None leaves them as they are.
    """
    n_gpus: int = 1
    """Number of GPUs of one node that the layers are spread over."""


def load_model(source: ModelSource, dtype: torch.dtype, device: torch.device) -> Any:
    """Returns the model for inference, with arithmetic in `dtype` and an adapter merged into it.

    It is on `device` or spread over the GPUs that this process sees. Its attribute `weight_note`
    names stored weights that it does not use, and tied weights that are not stored.

    Raises:
        InputError: weights are missing or have other shapes, the GPUs are too small, or a package
            is not installed.
    """
    config = load_config(source.model, trust_remote_code=source.trust_remote_code)
    check_quantized(config, source.model, gpu=device.type == "cuda", here=True)
    spread = source.n_gpus > 1
    quantized = source.quantize is not None or quantization_of(config) is not None
    options: dict[str, Any] = {}
    if source.quantize is not None:
        refuse_quantizing_twice(source, config)
        if source.quantize == "fp8":
            check_fp8(dtype, gpu=device.type == "cuda", here=True)
        else:
            require_package("bitsandbytes", f"--quantize {source.quantize}")
        options["quantization_config"] = _quantization(source.quantize, dtype)
    if quantized:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it logs a cast at every product
    if spread or quantized:
        require_package("accelerate", "a model on several GPUs, or a quantized one,")
        options["device_map"] = "auto" if spread else {"": str(device)}
    loaded = _load_weights(source, config, dtype, options)
    if outside := {str(place) for place in getattr(loaded, "hf_device_map", {}).values()} & {"cpu", "disk"}:
        if device.type != "cpu":
            raise InputError(
                f"{source.model} does not fit into {source.n_gpus} GPU(s): parts of it would be placed on {sorted(outside)}. "
                "Raise --gpus-per-worker, or give --quantize int8."
            )
    elif not options:
        loaded = loaded.to(device)
    loaded = _with_adapter(loaded, source.model, quantized)
    return loaded.eval().requires_grad_(False)


def refuse_quantizing_twice(source: ModelSource, config: Any) -> None:
    """Raises InputError if --quantize is given for weights that are quantised already."""
    if source.quantize is not None and (found := quantization_of(config)) is not None:
        kind = found.get("quant_method", "bitsandbytes")
        raise InputError(f"the weights of {source.model} are quantised already ({kind}). Leave --quantize out.")


def _load_weights(source: ModelSource, config: Any, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    """Returns the model with every weight from its files.

    A missing weight is an error, because transformers would fill it with random numbers.
    """
    loaded: Any
    report: Any
    directory = model_files(source.model).base
    without_outliers(config)
    auto: Any = AutoModelForImageTextToText if sees_images(config) else AutoModelForCausalLM
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
        except Exception as error:  # a model's code or a quantisation library may raise anything
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
    """Returns options that replace the model's generation_config.json if it is not readable.

    Nothing is generated here, so its content does not matter.
    """
    try:
        GenerationConfig.from_pretrained(directory)
    except OSError:  # the file does not exist
        return {}
    except Exception:  # odd values may raise anything
        return {"generation_config": GenerationConfig()}
    return {}


def _weight_note(model: Any, unused: list[str], stored: set[str]) -> str:
    """Returns a note on stored weights that the model does not use, and on tied weights not stored.

    It is empty if there are neither.
    """
    tied = sorted(name for name in getattr(model, "all_tied_weights_keys", None) or {} if name not in stored)
    parts = []
    if unused:
        parts.append(f"{len(unused)} in the checkpoint are not used by the model, such as {unused[0]}")
    if tied:
        parts.append(f"{len(tied)} not in the checkpoint are tied to others: {', '.join(tied[:3])}")
    return "; ".join(parts)


@contextmanager
def _report_kept() -> Iterator[list[str]]:
    """Keeps transformers from printing its tables and bars of weights inside the `with` block.

    Yields the list of its messages, the tables included.
    """
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
    """Returns the first weight in a table of transformers that did not fit, and what is wrong."""
    for line in re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(tables)).splitlines():
        cells = [cell.strip() for cell in line.split("|") if cell.strip()]
        if len(cells) > 1 and cells[1] in ("MISMATCH", "CONVERSION"):
            return f"{cells[0]}: {'; '.join(cells[2:]) or cells[1].lower()}."
    return ""


def _with_adapter(loaded: Any, model: str, quantized: bool) -> Any:
    """Returns the model with its adapter merged into its weights; without one, the model itself."""
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
    except Exception as error:  # peft raises many kinds of errors for an adapter that does not fit
        raise InputError(
            f"the adapter {model} cannot be merged into its base model: {first_line(error)} Check base_model_name_or_path in its "
            "adapter_config.json, or merge it yourself and save the whole model."
        ) from error
    loaded.weight_note = note
    return loaded


def _quantization(quantize: Quantize, dtype: torch.dtype) -> Any:
    """Returns the settings for weights that are quantised as they are loaded.

    Those of bitsandbytes have no outlier columns, see
    `rho_score.models.quantized.without_outliers`.
    """
    if quantize == "fp8":
        return fp8_settings()
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
