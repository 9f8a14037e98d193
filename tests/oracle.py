"""Independent answers: a plain float32 Hugging Face forward, one document at a time, and numpy's full sort."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def plain_losses(model: Any, ids: Sequence[int], *, prefix: int | None, context: int, overlap: int) -> np.ndarray:
    """Token losses from whole logits in float32, see `plain_log_probabilities`."""
    log_p = plain_log_probabilities(model, ids, prefix=prefix, context=context, overlap=overlap)
    return -log_p[np.arange(len(ids)), np.array(ids, np.int64)].astype(np.float64)


def plain_log_probabilities(
    model: Any, ids: Sequence[int], *, prefix: int | None, context: int, overlap: int
) -> np.ndarray:
    """The log-probabilities of all words at each token, float32[n, V], from whole logits in float32; the windows are found
    token by token, as the contract says it in words: the next window begins where the last one ended, with `overlap`
    tokens of context."""
    found = np.full((len(ids), model.config.get_text_config().vocab_size), np.nan, np.float32)
    scored = 0 if prefix is not None else 1
    while scored < len(ids):
        start = max(0, scored - overlap) if prefix is not None else max(0, scored - max(overlap, 1))
        inputs = ([] if prefix is None else [prefix]) + list(ids[start:])
        inputs = inputs[:context]
        with torch.inference_mode():
            logits = model(torch.tensor([inputs])).logits[0].float()
        log_p = torch.log_softmax(logits, dim=-1)
        offset = start if prefix is not None else start + 1
        for column in range(len(inputs)):
            i = offset + column
            if scored <= i < len(ids):
                found[i] = log_p[column].numpy()
        scored = min(len(ids), offset + len(inputs))
    return found


def full_sort_mask(scores: np.ndarray, n_keep: int, *, high: bool) -> np.ndarray:
    """The `n_keep` best scores by a stable sort of them all (so that ties go to the first); NaN are never kept."""
    present = np.flatnonzero(~np.isnan(scores))
    order = present[np.argsort(-scores[present] if high else scores[present], kind="stable")]
    mask = np.zeros(len(scores), bool)
    mask[order[:n_keep]] = True
    return mask


def load_float32(directory: Path) -> Any:
    """The model in float32 on the CPU."""
    import transformers

    (kind,) = json.loads((directory / "config.json").read_text())["architectures"]
    return getattr(transformers, kind).from_pretrained(directory, dtype=torch.float32).eval()
