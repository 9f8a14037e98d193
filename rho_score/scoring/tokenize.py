"""Turns the texts of a unit into token ids."""

import os
from functools import lru_cache

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from rho_score.cluster.tasks import check_attempts
from rho_score.errors import RhoScoreError
from rho_score.files.arrow import list_column
from rho_score.models.encode import encode
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer
from rho_score.scoring.blocks import TOKENIZED


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
