"""What a server tells about itself: the models that it serves, the longest text, its version."""

import contextlib
from typing import Any, NamedTuple

from rho_score.config import ServerKind
from rho_score.errors import InputError
from rho_score.safe_text import visible
from rho_score.servers.client import Client, RefusedError

MODELS = "/v1/models"
_VERSION_PATHS = {"vllm": "/version", "sglang": "/server_info", "openai": None}


class Served(NamedTuple):
    """A model as a server serves it."""

    model: str
    """The name that the server has for it."""
    max_tokens: int | None
    """The most tokens of a request and of what is generated; None if the server does not tell."""
    version: str | None
    """The version of the server's software, if it tells."""


def find_served(client: Client, kind: ServerKind, wanted: str | None) -> Served:
    """The model called `wanted` on the server, or its only model.

    Raises:
        InputError: the server does not serve it, or serves several and none was named.
        ServerError: the server does not answer, or denies the request.
    """
    try:
        models = _models(client.run(client.get(MODELS)))
    except RefusedError:
        models = []
    names = [str(model["id"]) for model in models]
    if wanted is None:
        if len(names) != 1:
            listed = f"serves {len(names)}: {_listed(names)}" if names else "does not tell what it serves"
            raise InputError(f"the server {listed}. Name a model with --server-model.")
        wanted = names[0]
    elif names and wanted not in names:
        raise InputError(f"the server does not serve {wanted!r}, but {_listed(names)}. Name one with --server-model.")
    found = next((model for model in models if model["id"] == wanted), {})
    most = found.get("max_model_len")
    return Served(wanted, most if isinstance(most, int) else None, _version(client, kind))


def _models(found: Any) -> list[dict[str, Any]]:
    data = found.get("data") if isinstance(found, dict) else found
    return [model for model in data if isinstance(model, dict) and "id" in model] if isinstance(data, list) else []


def _listed(names: list[str]) -> str:
    return visible(", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else ""))


def _version(client: Client, kind: ServerKind) -> str | None:
    path = _VERSION_PATHS[kind]
    if path is None:
        return None
    with contextlib.suppress(RefusedError):
        found = client.run(client.get(path))
        if isinstance(found, dict) and isinstance(found.get("version"), str):
            return str(found["version"])
    return None
