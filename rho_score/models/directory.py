"""Where a model's files are: a directory, or a snapshot from the Hugging Face hub; an adapter's beside those of its base model."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import orjson
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rho_score.errors import InputError
from rho_score.files.urls import absolute

WEIGHT_FILES = ["*.safetensors"]
OTHER_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.py"]
ADAPTER = "adapter_config.json"


class ModelFiles(NamedTuple):
    """The directories of a model."""

    base: Path
    """Of the whole model: configuration and weights."""
    adapter: Path | None = None
    """Of an adapter that is put on top of it."""

    @property
    def all(self) -> list[Path]:
        """The adapter's directory first."""
        return [path for path in (self.adapter, self.base) if path is not None]


def model_files(model: str, *, weights: bool = True) -> ModelFiles:
    """The local directories of `model`: itself, or its snapshot from the Hugging Face hub (`ID` or `ID@REVISION`); without
    `weights` only what its tokenizer needs is fetched. The base model of an adapter is the one that its configuration names.

    Raises:
        InputError: no such directory and no such model on the hub, or an adapter that names no base model.
    """
    directory = model_directory(model, weights=weights)
    if not (directory / ADAPTER).exists():
        return ModelFiles(directory)
    try:
        base = orjson.loads((directory / ADAPTER).read_bytes())["base_model_name_or_path"]
        if not isinstance(base, str) or not base:
            raise ValueError(f"base_model_name_or_path is {base!r}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{directory}/{ADAPTER} names no base model ({error}). Write its directory or id there as base_model_name_or_path."
        ) from error
    try:
        found = model_directory(base, weights=weights)
    except InputError as error:
        raise InputError(
            f"{directory} holds an adapter, and its base model is not to be had: {error} "
            f"{ADAPTER} names it as base_model_name_or_path."
        ) from error
    if (found / ADAPTER).exists():
        raise InputError(f"{directory} is an adapter of {found}, which is an adapter too. Merge that one first.")
    return ModelFiles(found, directory)


def model_directory(model: str, *, weights: bool = True) -> Path:
    """The local directory of `model` itself; arguments and errors as of `model_files`."""
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


def wants_own_code(error: Exception) -> bool:
    """Whether transformers refused to load something because it brings code."""
    return any(words in str(error) for words in ("trust_remote_code", "custom code", "remote code"))


def own_code(what: str, directory: Path) -> str:
    """The refusal of a model or a tokenizer that brings code."""
    return (
        f"the {what} in {directory} brings its own Python code, which is not run unasked. Read it, then give "
        "--trust-remote-code."
    )


def first_line(error: BaseException) -> str:
    """Kind and first line of a library's error, as one sentence."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].rstrip(' .:!')}."


def require_package(package: str, what: str, *, extra: str = "large") -> None:
    """Raises InputError, naming the extra that brings it, where a package that `what` needs is not installed."""
    if find_spec(package) is None:
        raise InputError(f"{what} needs the package {package}: pip install 'rho-score[{extra}]' on every node.")
