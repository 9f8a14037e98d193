"""Text into token ids, as the model was trained to read it but with special-token strings as plain text."""

import logging
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from rho_score.engine import check_attempts
from rho_score.errors import InputError, RhoScoreError
from rho_score.schema import TOKENIZED, list_column
from rho_score.tokenizer import hash_tokenizer, load_tokenizer

log = logging.getLogger(__name__)

CHARACTERS_TOGETHER = 4 << 20


def prefix_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that a document's first token is conditioned on: BOS, else EOS, else none (then that loss is null)."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return None


def resolve_prefix(choice: str, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> int | None:
    """The id that `--prefix` means: `auto` (see `prefix_id`), `none`, or an id below `vocabulary`.

    Raises:
        InputError: anything else.
    """
    if choice == "none":
        return None
    if choice != "auto":
        if not choice.isdecimal() or int(choice) >= vocabulary:
            raise InputError(f"--prefix is auto, none or the id of a token, 0 to {vocabulary - 1}; got {choice!r}.")
        return int(choice)
    if (found := prefix_id(tokenizer)) is None:
        log.warning(
            "neither the tokenizer nor config.json names a BOS or EOS token, so the first token of every document gets no loss "
            "(null). Give --prefix ID if the model was trained with one, or --prefix none to say so."
        )
    return found


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, int32[n]; an empty text gives an empty array.

    Nothing is added (no BOS, no EOS), nothing is cut, and a text that spells a special token, such as `<|im_end|>`, is
    tokenized as the characters it is made of.
    """
    return [ids for some in _together(texts) for ids in _encode(tokenizer, some)]


def _together(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts by the few megabytes: what a tokenizer notes of each token takes a hundred bytes while it is at work."""
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
            f"this node's tokenizer of {model} is another than the driver's. Give every node the same files."
        )
    return tokenizer


def tokenize_unit(documents: pa.Table, *, model: str, trust_remote_code: bool, tokenizer_sha256: str) -> pa.Table:
    """Replace the text of a unit by its token ids; `schema.DOCUMENTS` → `schema.TOKENIZED`."""
    check_attempts(f"tokenizing unit {documents['unit'][0].as_py()}")
    texts = documents["text"]
    present = texts.is_valid().to_numpy()
    encoded = encode(_tokenizer(model, trust_remote_code, tokenizer_sha256), texts.drop_null().to_pylist())
    lengths = np.zeros(len(present), np.int64)
    lengths[present] = [len(ids) for ids in encoded]
    values = np.concatenate([np.zeros(0, np.int32), *encoded])
    return documents.drop_columns("text").append_column(TOKENIZED.field("input_ids"), list_column(values, lengths))
