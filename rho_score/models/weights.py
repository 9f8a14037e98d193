"""Checks a model's weight files before a run: all are there, are safetensors, and are readable."""

from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError, safe_open

from rho_score.errors import InputError

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


def named_weights(directory: Path, configured: Any) -> set[str]:
    """Returns the names of the weight files that the library will load.

    They are the whole file, or the files that the index names. configured: the file or index that
    config.json names instead, or None.

    Raises:
        InputError: the index is not readable, or a name would make the library load a pickle
            although the directory has safetensors.
    """
    if configured is not None and not _is_safe(configured, (".safetensors", ".safetensors.index.json")):
        raise InputError(
            f"{directory}/config.json names the weights {configured!r}. Only *.safetensors are ever loaded."
        )
    name = configured or (
        WHOLE if (directory / WHOLE).exists() else INDEX
    )  # an index beside the whole file is not read
    if name.endswith(".safetensors"):
        return {name}
    index = directory / name
    if not index.exists():
        return set()
    try:
        files = list(orjson.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is not an index of weights: {error!r}. Fetch it again.") from error
    if wrong := sorted(str(file) for file in files if not _is_safe(file, (".safetensors",))):
        raise InputError(f"{index} names {wrong[0]!r}. Only *.safetensors of the same directory are ever loaded.")
    return set(files)


def check_weights(directory: Path, named: set[str]) -> None:
    """Raises InputError unless every weight file to be loaded is there with a whole header."""
    files = {path.name for path in directory.glob("*.safetensors")}
    if not files:
        raise InputError(
            f"there are no *.safetensors in {directory}. Pickled weights are never loaded: convert them first."
        )
    if not named:
        raise InputError(
            f"{directory} holds {min(files)}, but neither {WHOLE} nor {INDEX}, by which weights are found. Rename the file, "
            "or fetch the index."
        )
    if missing := sorted(named - files):
        raise InputError(
            f"{directory} lacks {len(missing)} of {len(named)} files of weights, such as {missing[0]}. Fetch them."
        )
    for name in sorted(named):
        _check_header(directory / name)


def check_adapter(directory: Path) -> None:
    """Raises InputError unless an adapter's weights are safetensors with a whole header."""
    if (
        b'"megatron_config": {' in (directory / "adapter_config.json").read_bytes()
    ):  # names a module that peft would import
        raise InputError(
            f"{directory} is an adapter of a Megatron model. Merge it into its model, and save the merged model."
        )
    weights = directory / "adapter_model.safetensors"
    if not weights.exists():
        raise InputError(
            f"there is no {weights.name} in {directory}. Pickled weights are never loaded: convert them first."
        )
    _check_header(weights)


def stored_names(directory: Path) -> set[str]:
    """Returns the names of the weights in a directory's safetensors."""
    names: set[str] = set()
    for file in directory.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            names.update(weights.keys())
    return names


def _check_header(file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as weights:
            weights.keys()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a readable safetensors file: {error}. Fetch it again.") from error


def _is_safe(name: Any, endings: tuple[str, ...]) -> bool:
    """True if `name` is the name of a file without a folder and has one of these endings."""
    return isinstance(name, str) and name.endswith(endings) and Path(name).name == name
