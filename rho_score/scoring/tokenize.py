"""Turns the texts of a unit into token ids."""

import os
import time
from functools import lru_cache

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from rho_score.cluster.tasks import check_attempts
from rho_score.errors import RhoScoreError
from rho_score.files.arrow import list_column
from rho_score.models.content import Encoded, Encoder
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer
from rho_score.scoring.blocks import COUNTS, TOKENIZED
from rho_score.scoring.live import Reporter
from rho_score.scoring.unit_stats import add_seconds

_NOTHING = Encoded(np.zeros(0, np.int32), np.zeros(0, bool))


@lru_cache(maxsize=1)
def _tokenizer(model: str, trust_remote_code: bool, sha256: str) -> PreTrainedTokenizerBase:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the task asked for half a CPU, not for all
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    if hash_tokenizer(tokenizer) != sha256:
        raise RhoScoreError(
            f"this node's tokenizer of {model} differs from the driver's. Give every node the same files."
        )
    return tokenizer


def tokenize_unit(
    documents: pa.Table,
    *,
    model: str,
    trust_remote_code: bool,
    tokenizer_sha256: str,
    encoder: Encoder,
    reporter: Reporter | None = None,
) -> pa.Table:
    """Returns a unit with token ids in place of its text, and which of them count if not all do.

    A document that has no tokens, because the chat template refuses it, gets an error.

    The schemas are `DOCUMENTS` and `TOKENIZED` of `rho_score.scoring.blocks`. reporter: is told that
    the unit waits for a worker.
    """
    name, before = documents["unit"][0].as_py(), time.perf_counter()
    check_attempts(f"tokenizing unit {name}")
    unit = _tokenized(documents, _tokenizer(model, trust_remote_code, tokenizer_sha256), encoder)
    if reporter is not None:
        reporter.waits(name)
    return add_seconds(unit, "tokenize", time.perf_counter() - before)


def _tokenized(documents: pa.Table, tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> pa.Table:
    texts = documents["text"]
    tokens = [_NOTHING] * len(documents)
    errors = documents["error"].to_pylist()
    found = encoder.encode(tokenizer, texts.drop_null().to_pylist())
    for i, one in zip(np.flatnonzero(texts.is_valid().to_numpy()), found, strict=True):
        if isinstance(one, str):
            errors[i] = one
        else:
            tokens[i] = one
    lengths = np.array([len(one.ids) for one in tokens], np.int64)
    ids = np.concatenate([np.zeros(0, np.int32), *(one.ids for one in tokens)])
    unit = documents.drop_columns("text").append_column(TOKENIZED.field("input_ids"), list_column(ids, lengths))
    error = TOKENIZED.field("error")
    unit = unit.set_column(unit.schema.get_field_index("error"), error, pa.array(errors, error.type))
    if encoder.counts_all:
        return unit
    counts = np.concatenate([np.zeros(0, bool), *(one.counts for one in tokens if one.counts is not None)])
    return unit.append_column(COUNTS, list_column(counts, lengths))
