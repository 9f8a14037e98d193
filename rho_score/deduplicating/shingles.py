"""Texts to words, words to shingles, shingles to MinHash signatures.

A word is a run of letters and digits in lower case. In scripts that are written without spaces
(Chinese, Japanese, Thai, Lao, Burmese, Khmer), each character is a word. A shingle is some words in
a row. A text with fewer words than a shingle is one shingle.
"""

import os
import re
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np
import orjson

from rho_score.config.corpus import ContentKind
from rho_score.deduplicating.bands import mixed

SEED = 20_260_101
"""Of all signatures, so that the same texts have the same signatures everywhere."""
_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(f"[{_NO_SPACES}]|[^\\W_{_NO_SPACES}]+")


def method() -> dict[str, Any]:
    """What determines the signatures besides the options."""
    from rensa import RMinHash

    return {"rensa": version("rensa"), "minhash_version": RMinHash.ALGORITHM_VERSION, "seed": SEED}


def plain_text(content: str, kind: ContentKind) -> str:
    """The text of a document whose words are compared.

    content: what `corpus.content` packs. Of a chat, it is the text of all messages, without roles,
    tool calls and the tools: long schemas would make all chats with the same tools alike.
    """
    if kind in ("text", "ids"):  # the numbers in a list of ids are its words
        return content
    value = orjson.loads(content)
    return "\n".join(_texts(value["messages"] if isinstance(value, dict) else value))


def words_of(text: str) -> list[str]:
    """The words of a text, in order."""
    return _WORD.findall(text.lower())


def shingle_hashes(words: Sequence[Sequence[str]], shingle: int) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all shingles of some documents, uint64[n], and how many each has, int64[n_docs].

    A document without words has no shingle.
    """
    from rensa import RMinHash

    lengths = np.array([len(of) for of in words], np.int64)
    counts = np.where(lengths > 0, np.maximum(lengths - shingle + 1, 1), 0)
    flat = np.fromiter(chain.from_iterable(RMinHash.hash_token_sets(list(words))), np.uint64, lengths.sum())
    starts = (
        np.repeat(np.cumsum(lengths) - lengths, counts)
        + np.arange(counts.sum())
        - np.repeat(np.cumsum(counts) - counts, counts)
    )
    ends = np.repeat(np.cumsum(lengths), counts)
    hashes = np.zeros(len(starts), np.uint64)
    for i in range(shingle):
        there = starts + i < ends
        hashes[there] = mixed(hashes[there] ^ flat[starts[there] + i])
    return hashes, counts


def signatures(words: Sequence[Sequence[str]], shingle: int, permutations: int) -> np.ndarray:
    """The MinHash signatures of documents, uint32[n_docs, permutations].

    Those of documents without words mean nothing.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # a task has one CPU; rensa reads this at its first call
    from rensa import RMinHash

    if not words:
        return np.zeros((0, permutations), np.uint32)
    hashes, counts = shingle_hashes(words, shingle)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, permutations, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def _texts(value: Any) -> list[str]:
    """The texts of messages or parts of messages, and strings, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    if isinstance(value, dict):
        return [text for key in ("content", "text") for text in _texts(value.get(key))]
    return []
