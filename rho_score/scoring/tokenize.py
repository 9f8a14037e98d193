"""Turns text into token ids as the model reads it, but with special-token strings as plain text."""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from rho_score.cluster.tasks import check_attempts
from rho_score.errors import RhoScoreError
from rho_score.files.arrow import list_column
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer
from rho_score.scoring.blocks import TOKENIZED

CHARACTERS_TOGETHER = 4 << 20


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the token ids of each text, int32[n]; an empty text gives an empty array.

    Nothing is added (no BOS, no EOS) and nothing is cut. A text that spells a special token, such
    as `<|im_end|>`, is tokenized as the characters it is made of.
    """
    return [ids for some in _together(texts) for ids in _encode(tokenizer, some)]


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


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[np.ndarray]:
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        truncation=False,
        padding=False,
        verbose=False,
    )
    return [np.asarray(ids, np.int32) for ids in encoded["input_ids"]]


@lru_cache(maxsize=1)
def _tokenizer(model: str, trust_remote_code: bool, sha256: str) -> PreTrainedTokenizerBase:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the task asked for half a CPU, not for all
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    if hash_tokenizer(tokenizer) != sha256:
        raise RhoScoreError(
            f"this node's tokenizer of {model} differs from the driver's. Give every node the same files."
        )
    return tokenizer


def tokenize_unit(documents: pa.Table, *, model: str, trust_remote_code: bool, tokenizer_sha256: str) -> pa.Table:
    """Returns a unit with token ids in place of its text.

    The schemas are `DOCUMENTS` and `TOKENIZED` of `rho_score.scoring.blocks`.
    """
    check_attempts(f"tokenizing unit {documents['unit'][0].as_py()}")
    texts = documents["text"]
    present = texts.is_valid().to_numpy()
    encoded = encode(_tokenizer(model, trust_remote_code, tokenizer_sha256), texts.drop_null().to_pylist())
    lengths = np.zeros(len(present), np.int64)
    lengths[present] = [len(ids) for ids in encoded]
    values = np.concatenate([np.zeros(0, np.int32), *encoded])
    return documents.drop_columns("text").append_column(TOKENIZED.field("input_ids"), list_column(values, lengths))
