"""Turns what documents hold into token ids, and tells which of these count.

A text counts whole, and so does a list of ids, which comes as JSON. A text behind a prefix, or a
response behind a prompt, comes as the JSON of `[prefix, text]`, a chat as the JSON of its messages
or of `{"messages": …, "tools": …}`, and a response of a pair as that of
`["chosen" or "rejected", prompt, chosen, rejected]` (`rho_score.corpus.content`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from transformers import PreTrainedTokenizerBase

from rho_score.config.corpus import WHOLE, ContentKind
from rho_score.errors import InputError
from rho_score.models.chat import Message, dated, marks_turns, spans, template_of
from rho_score.models.encode import encode, encode_with_places
from rho_score.models.pairs import Pair, pair_tokens


class Encoded(NamedTuple):
    """The tokens of a document."""

    ids: np.ndarray
    """int32[n]"""
    counts: np.ndarray | None
    """True for tokens that count, bool[n]; None if all of them do."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How documents become tokens: plain data, which a task can be sent."""

    kind: ContentKind = "text"
    roles: tuple[str, ...] = ("assistant",)
    template: str = ""
    """The chat template, for chats. The same everywhere, whatever a node's files say."""
    vocabulary: int | None = None
    """The number of ids that the model has, for ids; None if it is not known."""
    dated: bool = False
    """True if the template writes the day that it was told."""

    @classmethod
    def of(
        cls,
        kind: ContentKind,
        tokenizer: PreTrainedTokenizerBase,
        *,
        roles: tuple[str, ...],
        date: str,
        model: str,
        vocabulary: int | None = None,
    ) -> "Encoder":
        """The encoder for documents of this kind.

        date: the day that chat templates are told as today's, YYYY-MM-DD. model: for messages.

        Raises:
            InputError: the tokenizer cannot tell which tokens count, or has no chat template.
        """
        if kind in WHOLE:
            return cls(kind=kind, vocabulary=vocabulary)
        if not tokenizer.is_fast:
            raise InputError(
                f"the tokenizer of {model} has no tokenizer.json, so it does not tell which characters a token has. Only "
                "whole texts can be scored with it."
            )
        if kind in ("prefixed", "response") or (kind == "pair" and not tokenizer.chat_template):
            return cls(kind=kind)
        template = template_of(tokenizer, model)
        with_date = dated(template, date)
        return cls(kind=kind, roles=tuple(sorted(set(roles))), template=with_date, dated=with_date != template)

    @property
    def counts_all(self) -> bool:
        """True if every token of a document counts."""
        return self.kind in WHOLE

    @property
    def template_sha256(self) -> str:
        """The SHA-256 of the chat template, with the day in it."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def encode(self, tokenizer: PreTrainedTokenizerBase, contents: Sequence[str]) -> list[Encoded | str]:
        """The tokens of each document, or the reason why it has none.

        Nothing is added to a text, and what spells a special token in it is plain text. The tokens
        of a chat are those of `apply_chat_template`. A token counts if it has at least one
        character of what counts.
        """
        if self.kind == "text":
            return [Encoded(ids, None) for ids in encode(tokenizer, contents)]
        if self.kind == "ids":
            return [self._ids(content) for content in contents]
        if self.kind == "messages":
            return self._chats(tokenizer, contents)
        if self.kind == "pair":
            return self._pairs(tokenizer, contents)
        pairs = [orjson.loads(content) for content in contents]
        found: list[Encoded | str] = []
        places = encode_with_places(tokenizer, [before + text for before, text in pairs], special=False)
        for (before, _), (ids, places_of) in zip(pairs, places, strict=True):
            found.append(Encoded(ids, places_of[:, 1] > len(before)))
        return found

    def _ids(self, content: str) -> Encoded | str:
        ids = np.array(orjson.loads(content), np.int32)
        if self.vocabulary is not None and len(beyond := np.flatnonzero(ids >= self.vocabulary)):
            return f"token {beyond[0]} is {ids[beyond[0]]}, but the model has ids from 0 to {self.vocabulary - 1} alone"
        return Encoded(ids, None)

    def _pairs(self, tokenizer: PreTrainedTokenizerBase, contents: Sequence[str]) -> list[Encoded | str]:
        @lru_cache(maxsize=1)  # both responses of a pair come one after the other
        def tokens(pair: str) -> Pair | str:
            prompt, chosen, rejected = orjson.loads(f"[{pair}")
            if not self.template and not isinstance(chosen, str):
                return "it holds messages, but the tokenizer has no chat template"
            try:
                return pair_tokens(tokenizer, prompt, chosen, rejected, template=self.template)
            except Exception as error:  # a template may raise anything
                return _refusal(error)

        found: list[Encoded | str] = []
        for content in contents:
            which, _, pair = content.partition(",")
            of = tokens(pair)
            if isinstance(of, Pair):
                ids = of.chosen if which == '["chosen"' else of.rejected
                found.append(Encoded(ids, np.arange(len(ids)) >= of.n_prompt))
            else:
                found.append(of)
        return found

    def _chats(self, tokenizer: PreTrainedTokenizerBase, contents: Sequence[str]) -> list[Encoded | str]:
        marked = self.roles == ("assistant",) and marks_turns(self.template)
        found: list[Encoded | str] = []
        written: dict[int, tuple[str, list[tuple[int, int]]]] = {}
        for i, content in enumerate(contents):
            found.append("")
            try:
                chat = orjson.loads(content)
                messages, tools = (chat["messages"], chat["tools"]) if isinstance(chat, dict) else (chat, None)
                if marked:
                    found[i] = _marked(tokenizer, messages, tools, self.template)
                else:
                    written[i] = spans(tokenizer, messages, tools=tools, roles=self.roles, template=self.template)
            except Exception as error:  # a template may raise anything
                found[i] = _refusal(error)
        encoded = encode_with_places(tokenizer, [text for text, _ in written.values()], special=True)
        for (i, (_, turns)), (ids, places) in zip(written.items(), encoded, strict=True):
            counts = np.zeros(len(ids), bool)
            for start, stop in turns:
                counts |= (places[:, 1] > start) & (places[:, 0] < stop)
            found[i] = Encoded(ids, counts)
        return found


def _refusal(error: Exception) -> str:
    return f"the chat template refuses it: {type(error).__name__}: {str(error)[:300]}"


def _marked(tokenizer: PreTrainedTokenizerBase, chat: list[Message], tools: Any, template: str) -> Encoded:
    """The tokens of a chat whose template marks the assistant's turns with `{% generation %}`."""
    written: Any = tokenizer.apply_chat_template(
        chat, tools=tools, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    return Encoded(np.asarray(written["input_ids"], np.int32), np.asarray(written["assistant_masks"], bool))
