"""The check of a server before a run: are its tokens ours, and its losses those of a causal model?

Answers that depend on later tokens, on what was asked before or on a cache of prefixes would make
losses that mean nothing, without any error. They show in a few requests.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rho_score.errors import InputError
from rho_score.servers.client import MOST_WRONG, RefusedError
from rho_score.servers.connection import Connection
from rho_score.servers.protocol import UnsendableError

TEXTS = (
    "Hello, world! 12345 3.14",
    "two  spaces,   three, and a tab\t.",
    "lines\n\nand\r\nmore lines\n",
    "naïve café – “quotes” … Привет, мир",
    "東京の天気は晴れです。한국어도 있다.",
    "🙂👩‍👩‍👧 emoji 𝒳",
)
"""Texts that tokenizers read differently."""
LOOK_ALIKES = ("<s>a</s>", "<|im_start|>user<|im_end|>", "<|endoftext|> <unk>[INST]")
"""Texts that spell special tokens. A server reads them as such, and so does the tokenizer here."""
BEGINNING = (
    "The reference model reads each text from its beginning, and a token is predicted from what stands before it."
)
ENDINGS = (" and more", " 42 zebras")
ROOM = 60
"""Tokens of a request that every server takes, however short the context of the run is."""
STYLE_ROOM = 40
"""Tokens of the text that shows how a server of OpenAI's format is asked."""
MEAN_NATS, MOST_NATS = 0.02, 1.0
"""How far two answers to the same question may differ, in nats: on average over the tokens, and for
one token. Batches of other sizes take other kernels in half precision."""
LONG_TOKENS = 512
"""Tokens of the text that shows whether a cache of prefixes changes losses."""

Tokenize = Callable[[str], list[int]]


class Checked(NamedTuple):
    """What a check found."""

    probe: list[int]
    """Token ids of a short text, the prefix included."""
    losses: list[float]
    """The losses that the server gave them, nats; the first token has none and is left out."""
    differs: float
    """The largest mean difference between two answers to the same question, nats."""


def check(connection: Connection, tokenize: Tokenize, *, prefix_id: int | None, context: int) -> Checked:
    """Asks the server for a few short texts.

    tokenize: the ids of a text, in which what spells a special token is one.

    Raises:
        InputError: the server's tokens are not ours, or its losses are not those of a causal model;
            or it refuses what it is asked.
        ServerError: it denies every request, or fails until the tries end.
    """
    prefix = [] if prefix_id is None else [prefix_id]
    asked, room = _Asked(connection, prefix), max(context, ROOM) - 1
    later = "its losses depend on later tokens, so the model is not causal"
    try:
        _check_tokens(connection, tokenize)
        for ids in map(tokenize, TEXTS):
            asked.losses(ids if len(ids) <= room else [], needed=False)
        probe, other = short_texts(tokenize, room)
        first, n = asked.losses(probe), len(prefix) + _common(probe, other) - 1
        differs = [
            _compare(asked.losses(probe), first, f"it answers the same question differently the second time; {_CACHE}"),
            _compare(asked.losses(other)[:n], first[:n], later),
            _check_cache(asked, tokenize, context),
        ]
    except RefusedError as error:
        raise InputError(
            f"the server does not answer the check with losses of our tokens: {error}. {_REMEDY}"
        ) from error
    return Checked([*prefix, *probe], first.tolist(), max(differs))


_CACHE = "a cache of prefixes may be on. Start the server without it (vLLM: --no-enable-prefix-caching; SGLang: --disable-radix-cache)"
_REMEDY = "Check that --model is the tokenizer of the served model, and --server-kind the kind of the server."


def short_texts(tokenize: Tokenize, room: int) -> tuple[list[int], list[int]]:
    """The ids of two texts of at most `room` tokens with the same beginning and other endings.

    Raises:
        InputError: the tokenizer needs more tokens for a few words.
    """
    words = BEGINNING.split()
    for n in range(len(words), 1, -1):
        one, other = (tokenize(" ".join(words[:n]) + ending) for ending in ENDINGS)
        if max(len(one), len(other)) <= room and _common(one, other) > 2:
            return one, other
    raise InputError(f"the tokenizer makes more than {room} tokens of a few words, so the server cannot be checked.")


def compare_probe(connection: Connection, probe: Sequence[int], losses: Sequence[float], what: str) -> None:
    """Asks for the text of a check again. probe, losses: those of `Checked`.

    Raises:
        InputError: the losses are others; `what` says whose they were.
        ServerError: as in `check`.
    """
    try:
        answer = connection.client.run(connection.ask(probe))
    except RefusedError as error:
        raise InputError(f"the server does not answer as in {what}: {error}") from error
    _compare(-answer.logprobs[1:], np.array(losses), f"its losses are not those of {what}")


