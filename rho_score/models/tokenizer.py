"""A model's tokenizer: its files, its hash, and the special tokens that only config.json names."""

import hashlib
import logging
from pathlib import Path

import orjson
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rho_score.errors import InputError
from rho_score.models.directory import first_line, model_files, own_code, wants_own_code

log = logging.getLogger(__name__)

_PATTERNS = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Returns the model's tokenizer; for an adapter without one, that of its base model.

    Raises:
        InputError: the model has no tokenizer that loads.
    """
    directory = _directory(model)
    try:
        return read_tokenizer(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # damaged files may make transformers and tokenizers raise anything
        if wants_own_code(error):
            raise InputError(own_code("tokenizer", directory)) from error
        raise InputError(
            f"there is no readable tokenizer in {directory}: {first_line(error)} Copy the model's tokenizer.json and "
            "tokenizer_config.json there."
        ) from error


def read_tokenizer(directory: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Returns the tokenizer in a directory.

    BOS and EOS come from the model's config.json if the tokenizer's own files do not name them.
    """
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    for name, token_id in _configured(directory / "config.json").items():
        if getattr(tokenizer, name) is None and 0 <= token_id < len(tokenizer):
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token_id))
    return tokenizer


def _configured(config: Path) -> dict[str, int]:
    """Returns the ids of BOS and EOS that a config.json names; empty if the file is not readable.

    If it names several, the first one counts.
    """
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
    """Returns the files that the model's tokenizer is loaded from.

    They include the model's config.json, which names the kind of tokenizer.
    """
    directory = _directory(model)
    found = {path for pattern in _PATTERNS for path in directory.glob(pattern) if path.is_file()}
    config = model_files(model, weights=False).base / "config.json"
    return sorted({*found, config} if config.is_file() else found)


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the SHA-256 of the tokenizer.

    For a fast tokenizer it covers the whole pipeline (merges, normaliser, splitting), for a slow
    one the vocabulary.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(content.encode()).hexdigest()


def _directory(model: str) -> Path:
    files = model_files(model, weights=False)
    with_one = (path for path in files.all if any(path.glob("tokenizer*")) or any(path.glob("*.model")))
    return next(with_one, files.base)


def prefix_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the token that a document's first token is conditioned on: BOS, else EOS, else None.

    With None, the first token has no loss.
    """
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return None


def split_id(choice: str, tokenizer: PreTrainedTokenizerBase, model: str) -> int:
    """Returns the id that `--split-at` means: `eos` or an id.

    Raises:
        InputError: the tokenizer has no EOS token.
    """
    if choice != "eos":
        return int(choice)
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {model} has no EOS token. Name the id that ends a document with --split-at."
        )
    return int(tokenizer.eos_token_id)


def resolve_prefix(choice: str, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> int | None:
    """Returns the id that `--prefix` means: `auto` (see `prefix_id`), `none`, or an id.

    Raises:
        InputError: `choice` is none of these, or the id is not below `vocabulary`.
    """
    if choice == "none":
        return None
    if choice != "auto":
        if not choice.isdecimal() or int(choice) >= vocabulary:
            raise InputError(
                f"--prefix must be auto, none or the id of a token from 0 to {vocabulary - 1}; got {choice!r}."
            )
        return int(choice)
    if (found := prefix_id(tokenizer)) is None:
        log.warning(
            "neither the tokenizer nor config.json names a BOS or EOS token, so the first token of every document gets no loss "
            "(null). Give --prefix ID if the model was trained with such a token, or --prefix none if it was not."
        )
    return found
