"""Finds the fast layouts that are right for a model: each is first compared with the plain forward.

The plain forward is the model's own. The test documents are longer than every length beyond which
the model's computation may change (`rho_score.inference.lengths.special_lengths`), as far as the
context allows.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from rho_score.errors import InputError
from rho_score.inference.batches import Passes
from rho_score.inference.forward import Layout
from rho_score.inference.lengths import is_choice, special_lengths
from rho_score.models.directory import first_line

log = logging.getLogger(__name__)

# The mean differences that are allowed, in nats. TOLERANCE: between a fast layout and the plain
# forward of the same dtype. STEADY: between two passes of a fast layout that differ in a document's
# neighbours.
FP8 = torch.float8_e4m3fn
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1, FP8: 5e-1}
STEADY = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2, FP8: 1e-2}
PROOF_TOKENS = 512  # fewest tokens in a pass of the check, so that its documents share one
SHORT = (3, 40, 17, 2, 109)  # tokens of the documents that every model is checked on
# The mean over so many tokens in a row is checked too, so that a fault beyond one length shows in a
# long document.
RUN = 32
APART = 8  # a run of tokens and its repetition are a length plus so many tokens apart


class ProofDocuments(NamedTuple):
    """Test documents of random token ids, and the same with other neighbours.

    Documents with an even index are the same in `ids` and in `others`.
    """

    ids: list[np.ndarray]
    others: list[np.ndarray]
    lengths: dict[int, str]
    """Lengths that the last document reaches beyond, with their names in the configuration.

    The document before it is even longer if the context has room. Without lengths, neither exists.
    """

    @property
    def long(self) -> np.ndarray | None:
        """The document that reaches beyond the lengths; None without lengths."""
        return self.ids[-1] if self.lengths else None

    @property
    def tokens_together(self) -> int:
        """Tokens of a pass, padding included, that has room for any document and a neighbour."""
        return max(PROOF_TOKENS, 2 * max(map(len, self.ids)) + 2)


def make_documents(passes: Passes) -> ProofDocuments:
    """Returns the documents that a model's layouts are checked on."""
    vocabulary, context = passes.forward.vocabulary, passes.context
    lengths = special_lengths(passes.forward.model.config, context)
    lengths = {length: name for length, name in lengths.items() if length > max(SHORT) // 2}
    random = np.random.default_rng(0)
    ids = [random.integers(0, vocabulary, min(n, context + 9)) for n in SHORT]
    if lengths:
        long = long_document(random, vocabulary, lengths, _most_tokens(passes))
        longer = random.integers(0, vocabulary, min(len(long) + RUN, _most_tokens(passes)))
        ids = [*ids, longer, long]
    others = [random.integers(0, vocabulary, len(one)) if i % 2 else one for i, one in enumerate(ids)]
    return ProofDocuments(ids, others, lengths)


def _most_tokens(passes: Passes) -> int:
    """Returns the most tokens of a document that is one window.

    Without a prefix this is one more than the context: the last token is only predicted.
    """
    return passes.context + (passes.prefix_id is None)


def long_document(random: np.random.Generator, vocabulary: int, lengths: Iterable[int], most: int) -> np.ndarray:
    """Returns random token ids, int64[at most `most`], that reach beyond each of the lengths.

    Beyond each length, the document repeats a run of tokens from a little further back than the
    length. A model that attends too far back copies the run, which shows in its losses.
    """
    document = random.integers(0, vocabulary, RUN)
    for length in lengths:
        missing = max(0, length + APART - len(document))
        document = np.concatenate([document, random.integers(0, vocabulary, missing)])
        back = len(document) - length - APART
        document = np.concatenate([document, document[back : back + RUN]])
    return document[:most]


def examine(passes: Passes, documents: ProofDocuments, dtype: torch.dtype, model: str) -> bool:
    """Returns True if the plain forward requires that every window goes whole and alone.

    It does if the loss of a token changes with the length of its pass, or if layers choose the
    tokens that they attend to.

    Raises:
        InputError: the model fails on random tokens, is not causal, or has losses that depend on
            what it read before.
    """
    whole = np.random.default_rng(1).integers(0, passes.forward.vocabulary, 24)
    if documents.long is not None:
        whole = documents.long
    kept = len(whole) - max(4, len(whole) // 8)
    changed = np.concatenate([whole[:kept], (whole[kept:] + 1) % passes.forward.vocabulary])
    # These parts end just before a length, so they are computed as if it did not exist.
    cuts = {length - 1: f"{name} = {length}" for length, name in documents.lengths.items() if length - 1 < kept}
    cuts[kept] = ", ".join(f"{name} = {length}" for length, name in documents.lengths.items()) or "at any length"
    try:
        if passes.forward.has_position_table:  # it may have fewer rows than the configuration says
            passes([np.zeros(_most_tokens(passes), np.int64)])
        full, other, *parts = passes([whole, changed, *(whole[:cut] for cut in cuts)]).losses
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise InputError(
            f"{model} fails on random tokens, at most {passes.context} in a row: {first_line(error)[:300]} If the error is "
            "about positions or lengths, give a smaller --context. Otherwise the model does not work on text alone."
        ) from error
    if _difference(other[:kept], full[:kept]) > TOLERANCE[dtype]:
        raise InputError(f"{model} is not causal: the loss of a token depends on tokens after it.")
    if chosen := [f"{name} = {length}" for length, name in documents.lengths.items() if is_choice(name)]:
        log.warning(
            "%s: some layers choose the tokens that they attend to (%s), and rounding decides between nearly equal ones. Every "
            "window goes through the model whole and alone, which is slower.", model, ", ".join(chosen),
        )  # fmt: skip
        return True
    differences = [_difference(part, full[: len(part)]) for part in parts]
    worst = max(range(len(parts)), key=lambda i: differences[i])
    if differences[worst] <= TOLERANCE[dtype]:
        return False
    name = list(cuts.values())[worst]
    _, again = passes([whole, whole[:kept]]).losses
    passes([whole[: min(cuts)]])  # so that the next pass follows a short one
    (once_more,) = passes([whole[:kept]]).losses
    if _difference(again, once_more) > TOLERANCE[dtype]:
        raise InputError(
            f"the losses of {model} depend on what it read before ({name}). Give a --context below "
            f"{min(documents.lengths, default=len(whole))}."
        )
    log.warning(
        "%s: the loss of a token changes with the length of its pass (%s), here by %.1e nats. Every window goes through the model "
        "whole and alone, which is slower.", model, name, differences[worst],
    )  # fmt: skip
    return True


def prove(
    passes: Passes, documents: ProofDocuments, layouts: Iterable[Layout], dtype: torch.dtype, model: str
) -> tuple[Layout, bool] | None:
    """Returns the first layout that agrees with the plain forward, and whether chunks do, too.

    Chunks are for windows longer than a pass. `passes` must be in the plain layout. Returns None if
    the plain forward has no finite loss on the test documents.
    """
    expected = passes(documents.ids).losses
    if not any(np.isfinite(loss).any() for loss in expected):
        return None
    for layout in layouts:
        with passes.with_limits(documents.tokens_together, chunked=False):
            if reason := _fault(passes, layout, dtype, documents, expected):
                log.warning("%s: the %s layout is not used: %s", model, layout, reason)
                continue
        for chunk in _chunks(passes.context, documents):
            with passes.with_limits(chunk, chunked=True):
                if reason := _fault(passes, layout, dtype, documents, expected):
                    log.warning(
                        "%s: windows longer than a pass go through the model whole, not in chunks: %s", model, reason
                    )
                    return layout, False
        return layout, True
    log.warning("%s: using the plain forward, one window at a time, which is slower", model)
    return Layout("plain"), False


def _chunks(context: int, documents: ProofDocuments) -> list[int]:
    """Returns the sizes of chunks to try, in tokens.

    The first is small. The second, if any, is beyond the first length at which the computation
    changes.
    """
    if documents.long is None:
        return [max(2, min(32, context // 3))]
    n, first = len(documents.long), min(documents.lengths)
    return [max(2, min(32, context // 3), n // 16), *([first + 5] if first + 5 < n - 1 else [])]


def _fault(
    passes: Passes, layout: Layout, dtype: torch.dtype, documents: ProofDocuments, expected: list[np.ndarray]
) -> str | None:
    """Returns what is wrong with `layout`, or None.

    Its losses must agree with the plain forward and must not change with a document's neighbours.
    """
    try:
        passes.forward.use_layout(layout)
        found = passes(documents.ids).losses
        # A window that goes in chunks has no neighbours.
        changed = found if passes.chunked else passes(documents.others).losses
    except Exception as error:  # a model or a compiler may fail in any way; try the next layout
        return first_line(error).rstrip(".")[:300]
    if documents.lengths and (reason := _fault_behind(documents.lengths, found[-1], expected[-1], dtype)):
        return reason
    for what, difference, allowed in (
        ("it differs from the plain forward", _mean(found, expected), TOLERANCE[dtype]),
        ("a document's losses change with its neighbours", _mean(found[::2], changed[::2]), STEADY[dtype]),
    ):
        if difference > allowed:
            return f"{what} by {difference:.1e} nats on average; at most {allowed:.0e} is allowed"
    return None


def _fault_behind(
    lengths: Mapping[int, str], found: np.ndarray, expected: np.ndarray, dtype: torch.dtype
) -> str | None:
    """Returns what is wrong in the long document beyond one of the lengths, or None.

    The allowed difference depends on how much `found` and `expected` differ before the first
    length, where only the rounding of the dtype makes them differ.
    """
    calm = _mean([found[: min(lengths)]], [expected[: min(lengths)]])
    allowed = min(3 * TOLERANCE[dtype], max(6 * calm, TOLERANCE[dtype] / 2))
    for at in range(0, len(found), RUN):
        difference = _mean([found[at : at + RUN]], [expected[at : at + RUN]])
        if difference > allowed and np.isfinite(difference):
            passed = [f"{name} = {length}" for length, name in lengths.items() if length <= at + RUN]
            where = f", beyond {', '.join(passed[-3:])}" if passed else ""
            return (
                f"it differs from the plain forward by {difference:.1e} nats on average over the tokens from {at} on{where}; "
                f"at most {allowed:.0e} is allowed"
            )
    return None


def _mean(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Returns the mean absolute difference over the tokens that have a loss in both.

    It is infinite if there are none.
    """
    difference: np.ndarray = np.abs(np.concatenate(found) - np.concatenate(expected))
    finite = difference[np.isfinite(difference)]
    return float(finite.mean()) if finite.size else float("inf")


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the mean absolute difference, or a third of that of the worst `RUN` tokens in a row.

    The larger one is returned; 0 if no token has a loss in both.
    """
    difference = np.abs(found - expected)
    difference = difference[np.isfinite(difference)]
    runs = difference[: len(difference) // RUN * RUN].reshape(-1, RUN).mean(axis=1)
    return max(float(difference.mean()) if difference.size else 0.0, float(runs.max(initial=0.0)) / 3)
