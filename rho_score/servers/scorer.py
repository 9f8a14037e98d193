"""Per-token losses of documents under a model behind a server.

It has the interface of `rho_score.inference.scorer.Scorer`, as far as a worker uses it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rho_score.config import Signal
from rho_score.errors import ServerError
from rho_score.inference.scored import Scored
from rho_score.inference.windows import Window, windows
from rho_score.servers.client import RefusedError
from rho_score.servers.connection import Connection
from rho_score.servers.protocol import Answer, UnsendableError

log = logging.getLogger(__name__)

MOST_REFUSED = 16
"""Documents of a call that a server may refuse. If it refuses more, and more than half of their unit,
the documents are not the cause."""


class _Piece(NamedTuple):
    document: int
    window: Window


class ServerScorer:
    """Scores documents with a model behind a server: one request for each window.

    Args:
        connection: to the server.
        context, overlap, prefix_id: as for a loaded model. A request holds the prefix and all
            tokens of a window, so it is one token longer than the context.
        signals: among those of the protocol.
    """

    weight_note = ""

    def __init__(
        self,
        connection: Connection,
        *,
        context: int,
        overlap: int,
        prefix_id: int | None,
        signals: Sequence[Signal] = (),
    ) -> None:
        self.connection, self.prefix_id, self.signals = connection, prefix_id, tuple(signals)
        self._context, self._overlap = context, overlap

    def score_documents(self, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the loss of every token in nats: `score(ids).loss`."""
        return self.score(ids).loss

    def score(
        self,
        ids: Sequence[np.ndarray],
        on_tokens: Callable[[int], None] = lambda _: None,
        *,
        n_documents: int | None = None,
    ) -> Scored:
        """Returns the loss of every token, and its rank if that was asked for.

        Args:
            ids: token ids of each document, int[n].
            on_tokens: called with the number of tokens whose losses came back, in another thread.
            n_documents: the documents of the unit that `ids` are a part of; None if they are all.

        Raises:
            ServerError: the server denies every request, fails until the tries end, or refuses most
                documents.
        """
        loss = [np.full(len(document), np.nan, np.float32) for document in ids]
        rank = [np.full(len(document), np.nan, np.float32) for document in ids]
        refused: dict[int, str] = {}
        by_server: set[int] = set()
        positions = 0

        async def one(piece: _Piece) -> None:
            nonlocal positions
            document, window = piece
            if document in refused:
                return
            sent = self._sent(ids[document], window)
            try:
                answer = await self.connection.ask(sent)
            except UnsendableError as error:
                refused[document] = str(error)
                return
            except RefusedError as error:
                refused[document] = f"the server refuses it: {error}"
                by_server.add(document)
                self._check_refusals(refused[document], len(by_server), n_documents or len(ids))
                return
            positions += len(sent) - 1
            self._keep(answer, window, loss[document], rank[document])
            on_tokens(window.stop - window.first)

        self.connection.client.each(one, self._pieces(ids))
        for document in refused:
            loss[document][:] = rank[document][:] = np.nan
        signals: dict[str, list[np.ndarray]] = {"rank": rank} if "rank" in self.signals else {}
        return Scored(loss=loss, signals=signals, rescored=0, positions=positions, padding=0, refused=refused)

    def cost(self, ids: Sequence[np.ndarray]) -> int:
        """The tokens that scoring these documents sends, if no request is made twice."""
        return sum(self.connection.cost(len(self._sent(ids[i], window))) for i, window in self._pieces(ids))

    def is_finite(self, loss: np.ndarray) -> bool:
        """True if every token that must have a loss has a finite one."""
        return bool(np.isfinite(loss[0 if self.prefix_id is not None else 1 :]).all())

    @property
    def layout(self) -> str:
        """Which model is asked, to be shown where a loaded model tells the layout of its passes."""
        return f"{self.connection.model} behind a server"

    @property
    def overflow(self) -> str:
        """The reason to report for a document whose losses are not finite."""
        return "its losses are not finite: the server gives some of its tokens no probability at all"

    def _pieces(self, ids: Sequence[np.ndarray]) -> list[_Piece]:
        has_prefix = self.prefix_id is not None
        return [
            _Piece(i, window)
            for i, document in enumerate(ids)
            for window in windows(len(document), context=self._context, overlap=self._overlap, has_prefix=has_prefix)
        ]

    def _sent(self, document: np.ndarray, window: Window) -> list[int]:
        prefix = [] if self.prefix_id is None else [self.prefix_id]
        return [*prefix, *document[window.start : window.stop].tolist()]

    def _keep(self, answer: Answer, window: Window, loss: np.ndarray, rank: np.ndarray) -> None:
        n = window.stop - window.first
        loss[window.first : window.stop] = -answer.logprobs[-n:]
        if answer.ranks is not None:
            rank[window.first : window.stop] = answer.ranks[-n:]

    def _check_refusals(self, reason: str, n: int, of: int) -> None:
        """Raises ServerError if the server refuses so many documents that they are not the cause."""
        if n > MOST_REFUSED and 2 * n > of:
            raise ServerError(
                f"the server refuses {n} of {of} documents of a unit, the last because {reason}. The documents are not the cause. "
                "Mend the server, then run the same command again to resume."
            )
