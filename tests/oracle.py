"""Independent answers: a plain float32 Hugging Face forward, one document at a time, and numpy's full sort."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def plain_losses(model: Any, ids: Sequence[int], *, prefix: int | None, context: int, overlap: int) -> np.ndarray:
    """Token losses from whole logits in float32; the windows are found token by token, as the contract says it in words:
    the next window begins where the last one ended, with `overlap` tokens of context."""
    losses = np.full(len(ids), np.nan, np.float64)
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
                losses[i] = -log_p[column, ids[i]].item()
        scored = min(len(ids), offset + len(inputs))
    return losses


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
