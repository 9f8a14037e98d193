"""Turns text into token ids as the model reads it, but with special-token strings as plain text."""

from collections.abc import Iterator, Sequence

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase

CHARACTERS_TOGETHER = 4 << 20


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the token ids of each text, int32[n]; an empty text gives an empty array.

    Nothing is added (no BOS, no EOS) and nothing is cut. A text that spells a special token, such
    as `<|im_end|>`, is tokenized as the characters it is made of.
    """
    return [
        np.asarray(ids, np.int32)
        for some in _together(texts)
        for ids in _encode(tokenizer, some, special=False, places=False)["input_ids"]
    ]


def encode_special(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Returns the token ids of a text, in which what spells a special token is one, as servers read it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def encode_with_places(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the token ids of each text, int32[n], and where each token is in it, int64[n, 2].

    The places are characters, (start, stop). special: True if what spells a special token is one.
    """
    for some in _together(texts):
        encoded = _encode(tokenizer, some, special=special, places=True)
        for ids, places in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            yield np.asarray(ids, np.int32), np.asarray(places, np.int64).reshape(-1, 2)


def _together(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yields the texts in lists of a few megabytes.

    A tokenizer takes about a hundred bytes of memory per token while it works.
    """
    some: list[str] = []
    size = 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= CHARACTERS_TOGETHER:
            yield some
            some, size = [], 0
    if some:
        yield some


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, special: bool, places: bool) -> BatchEncoding:
    encoded: BatchEncoding = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=not special,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=places,
        truncation=False,
        padding=False,
        verbose=False,
    )
    return encoded
