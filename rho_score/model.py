"""Which model: where its files are, what they hash to, what it can do. Loading refuses pickles and remote code."""

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from rho_score.config import Quantize
from rho_score.errors import InputError
from rho_score.storage import absolute
from rho_score.weights import check_weights, refuse_pickles

log = logging.getLogger(__name__)

WEIGHT_FILES = ["*.safetensors"]
OTHER_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.py"]
LONGEST_DEFAULT_CONTEXT = 2048


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


def model_directory(model: str, *, weights: bool = True) -> Path:
    """The local directory of `model`: itself, or its snapshot from the Hugging Face hub (`ID` or `ID@REVISION`); without
    `weights` only what its tokenizer needs is fetched.

    Raises:
        InputError: no such directory and no such model on the hub.
    """
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/")) or model.count("/") > 1 or "://" in model:
        raise InputError(f"no directory {model}. Give a Hugging Face id or a directory that every node sees.")
    name, _, revision = model.partition("@")
    wanted = [*OTHER_FILES, *(WEIGHT_FILES if weights else [])]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
    except (
        RepositoryNotFoundError,
        RevisionNotFoundError,
        LocalEntryNotFoundError,
        HfHubHTTPError,
        ValueError,
        OSError,
    ) as error:
        raise InputError(
            f"model {model} is neither a directory nor to be had from the Hugging Face hub: {error}"
        ) from error


def pinned(model: str) -> str:
    """`model` so that every node loads the same: a directory from the root on, a hub id with the revision that this machine has."""
    return absolute(model) if Path(model).is_dir() else f"{model.partition('@')[0]}@{model_directory(model).name}"


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        InputError: the model has no tokenizer that loads.
    """
    directory = model_directory(model, weights=False)
    try:
        return read_tokenizer(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # damaged files make transformers and tokenizers raise errors of any kind
        if wants_own_code(error):
            raise InputError(_own_code("tokenizer", directory)) from error
        raise InputError(
            f"no readable tokenizer in {directory}: {_first_line(error)} Copy the model's tokenizer.json and "
            "tokenizer_config.json there."
        ) from error


def read_tokenizer(directory: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer in a directory. BOS and EOS that its own files do not name are those of the model's config.json."""
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    configured = directory / "config.json"
    content = orjson.loads(configured.read_bytes()) if configured.exists() else {}
    for name in ("bos_token", "eos_token"):
        token_id = content.get(f"{name}_id", (content.get("text_config") or {}).get(f"{name}_id"))
        token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
        if getattr(tokenizer, name) is None and isinstance(token_id, int) and 0 <= token_id < len(tokenizer):
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token_id))
    return tokenizer


def tokenizer_files(model: str) -> list[Path]:
    """The files that a tokenizer is loaded from, as the model has them (and its config.json, which names the kind)."""
    patterns = (
        "tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab*",
        "merges.txt",
        "*.model",
        "config.json",
    )
    directory = model_directory(model, weights=False)
    return sorted({path for pattern in patterns for path in directory.glob(pattern) if path.is_file()})


def load_config(model: str, *, trust_remote_code: bool = False) -> Any:
    """The model's configuration, checked to be that of a causal language model with safetensors.

    Raises:
        InputError: not a causal language model, or no weights as safetensors.
    """
    directory = model_directory(model)
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # a damaged file makes transformers raise errors of any kind
        if wants_own_code(error):
            raise InputError(_own_code("model", directory)) from error
        reason = " ".join(str(error).split())
        raise InputError(f"no readable config.json in {directory}: {reason} Copy the model's own there.") from error
    brings_class = trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    named = refuse_pickles(directory, getattr(config, "transformers_weights", None))
    if not trust_remote_code:
        _refuse_kernels(directory, config)
    known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or brings_class
    both_ways = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and getattr(config, "is_decoder", None) is False
    if config.is_encoder_decoder or not known or both_ways:
        raise InputError(
            f"{model} is a {config.model_type!r} model, not a causal language model; it gives no token losses."
        )
    check_weights(directory, named)
    return config


def wants_own_code(error: Exception) -> bool:
    """Whether transformers refused to load something because it brings code."""
    return any(words in str(error) for words in ("trust_remote_code", "custom code", "remote code"))


