"""The identity of a model: what determines its losses, by content."""

import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rho_score.models.directory import ADAPTER, model_files

log = logging.getLogger(__name__)


def model_identity(model: str) -> dict[str, str]:
    """Returns the SHA-256 of the weights and of the configuration, and the versions of libraries.

    A model that is moved or renamed keeps its identity. The libraries are torch and transformers,
    and peft for an adapter. Python files of the model and an adapter's files have a SHA-256 of
    their own.
    """
    base, adapter = model_files(model)
    found = {
        "weights_sha256": _all_sha256(sorted(base.glob("*.safetensors"))),
        "config_sha256": _sha256(base / "config.json"),
    }
    if code := sorted(path for directory in (base, adapter) if directory for path in directory.glob("*.py")):
        found["code_sha256"] = _all_sha256(code)
    if adapter is not None:
        found["adapter_sha256"] = _all_sha256([adapter / ADAPTER, *sorted(adapter.glob("*.safetensors"))])
        found["peft"] = version("peft")
    return {**found, **_libraries()}


def config_identity(config: Any) -> dict[str, str]:
    """Returns the SHA-256 of a configuration that random weights are made from, and the versions of libraries."""
    content = config.to_dict()
    content.pop("transformers_version", None)
    content.pop("_name_or_path", None)
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return {"random_from": sha256, **_libraries()}


def _libraries() -> dict[str, str]:
    return {"torch": version("torch").split("+")[0], "transformers": version("transformers")}


def _all_sha256(files: list[Path]) -> str:
    total = sum(path.stat().st_size for path in files)
    if total > 10 << 30:
        log.info("hashing %.0f GB of weights", total / 1e9)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return hashlib.sha256("".join(pool.map(_sha256, files)).encode()).hexdigest()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