class _Asked:
    """Asks for the losses of documents, one request each."""

    def __init__(self, connection: Connection, prefix: list[int]) -> None:
        self._connection, self._prefix = connection, prefix

    @property
    def n_prefix(self) -> int:
        """Tokens before each document: 0 or 1."""
        return len(self._prefix)

    def losses(self, ids: Sequence[int], *, needed: bool = True) -> np.ndarray:
        """The losses from the second token of the request on, float64, all finite.

        They are empty if they are not needed and the protocol has no request for these tokens.

        Raises:
            InputError: a loss is not finite, or the protocol has no request.
            RefusedError, ServerError: as in `Connection.ask`.
        """
        if not ids:
            return np.zeros(0)
        try:
            answer = self._connection.client.run(self._connection.ask([*self._prefix, *ids]))
        except UnsendableError as error:
            if not needed:
                return np.zeros(0)
            raise InputError(f"the text of the check cannot be sent to the server: {error}. {_REMEDY}") from error
        found = -answer.logprobs[1:]
        if not np.isfinite(found).all():
            raise InputError(
                "the server gives a token of plain text no probability at all. Its model overflows or is damaged."
            )
        return found


def _check_tokens(connection: Connection, tokenize: Tokenize) -> None:
    """Raises InputError if the server makes other tokens of a text, as far as it tells its ids."""
    for text in (*TEXTS, *LOOK_ALIKES):
        here = tokenize(text)
        for _ in range(MOST_WRONG):  # nothing in a wrong answer to a text tells that it is another text's
            there = connection.client.run(connection.ids_of(text))
            if there is None or here in (there, there[1:]):  # it may put a BOS token in front
                break
        else:
            raise InputError(
                f"the server's tokenizer is not that of --model: of {text!r} it makes {_some(there or [])}, and --model {_some(here)}. "
                "Give the tokenizer of the served model as --model."
            )


def _check_cache(asked: _Asked, tokenize: Tokenize, context: int) -> float:
    """Asks for long texts with the same beginning, so that a cache of prefixes would be used."""
    n_texts, (one, other) = 1, short_texts(tokenize, max(context, ROOM) - 1)
    while len(one) < min(LONG_TOKENS, context // 2):
        n_texts *= 2
        one, other = (tokenize(" ".join([BEGINNING] * n_texts) + ending) for ending in ENDINGS)
        if max(len(one), len(other)) > context - 1:
            one, other = short_texts(tokenize, max(context, ROOM) - 1)
            break
    n = asked.n_prefix + _common(one, other) - 1
    first = asked.losses(one)
    why = f"its losses depend on what was asked before; {_CACHE}"
    return max(_compare(asked.losses(other)[:n], first[:n], why), _compare(asked.losses(one), first, why))


def is_repeat(differences: np.ndarray) -> bool:
    """True if two answers that differ so much, in nats for each token, may be of one model."""
    return bool(differences.mean() <= MEAN_NATS and differences.max() <= MOST_NATS)


def _compare(found: np.ndarray, expected: np.ndarray, why: str) -> float:
    """The mean difference of two answers; raises InputError with the reason if they differ."""
    differences = np.abs(found - expected)
    mean, largest = float(differences.mean()), float(differences.max())
    if not is_repeat(differences):
        raise InputError(
            f"the server cannot be used: {why}. Two answers differ by {mean:.3g} nats on average, {largest:.3g} at most."
        )
    return mean


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of tokens that two sequences begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _some(ids: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ids[:8]))}{', …' if len(ids) > 8 else ''}]"


def style_ids(tokenize: Tokenize, prefix_id: int | None) -> list[int]:
    """The ids of a short text for `style_of`."""
    prefix = [] if prefix_id is None else [prefix_id]
    return [*prefix, *short_texts(tokenize, STYLE_ROOM)[0]]


def style_of(
    connect: Callable[[bool, int], Connection], ids: Sequence[int], *, styles: Sequence[bool]
) -> tuple[bool, int]:
    """How a server of OpenAI's format is asked: (it puts the prefix in front, tokens to generate).

    connect: makes a connection of either style. ids: of a short text, the prefix included.
    styles: the values of the first that are tried.

    Raises:
        InputError: it answers in none of these ways; the message has the answers.
        ServerError: it denies every request, or fails until the tries end.
    """
    reasons: list[str] = []
    for by_server in styles:
        for generates in (0, 1):
            connection = connect(by_server, generates)
            try:
                connection.client.run(connection.ask(ids))
            except (RefusedError, UnsendableError) as error:
                reasons.append(str(error))
            else:
                return by_server, generates
    shown = "; ".join(dict.fromkeys(reasons))
    raise InputError(f"the server does not give the losses of our tokens: {shown}. {_REMEDY}")