def _own_code(what: str, directory: Path) -> str:
    return (
        f"the {what} in {directory} brings its own Python code, which is not run unasked. Read it, then give "
        "--trust-remote-code."
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].rstrip(' .:!')}."


def _refuse_kernels(directory: Path, config: Any) -> None:
    """Refuse attention that is code from a hub, which the configuration may ask for."""
    for part in (config, config.get_text_config()):
        if "/" in str(attention := getattr(part, "_attn_implementation", None)):
            raise InputError(
                f"{directory}/config.json asks for the attention {attention!r}, which is code from the Hugging Face hub. "
                "Take the line out, or give --trust-remote-code."
            )


def load_model(source: ModelSource, dtype: torch.dtype, device: torch.device) -> Any:
    """The model for inference, arithmetic in `dtype`, on `device` or spread over the GPUs that this process sees.

    Raises:
        InputError: weights that are missing or of other shapes, GPUs too small for it, a package that is not installed.
    """
    load_config(source.model, trust_remote_code=source.trust_remote_code)
    spread = source.n_gpus > 1
    options: dict[str, Any] = {}
    if source.quantize is not None:
        _require("bitsandbytes", f"--quantize {source.quantize}")
        options["quantization_config"] = _quantization(source.quantize, dtype)
    if spread or source.quantize is not None:
        _require("accelerate", "a model on several GPUs, or a quantized one,")
        options["device_map"] = "auto" if spread else {"": str(device)}
    loaded = _load_weights(source, dtype, options)
    if outside := {str(place) for place in getattr(loaded, "hf_device_map", {}).values()} & {"cpu", "disk"}:
        if device.type != "cpu":
            raise InputError(
                f"{source.model} does not fit into {source.n_gpus} GPU(s): parts of it would lie on {sorted(outside)}. "
                "Raise --gpus-per-worker, or give --quantize int8."
            )
    elif not options:
        loaded = loaded.to(device)
    return loaded.eval().requires_grad_(False)


def _load_weights(source: ModelSource, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    """The model with every one of its weights from the files: transformers makes up those that are missing."""
    loaded: Any
    report: Any
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            model_directory(source.model),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
            **options,
        )  # type: ignore[misc]
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise InputError(
            f"the weights in {source.model} do not load: {_first_line(error)} Check that they belong to its config.json."
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{source.model} lacks {len(missing)} of the weights that its config.json asks for, such as {missing[0]}. "
            "They would be random numbers: fetch the whole model."
        )
    return loaded


def _quantization(quantize: Quantize, dtype: torch.dtype) -> BitsAndBytesConfig:
    """No outlier columns in 8 bits: they are found over all tokens of a pass, so that a token's loss would depend on its neighbours."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at every product that it casts
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _require(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise InputError(f"{what} needs the package {package}: pip install 'rho-score[large]' on every node.")


def default_context(config: Any) -> int:
    """The model's longest context, at most 2048 (the paper's)."""
    longest = getattr(config, "max_position_embeddings", None) or LONGEST_DEFAULT_CONTEXT
    return min(int(longest), LONGEST_DEFAULT_CONTEXT)


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


def model_identity(model: str) -> dict[str, str]:
    """What determines a model's losses, by content, so that a moved or renamed model stays the same: SHA-256 of weights and
    configuration, and the versions of torch and transformers."""
    directory = model_directory(model)
    weights = sorted(directory.glob("*.safetensors"))
    code = sorted(directory.glob("*.py"))
    total = sum(path.stat().st_size for path in weights)
    if total > 10 << 30:
        log.info("hashing %.0f GB of weights", total / 1e9)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(_file_sha256, weights))
    return {
        "weights_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "config_sha256": _file_sha256(directory / "config.json"),
        **({"code_sha256": hashlib.sha256("".join(map(_file_sha256, code)).encode()).hexdigest()} if code else {}),
        "torch": version("torch").split("+")[0],
        "transformers": version("transformers"),
    }


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over the vocabulary, or over the whole pipeline (merges, normaliser, splitting) where it is a fast one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(content.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
