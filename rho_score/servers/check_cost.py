"""What the check of a server costs, found without a server: the check asks one that says yes to everything."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rho_score.config import ServerKind
from rho_score.servers.check import Tokenize, check, compare_probe, style_ids
from rho_score.servers.client import Client
from rho_score.servers.connection import Connection
from rho_score.servers.endpoint import Endpoint, Key
from rho_score.servers.kinds import protocol_of
from rho_score.servers.protocol import Answer
from rho_score.servers.purse import FreePurse


def check_cost(
    kind: ServerKind, tokenizer: Any, tokenize: Tokenize, *, prefix_id: int | None, context: int
) -> tuple[int, int]:
    """The tokens that the check at the start of a run with one worker is paid for, and those that each
    request must have generated.

    A server of kind openai is taken for one that must generate a token. tokenizer: of the served
    model. For the rest see `check`.

    Raises:
        InputError: the tokenizer does not fit the kind of server, or no short text the context.
    """
    purse = FreePurse()
    client = Client(Endpoint(url="http://nowhere", key=Key("")), requests=1, purse=purse)
    protocol = protocol_of(kind, lambda: tokenizer, prefix_id=prefix_id, prefix_by_server=False, generates=1)
    try:
        connection = _Paid(client, protocol, "")
        if kind == "openai":
            client.run(connection.ask(style_ids(tokenize, prefix_id)))
        checked = check(connection, tokenize, prefix_id=prefix_id, context=context)
        compare_probe(connection, checked.probe, checked.losses, "")  # the worker's
    finally:
        client.close()
    return purse.sent, protocol.generates


class _Paid(Connection):
    """Pays for each request, and makes none. All losses are 0."""

    async def ask(self, ids: Sequence[int]) -> Answer:
        self.protocol.body(self.model, ids)
        self.client.purse.take(self.cost(len(ids)))
        return Answer(np.zeros(len(ids)))

    async def ids_of(self, text: str) -> list[int] | None:
        if self.protocol.text_body(self.model, text) is not None:
            self.client.purse.take(self.text_cost(text))
        return None
