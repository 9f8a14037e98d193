"""The tokens of preference pairs, as TRL's DPOTrainer makes them."""

from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from rho_score.models.chat import Message, shared

Content = str | list[Message]
"""A text, or the messages of a chat."""


class Pair(NamedTuple):
    """The tokens of both responses, each behind the prompt."""

    chosen: np.ndarray
    """int32[n]"""
    rejected: np.ndarray
    """int32[m]"""
    n_prompt: int
    """The tokens that are prompt in both."""


def pair_tokens(
    tokenizer: PreTrainedTokenizerBase, prompt: Content | None, chosen: Content, rejected: Content, *, template: str
) -> Pair:
    """The tokens of a pair, whose prompt, if it is None, is what both responses begin with.

    Strings get what the tokenizer puts around a text by itself, and the EOS token at their end.
    Messages are written out by the chat template. The prompt reaches as far as the tokens of the
    prompt by itself are those of both texts.

    Raises:
        Exception: what the template raises if it refuses a chat.
    """
    if prompt is None:
        n = _shared_prompt(chosen, rejected)
        prompt, chosen, rejected = chosen[:n], chosen[n:], rejected[n:]

    def tokens(content: Any, *, ask: bool = False) -> list[int]:
        if isinstance(content, str):
            return list(tokenizer(content, verbose=False)["input_ids"])
        written: Any = tokenizer.apply_chat_template(
            content, chat_template=template, add_generation_prompt=ask, return_dict=True
        )
        return list(written["input_ids"])

    asked = tokens(prompt, ask=True) if prompt else []
    whole = [tokens(prompt + _ended(tokenizer, response)) for response in (chosen, rejected)]  # type: ignore[operator]
    n_prompt = min(shared(asked, ids) for ids in whole)
    return Pair(np.array(whole[0], np.int32), np.array(whole[1], np.int32), n_prompt)


def _ended(tokenizer: PreTrainedTokenizerBase, response: Content) -> Content:
    """A response with the EOS token at its end; messages have what the template writes."""
    eos = tokenizer.eos_token
    return response + eos if isinstance(response, str) and eos and not response.endswith(eos) else response


def _shared_prompt(chosen: Content, rejected: Content) -> int:
    """How many characters or messages are the prompt of both.

    A space before the place where they differ belongs to the responses, because tokens begin with
    it. If one is the beginning of the other, its last character or message is its response.
    """
    n = shared(chosen, rejected)
    if n == min(len(chosen), len(rejected)):
        return max(n - 1, 0)
    return n - 1 if n and chosen[n - 1] == " " else n
