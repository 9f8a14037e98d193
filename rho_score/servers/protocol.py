"""What a protocol is: how token ids become a request, and an answer becomes log-probabilities.

To add a protocol, add a module with a `Protocol` and its line in `rho_score.servers.kinds`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rho_score.config import Signal
from rho_score.files.json import JsonObject

LOWEST = -9999.0
"""What servers send for a log-probability of minus infinity, which JSON cannot hold."""
ABOVE_ZERO = 1e-3
"""How far a log-probability may lie above 0 by rounding."""


class UnsendableError(ValueError):
    """No request of this protocol gives the losses of these tokens. The message is the reason."""


class WrongAnswerError(ValueError):
    """An answer that is not one to its request. The message says what is wrong with it."""


class Answer(NamedTuple):
    """What a server said of a sequence of n tokens."""

    logprobs: np.ndarray
    """float64[n], nats. The first is NaN, because nothing stands before it."""
    ranks: np.ndarray | None = None
    """float64[n]: how many tokens the model found more likely. None: the server does not say."""


class Protocol(ABC):
    """One way of asking a server for the log-probabilities of given tokens."""

    path: ClassVar[str]
    """The path of the call, from the server's address."""
    signals: ClassVar[tuple[Signal, ...]] = ()
    """The signals that the protocol gives besides the loss."""
    generates: int = 0
    """Number of tokens that the server must generate with each request. They are thrown away."""

    @abstractmethod
    def body(self, model: str, ids: Sequence[int]) -> JsonObject:
        """The request for these token ids, the prefix included.

        Raises:
            UnsendableError: the protocol has no request for these tokens.
        """

    @abstractmethod
    def read(self, content: Any, ids: Sequence[int]) -> Answer:
        """The log-probabilities in an answer to the request for `ids`.

        Raises:
            WrongAnswerError: it is not the answer to that request.
        """

    def text_body(self, model: str, text: str) -> JsonObject | None:
        """The request to tokenize a text as the server does; None if no answer would tell the ids."""
        return None

    def read_ids(self, content: Any) -> list[int]:
        """The ids in the answer to `text_body`.

        Raises:
            WrongAnswerError: there are none in it.
        """
        raise NotImplementedError


def only(found: Any, what: str) -> Any:
    """The one element of a list that an answer must have; raises WrongAnswerError otherwise."""
    if not isinstance(found, list) or len(found) != 1:
        n = f"{len(found)} of them" if isinstance(found, list) else "none"
        raise WrongAnswerError(f"the answer must have one of {what}, but has {n}")
    return found[0]


def field(found: Any, name: str) -> Any:
    """A field that an answer must have; raises WrongAnswerError if it is missing."""
    if not isinstance(found, dict) or name not in found:
        raise WrongAnswerError(f"the answer has no field {name}")
    return found[name]


def check_ids(found: Any, sent: Sequence[int]) -> None:
    """Raises WrongAnswerError unless an answer's ids are those that were sent."""
    if not isinstance(found, list) or len(found) != len(sent):
        n = len(found) if isinstance(found, list) else 0
        raise WrongAnswerError(f"{len(sent)} token ids were sent, but the answer is about {n}")
    for i, (there, here) in enumerate(zip(found, sent, strict=True)):
        if there != here:
            raise WrongAnswerError(f"token {i} was {here}, but the answer is about {there!r}")


def as_logprob(value: Any, at: int) -> float:
    """A log-probability of an answer: finite, -inf or NaN.

    Raises:
        WrongAnswerError: it is missing, no number, or more than 0.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise WrongAnswerError(f"token {at} has no log-probability, but {value!r}")
    if value > ABOVE_ZERO:
        raise WrongAnswerError(f"token {at} has the log-probability {value}, which is more than 0")
    return -np.inf if value <= LOWEST else float(value)
