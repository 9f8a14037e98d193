"""Which fast way a model stands: each is compared, before it is used, with the model's own plain forward."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from rho_score.errors import InputError
from rho_score.forward import Way
from rho_score.passes import Passes

log = logging.getLogger(__name__)

# What is allowed, mean nats: between a fast way and the plain forward of the same dtype, and between two passes of a fast
# way in which only a document's neighbours differ.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}
STEADY = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
PROOF_TOKENS = 512  # in a pass of the proof: its documents share one


def refuse_if_not_causal(passes: Passes, dtype: torch.dtype, model: str) -> None:
    """A causal model's losses do not change with what comes after; one whose losses do would score noise.

    Raises:
        InputError: the model is not causal.
    """
    vocabulary = passes.forward.vocabulary
    document = np.random.default_rng(1).integers(0, vocabulary, 24)
    changed = np.concatenate([document[:20], (document[20:] + 1) % vocabulary])
    before, after = (np.nan_to_num(loss[:20]) for loss in passes([document, changed]).losses)
    if float(np.abs(before - after).mean()) > TOLERANCE[dtype]:
        raise InputError(f"{model} is not causal: the loss of a token depends on tokens after it.")


def prove(passes: Passes, ways: Iterable[Way], dtype: torch.dtype, model: str) -> tuple[Way, bool] | None:
    """The first of `ways` that gives what the plain forward gives, and whether windows longer than a pass may go in chunks.

    `passes` go the plain way when this is called. None: the plain forward itself has no finite loss on the test documents.
    """
    ids = _random_documents(passes, 0)
    expected = passes(ids).losses
    if not any(np.isfinite(loss).any() for loss in expected):
        return None
    for way in ways:
        with passes.of(PROOF_TOKENS, chunked=False):
            if not _holds(passes, way, dtype, model, ids, expected):
                continue
        with passes.of(max(2, min(32, passes.context // 3)), chunked=True):
            return way, _holds(passes, way, dtype, model, ids, expected)
    log.warning("%s: using the plain forward, slower", model)
    return Way("plain"), False


def depends_on_length(config: Any, context: int) -> bool:
    """Whether windows of so many tokens must go through the model whole and alone: its rotary embedding has other frequencies
    in a pass that is longer than it was first trained for (LongRoPE), or its attention sees chunks that only its own mask
    tells of. The test documents are too short to show either.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # of all layers, or by kind of layer
    limits = [kind.get("original_max_position_embeddings", 0) for kind in kinds if kind.get("rope_type") == "longrope"]
    if chunk := getattr(text, "attention_chunk_size", None):
        limits.append(chunk)
    return any(context > limit for limit in limits)


def _random_documents(passes: Passes, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = (3, 40, 17, 2, min(passes.context, 100) + 9)
    return [random.integers(0, passes.forward.vocabulary, n) for n in lengths]


def _holds(
    passes: Passes, way: Way, dtype: torch.dtype, model: str, ids: list[np.ndarray], expected: list[np.ndarray]
) -> bool:
    """Whether `way` gives what the plain forward gives, whatever a document's neighbours are."""
    others = [
        new if i % 2 else same for i, (same, new) in enumerate(zip(ids, _random_documents(passes, 2), strict=True))
    ]
    try:
        passes.forward.go(way)
        found, changed = passes(ids).losses, passes(others).losses
    except Exception as error:  # whatever a model or a compiler does not stand: the next way will do
        reason = str(error).strip().partition("\n")[0][:300]
        log.warning("%s: not going %s (%s: %s)", model, way, type(error).__name__, reason)
        return False
    for what, mean, allowed in (
        ("differs from the plain forward", _mean_difference(found, expected), TOLERANCE[dtype]),
        ("lets documents see each other", _mean_difference(found[::2], changed[::2]), STEADY[dtype]),
    ):
        if mean > allowed:
            log.warning("%s: not going %s, it %s: %.1e nats in the mean, allowed %.0e", model, way, what, mean, allowed)
            return False
    return True


def _mean_difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Mean absolute difference over the tokens that have a loss in both; infinite where there is none."""
    difference: np.ndarray = np.abs(np.concatenate(found) - np.concatenate(expected))
    finite = difference[np.isfinite(difference)]
    return float(finite.mean()) if finite.size else float("inf")
