"""The benchmark's documents: real text of 10 to 20,000 tokens, in slices of the same mixture."""

import argparse
import inspect
from typing import NamedTuple

import numpy as np

from demo.corpus import _source, _topics
from demo.model import base_model
from rho_score.model import load_tokenizer
from rho_score.tokens import encode

SLICES = 3
LONG_CHARACTERS = 84_000  # of one document: a little under 20,000 tokens


class Slice(NamedTuple):
    """Documents that every contender scores in turn."""

    texts: list[str]
    ids: list[np.ndarray]

    @property
    def tokens(self) -> int:
        """Tokens in all documents."""
        return sum(map(len, self.ids))


def slices(n_tokens: int) -> list[Slice]:
    """CPython's documentation topics, modules of the standard library, and lines of them; at least `n_tokens` tokens.

    Documents are dealt by length, the longest first, each to the slice that has the fewest tokens.
    """
    tokenizer = load_tokenizer(str(base_model()))
    long = inspect.getsource(argparse)[:LONG_CHARACTERS]
    lines = [line.strip() for line in long.splitlines() if len(line.strip()) > 40][:60]
    whole = [*_source(), *_topics()[1::2]]
    texts = [long, *lines, *(text.text or "" for text in whole)]
    encoded = encode(tokenizer, texts)
    taken: list[int] = []
    for i, ids in enumerate(encoded):
        if len(ids) >= 10 and sum(len(encoded[j]) for j in taken) < n_tokens:
            taken.append(i)
    dealt: list[Slice] = [Slice([], []) for _ in range(SLICES)]
    for i in sorted(taken, key=lambda i: -len(encoded[i])):
        least = min(dealt, key=lambda one: one.tokens)
        least.texts.append(texts[i])
        least.ids.append(encoded[i])
    return dealt
