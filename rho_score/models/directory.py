"""Finds a model's files in a directory or in a snapshot from the Hugging Face hub.

An adapter has files of its own, besides those of its base model.
"""

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
    """The directory of the whole model, with its configuration and weights."""
    adapter: Path | None = None
    """The directory of an adapter on top of that model; None without an adapter."""

    @property
    def all(self) -> list[Path]:
        """All directories, the adapter's first."""
        return [path for path in (self.adapter, self.base) if path is not None]


def model_files(model: str, *, weights: bool = True) -> ModelFiles:
    """Returns the local directories of `model`, a directory or a Hugging Face id.

    An id (`ID` or `ID@REVISION`) is fetched from the hub; without `weights`, only the files that
    its tokenizer needs are. The base model of an adapter is the one that its configuration names.

    Raises:
        InputError: there is no such directory and no such model on the hub, or the base model of an
            adapter is not found.
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
            f"{directory}/{ADAPTER} names no base model ({error}). Write the base model's directory or id there as "
            "base_model_name_or_path."
        ) from error
    try:
        found = model_directory(base, weights=weights)
    except InputError as error:
        raise InputError(
            f"{directory} holds an adapter whose base model is not found: {error} "
            f"{ADAPTER} names the base model as base_model_name_or_path."
        ) from error
    if (found / ADAPTER).exists():
        raise InputError(f"{directory} is an adapter of {found}, which is an adapter too. Merge that one first.")
    return ModelFiles(found, directory)


def model_directory(model: str, *, weights: bool = True) -> Path:
    """Returns the local directory of `model` itself; see `model_files` for arguments and errors."""
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/")) or model.count("/") > 1 or "://" in model:
        raise InputError(f"there is no directory {model}. Give a Hugging Face id or a directory that every node sees.")
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
            f"the model {model} is neither a directory nor available from the Hugging Face hub: {error}"
        ) from error


def pinned(model: str, *, weights: bool = True) -> str:
    """Returns `model` in a form that makes every node load the same files.

    That is an absolute path, or a hub id with the revision that this machine has. For `weights` see
    `model_files`.
    """
    if Path(model).is_dir():
        return absolute(model)
    return f"{model.partition('@')[0]}@{model_directory(model, weights=weights).name}"


def wants_own_code(error: Exception) -> bool:
    """True if transformers refused to load something because it brings its own code."""
    return any(words in str(error) for words in ("trust_remote_code", "custom code", "remote code"))


def own_code(what: str, directory: Path) -> str:
    """Returns the message that refuses a model or a tokenizer which brings its own code."""
    return (
        f"the {what} in {directory} brings its own Python code, which runs only if you allow it. Read it, then give "
        "--trust-remote-code."
    )


def first_line(error: BaseException) -> str:
    """Returns the class and the first line of a library's error as one sentence."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].rstrip(' .:!')}."


def require_package(package: str, what: str, *, extra: str = "large") -> None:
    """Raises InputError if a package that `what` needs is not installed.

    The message names the extra that installs it.
    """
    if find_spec(package) is None:
        raise InputError(f"{what} needs the package {package}. Run pip install 'rho-score[{extra}]' on every node.")
