"""The protocols by the names that `--server-kind` has for them."""

from collections.abc import Callable
from typing import Any

from rho_score.config import ServerKind
from rho_score.servers.openai import OpenAI
from rho_score.servers.protocol import Protocol
from rho_score.servers.sglang import Sglang
from rho_score.servers.vllm import Vllm

SIGNALS = {"vllm": Vllm.signals, "sglang": Sglang.signals, "openai": OpenAI.signals}
"""What each protocol gives besides the loss."""


def protocol_of(
    kind: ServerKind, tokenizer: Callable[[], Any], *, prefix_id: int | None, prefix_by_server: bool, generates: int
) -> Protocol:
    """The protocol of a kind of server.

    tokenizer: loads it; called only if the protocol needs one. For the rest see `OpenAI`.
    """
    if kind == "vllm":
        return Vllm()
    if kind == "sglang":
        return Sglang()
    return OpenAI(tokenizer(), prefix_id=prefix_id, prefix_by_server=prefix_by_server, generates=generates)
