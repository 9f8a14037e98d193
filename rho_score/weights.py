"""A model's files of weights, looked at before a run: all there, all safetensors, each with a whole header."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rho_score.errors import InputError


def check_weights(directory: Path) -> None:
    """Raise InputError unless every file of weights in a model's directory is there and its header is whole."""
    files = {path.name for path in directory.glob("*.safetensors")}
    if not files:
        raise InputError(f"no *.safetensors in {directory}. Pickled weights are never loaded: convert them first.")
    for index in directory.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is not a readable index of weights: {error}. Fetch it again.") from error
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
