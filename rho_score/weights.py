"""A model's files of weights, looked at before a run: all there, all safetensors, each with a whole header."""

from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError, safe_open

from rho_score.errors import InputError


def refuse_pickles(directory: Path, configured: Any) -> set[str]:
    """Refuse what would make the library load a pickle though the directory has safetensors.

    configured: the weights that config.json names, if it does. Returns the names of the files that indices of weights name.
    """
    if (directory / "adapter_config.json").exists():
        raise InputError(f"{directory} holds an adapter (adapter_config.json). Merge it into its model and save that.")
    if configured is not None and not _is_safe(configured, (".safetensors", ".safetensors.index.json")):
        raise InputError(
            f"{directory}/config.json names the weights {configured!r}. Only *.safetensors are ever loaded."
        )
    named: set[str] = set()
    for index in directory.glob("*.safetensors.index.json"):
        try:
            files = list(orjson.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is not an index of weights: {error!r}") from error
        if wrong := sorted(str(file) for file in files if not _is_safe(file, (".safetensors",))):
            raise InputError(f"{index} names {wrong[0]!r}. Only *.safetensors of the same directory are ever loaded.")
        named.update(files)
    return named


def check_weights(directory: Path, named: set[str]) -> None:
    """Raise InputError unless every file of weights in a model's directory is there (`named` too) and its header is whole."""
    files = {path.name for path in directory.glob("*.safetensors")}
    if not files:
        raise InputError(f"no *.safetensors in {directory}. Pickled weights are never loaded: convert them first.")
    if missing := sorted(named - files):
        raise InputError(
            f"{directory} lacks {len(missing)} of {len(named)} files of weights: {missing[0]}. Fetch them."
        )
    for name in sorted(files):
        try:
            with safe_open(directory / name, framework="pt") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{directory / name} is not a readable safetensors file: {error}. Fetch it again."
            ) from error


def _is_safe(name: Any, endings: tuple[str, ...]) -> bool:
    """Whether it is the name of a file right in the directory, with one of these endings."""
    return isinstance(name, str) and name.endswith(endings) and Path(name).name == name
