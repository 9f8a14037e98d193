"""A model's tokenizer: its files, what they hash to, and the special tokens that only config.json names."""

import hashlib
import logging
from pathlib import Path

import orjson
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rho_score.errors import InputError
from rho_score.models.directory import first_line, model_files, own_code, wants_own_code

_PATTERNS = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer; that of an adapter is its own where it has one, else the base model's.

    Raises:
        InputError: the model has no tokenizer that loads.
    """
    directory = _directory(model)
    try:
        return read_tokenizer(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # damaged files make transformers and tokenizers raise errors of any kind
        if wants_own_code(error):
            raise InputError(own_code("tokenizer", directory)) from error
        raise InputError(
            f"no readable tokenizer in {directory}: {first_line(error)} Copy the model's tokenizer.json and "
            "tokenizer_config.json there."
        ) from error


def read_tokenizer(directory: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer in a directory. BOS and EOS that its own files do not name are those of the model's config.json."""
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    for name, token_id in _configured(directory / "config.json").items():
        if getattr(tokenizer, name) is None and 0 <= token_id < len(tokenizer):
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token_id))
    return tokenizer


def _configured(config: Path) -> dict[str, int]:
    """The ids of BOS and EOS that a config.json names, the first where there are several; none where it is not readable."""
    try:
        content = orjson.loads(config.read_bytes())
        content = {**(content.get("text_config") or {}), **content}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    found = {}
    for name in ("bos_token", "eos_token"):
        token_id = content.get(f"{name}_id")
        token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
        if isinstance(token_id, int):
            found[name] = token_id
    return found


def tokenizer_files(model: str) -> list[Path]:
    """The files that a tokenizer is loaded from, as the model has them, and its config.json, which names the kind."""
    directory = _directory(model)
    found = {path for pattern in _PATTERNS for path in directory.glob(pattern) if path.is_file()}
    config = model_files(model, weights=False).base / "config.json"
    return sorted({*found, config} if config.is_file() else found)


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over the vocabulary, or over the whole pipeline (merges, normaliser, splitting) where it is a fast one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(content.encode()).hexdigest()


def _directory(model: str) -> Path:
    files = model_files(model, weights=False)
    with_one = (path for path in files.all if any(path.glob("tokenizer*")) or any(path.glob("*.model")))
    return next(with_one, files.base)


log = logging.getLogger(__name__)


def prefix_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that a document's first token is conditioned on: BOS, else EOS, else none (then that loss is null)."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return None


def resolve_prefix(choice: str, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> int | None:
    """The id that `--prefix` means: `auto` (see `prefix_id`), `none`, or an id below `vocabulary`.

    Raises:
        InputError: anything else.
    """
    if choice == "none":
        return None
    if choice != "auto":
        if not choice.isdecimal() or int(choice) >= vocabulary:
            raise InputError(f"--prefix is auto, none or the id of a token, 0 to {vocabulary - 1}; got {choice!r}.")
        return int(choice)
    if (found := prefix_id(tokenizer)) is None:
        log.warning(
            "neither the tokenizer nor config.json names a BOS or EOS token, so the first token of every document gets no loss "
            "(null). Give --prefix ID if the model was trained with one, or --prefix none to say so."
        )
    return found
