"""OpenAI's completions format: `POST /v1/completions` with a text, `echo` and `logprobs`.

No ids go over the wire. The tokens become a text, the server makes tokens of it, and these must be
ours over the bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rho_score.files.json import JsonObject
from rho_score.models.vocabulary import Vocabulary
from rho_score.servers.alignment import check_tokens
from rho_score.servers.protocol import Answer, Protocol, UnsendableError, WrongAnswerError, as_logprob, field, only


class OpenAI(Protocol):
    """A text is sent, and comes back as tokens with their log-probabilities.

    Args:
        tokenizer: a fast tokenizer.
        prefix_id: the token that every sequence begins with, or None.
        prefix_by_server: True if the server puts that token in front by itself; otherwise it is
            sent as the text that spells it.
        generates: 0, or 1 for servers that do not take `max_tokens: 0`.

    Raises:
        InputError: the tokenizer does not keep the bytes of the text.
    """

    path = "/v1/completions"

    def __init__(self, tokenizer: Any, *, prefix_id: int | None, prefix_by_server: bool, generates: int) -> None:
        self._tokenizer, self._prefix_id, self._by_server = tokenizer, prefix_id, prefix_by_server
        self._vocabulary = Vocabulary.of(tokenizer)
        self.generates = generates

    def body(self, model: str, ids: Sequence[int]) -> JsonObject:
        return {
            "model": model,
            "prompt": self._text(ids),
            "max_tokens": self.generates,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }

    def read(self, content: Any, ids: Sequence[int]) -> Answer:
        found = field(only(field(content, "choices"), "choices"), "logprobs")
        values = field(found, "token_logprobs")
        if not isinstance(values, list) or len(values) < len(ids):
            n = len(values) if isinstance(values, list) else 0
            raise WrongAnswerError(f"{len(ids)} tokens were sent, but {n} log-probabilities came back")
        texts = field(found, "tokens")
        if not isinstance(texts, list) or len(texts) != len(values):
            raise WrongAnswerError("the answer has not as many tokens as log-probabilities")
        if len(values) > len(ids) + self.generates:
            raise WrongAnswerError(f"{len(ids)} tokens were sent, but the server made {len(values)} of them")
        check_tokens(list(map(str, texts)), self._pieces(ids), self._names(ids))
        if values[0] not in (None, 0, 0.0):
            raise WrongAnswerError("the first token has a log-probability, though nothing stands before it")
        logprobs = np.full(len(ids), np.nan)
        for i in range(1, len(ids)):
            logprobs[i] = as_logprob(values[i], i)
        return Answer(logprobs)

    def _text(self, ids: Sequence[int]) -> str:
        prefix = [] if self._prefix_id is None else [self._prefix_id]
        document = list(ids[len(prefix) :])
        try:
            text = b"".join(self._document_pieces(document)).decode()
        except (UnicodeDecodeError, IndexError):
            raise UnsendableError(
                "its tokens are no text: they begin or end inside a character, or stand for none"
            ) from None
        sent = document if self._by_server else list(ids)
        if not self._by_server:
            text = "".join(self._names(prefix)) + text
        again = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if again != sent:
            at = next(
                (i for i, (a, b) in enumerate(zip(again, sent, strict=False)) if a != b), min(len(again), len(sent))
            )
            raise UnsendableError(f"the server would make other tokens of its text, from token {at} on")
        return text

    def _pieces(self, ids: Sequence[int]) -> list[bytes]:
        n_prefix = 0 if self._prefix_id is None else 1
        return [name.encode() for name in self._names(ids[:n_prefix])] + self._document_pieces(list(ids[n_prefix:]))

    def _document_pieces(self, ids: list[int]) -> list[bytes]:
        """The bytes of text of each token of a document without its prefix."""
        array, lengths = np.array(ids, np.int32), np.array([len(ids)])
        text = self._vocabulary.text_bytes(array, lengths).tobytes()
        ends = np.cumsum(self._vocabulary.byte_lengths(array, lengths)).tolist()
        return [text[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]

    def _names(self, ids: Sequence[int]) -> list[str]:
        return [str(name) for name in self._tokenizer.convert_ids_to_tokens(list(ids))]
