"""A model behind a server: ids in, log-probabilities out."""

from collections.abc import Sequence

from rho_score.servers.client import Client
from rho_score.servers.protocol import Answer, Protocol


class Connection:
    """Asks one model of a server in one protocol."""

    def __init__(self, client: Client, protocol: Protocol, model: str) -> None:
        self.client, self.protocol, self.model = client, protocol, model

    async def ask(self, ids: Sequence[int]) -> Answer:
        """The log-probabilities of these token ids, the prefix included.

        Raises:
            UnsendableError: the protocol has no request for these ids.
            RefusedError: the server refuses them, or answers something else again and again.
            ServerError: the server denies every request, or fails until the tries end.
        """
        body = self.protocol.body(self.model, ids)
        return await self.client.ask(
            self.protocol.path, body, lambda found: self.protocol.read(found, ids), tokens=self.cost(len(ids))
        )

    async def ids_of(self, text: str) -> list[int] | None:
        """The server's own ids of a text; None if the protocol does not tell them."""
        body = self.protocol.text_body(self.model, text)
        if body is None:
            return None
        return await self.client.ask(self.protocol.path, body, self.protocol.read_ids, tokens=self.text_cost(text))

    def cost(self, n_ids: int) -> int:
        """The tokens that a request of so many ids is paid for."""
        return n_ids + self.protocol.generates

    def text_cost(self, text: str) -> int:
        """The tokens that a request to tokenize a text is paid for."""
        return self.cost(len(text.encode()))  # no tokenizer makes more tokens than bytes
