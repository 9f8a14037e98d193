"""The benchmark's documents: real text of 10 to 20,000 tokens, in slices of the same mixture."""

import argparse
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from demo.corpus import _source, _topics
from demo.model import base_model
from rho_score.models.encode import encode
from rho_score.models.tokenizer import load_tokenizer

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
    """Lines and whole modules of the standard library and CPython's documentation topics; at least `n_tokens` tokens.

    Documents are dealt by length, the longest first, each to the slice that has the fewest tokens.

    Raises:
        ValueError: there is not so much text.
    """
    tokenizer = load_tokenizer(str(base_model()))
    taken: list[tuple[str, np.ndarray]] = []
    n = 0
    for text in _texts():
        if n >= n_tokens:
            break
        (ids,) = encode(tokenizer, [text])
        if len(ids) >= 10:
            taken.append((text, ids))
            n += len(ids)
    else:
        raise ValueError(f"there are {n:,} tokens of text here, fewer than {n_tokens:,}")
    dealt: list[Slice] = [Slice([], []) for _ in range(SLICES)]
    for text, ids in sorted(taken, key=lambda one: -len(one[1])):
        least = min(dealt, key=lambda one: one.tokens)
        least.texts.append(text)
        least.ids.append(ids)
    return dealt


def _texts() -> Iterator[str]:
    long = inspect.getsource(argparse)[:LONG_CHARACTERS]
    yield long
    yield from [line.strip() for line in long.splitlines() if len(line.strip()) > 40][:60]
    yield from (text.text or "" for text in [*_source(), *_topics()[1::2]])
    for module in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):  # a GPU takes more
        if "site-packages" not in module.parts:
            yield module.read_text(errors="replace")[:LONG_CHARACTERS]
