"""Which fast way a model stands: each is compared, before it is used, with the model's own plain forward.

The test documents reach beyond every length of the model's configuration after which its computation may change
(`lengths.special_lengths`), as far as the context goes.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from rho_score.errors import InputError
from rho_score.inference.batches import Passes
from rho_score.inference.forward import Way
from rho_score.inference.lengths import is_choice, special_lengths
from rho_score.models.directory import first_line

log = logging.getLogger(__name__)

# What is allowed, mean nats: between a fast way and the plain forward of the same dtype, and between two passes of a fast
# way in which only a document's neighbours differ.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}
STEADY = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
PROOF_TOKENS = 512  # in a pass of the proof, at least: its documents share one
SHORT = (3, 40, 17, 2, 109)  # tokens of the documents that every model is proved on
RUN = 32  # tokens in a row of which the mean is looked at too: a fault behind one length must not drown in a long document
APART = 8  # tokens more than a length between a run of tokens and its repetition


class ProofDocuments(NamedTuple):
    """Random token ids; those with even index stay the same in `others`, whatever their neighbours are."""

    ids: list[np.ndarray]
    others: list[np.ndarray]
    lengths: dict[int, str]
    """Lengths that the last document reaches beyond, by the names that the configuration gives them. If there are none, neither
    it nor the one before it, which is longer still where the context has room, is there."""

    @property
    def long(self) -> np.ndarray | None:
        """The document that reaches beyond the lengths."""
        return self.ids[-1] if self.lengths else None

    @property
    def tokens_together(self) -> int:
        """Tokens of a pass that has room for a document in company, padding included."""
        return max(PROOF_TOKENS, 2 * max(map(len, self.ids)) + 2)


def make_documents(passes: Passes) -> ProofDocuments:
    """The documents that a model's ways are proved on."""
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
    """Of a document that is one window: without a prefix its last token is only predicted."""
    return passes.context + (passes.prefix_id is None)


def long_document(random: np.random.Generator, vocabulary: int, lengths: Iterable[int], most: int) -> np.ndarray:
    """Random token ids, int64[at most `most`], that go beyond each of the lengths, the shortest first. There a run of tokens
    comes again that stands a little further back than the length: a model that looks too far copies it, and its losses tell.
    """
    document = random.integers(0, vocabulary, RUN)
    for length in lengths:
        missing = max(0, length + APART - len(document))
        document = np.concatenate([document, random.integers(0, vocabulary, missing)])
        back = len(document) - length - APART
        document = np.concatenate([document, document[back : back + RUN]])
    return document[:most]


def examine(passes: Passes, documents: ProofDocuments, dtype: torch.dtype, model: str) -> bool:
    """Look at the plain forward itself: whether windows must go whole and alone, since the loss of a token changes with the
    length of its pass, or layers choose the tokens that they attend to.

    Raises:
        InputError: the model is not causal, or its losses depend on what it read before.
    """
    whole = np.random.default_rng(1).integers(0, passes.forward.vocabulary, 24)
    if documents.long is not None:
        whole = documents.long
    kept = len(whole) - max(4, len(whole) // 8)
    changed = np.concatenate([whole[:kept], (whole[kept:] + 1) % passes.forward.vocabulary])
    # Cut off right before a length: what is computed in another way from there on is not, in these.
    cuts = {length - 1: f"{name} = {length}" for length, name in documents.lengths.items() if length - 1 < kept}
    cuts[kept] = ", ".join(f"{name} = {length}" for length, name in documents.lengths.items()) or "at any length"
    try:
        if passes.forward.has_position_table:  # which may have fewer rows than the configuration says
            passes([np.zeros(_most_tokens(passes), np.int64)])
        full, other, *parts = passes([whole, changed, *(whole[:cut] for cut in cuts)]).losses
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise InputError(
            f"{model} fails on random tokens, at most {passes.context} in a row: {first_line(error)[:300]} If "
            "it is about positions or lengths, give a smaller --context; else the model does not work on text alone."
        ) from error
    if _difference(other[:kept], full[:kept]) > TOLERANCE[dtype]:
        raise InputError(f"{model} is not causal: the loss of a token depends on tokens after it.")
    if chosen := [f"{name} = {length}" for length, name in documents.lengths.items() if is_choice(name)]:
        log.warning(
            "%s: layers choose the tokens that they attend to (%s), and rounding decides where two are alike. Every window goes "
            "through the model whole and alone, which is slower.", model, ", ".join(chosen),
        )  # fmt: skip
        return True
    differences = [_difference(part, full[: len(part)]) for part in parts]
    worst = max(range(len(parts)), key=lambda i: differences[i])
    if differences[worst] <= TOLERANCE[dtype]:
        return False
    name = list(cuts.values())[worst]
    _, again = passes([whole, whole[:kept]]).losses
    passes([whole[: min(cuts)]])  # so that what came before the next is short
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
    passes: Passes, documents: ProofDocuments, ways: Iterable[Way], dtype: torch.dtype, model: str
) -> tuple[Way, bool] | None:
    """The first of `ways` that gives what the plain forward gives, and whether windows longer than a pass may go in chunks.

    `passes` go the plain way when this is called. None: the plain forward itself has no finite loss on the test documents.
    """
    expected = passes(documents.ids).losses
    if not any(np.isfinite(loss).any() for loss in expected):
        return None
    for way in ways:
        with passes.of(documents.tokens_together, chunked=False):
            if reason := _fault(passes, way, dtype, documents, expected):
                log.warning("%s: not going %s: %s", model, way, reason)
                continue
        for chunk in _chunks(passes.context, documents):
            with passes.of(chunk, chunked=True):
                if reason := _fault(passes, way, dtype, documents, expected):
                    log.warning(
                        "%s: windows longer than a pass go through the model whole, not in chunks: %s", model, reason
                    )
                    return way, False
        return way, True
    log.warning("%s: using the plain forward, one window at a time, which is slower", model)
    return Way("plain"), False


def _chunks(context: int, documents: ProofDocuments) -> list[int]:
    """Tokens of the chunks to try: few; and, where the computation changes at a length, more than that length."""
    if documents.long is None:
        return [max(2, min(32, context // 3))]
    n, first = len(documents.long), min(documents.lengths)
    return [max(2, min(32, context // 3), n // 16), *([first + 5] if first + 5 < n - 1 else [])]


def _fault(
    passes: Passes, way: Way, dtype: torch.dtype, documents: ProofDocuments, expected: list[np.ndarray]
) -> str | None:
    """What is wrong with `way`: it gives something else than the plain forward, or another loss beside other neighbours."""
    try:
        passes.forward.go(way)
        found = passes(documents.ids).losses
        changed = found if passes.chunked else passes(documents.others).losses  # in chunks a window has no neighbours
    except Exception as error:  # whatever a model or a compiler does not stand: the next way will do
        return first_line(error).rstrip(".")[:300]
    if documents.lengths and (reason := _fault_behind(documents.lengths, found[-1], expected[-1], dtype)):
        return reason
    for what, difference, allowed in (
        ("it differs from the plain forward", _mean(found, expected), TOLERANCE[dtype]),
        ("documents see each other", _mean(found[::2], changed[::2]), STEADY[dtype]),
    ):
        if difference > allowed:
            return f"{what} by {difference:.1e} nats in the mean, {allowed:.0e} are allowed"
    return None


def _fault_behind(
    lengths: Mapping[int, str], found: np.ndarray, expected: np.ndarray, dtype: torch.dtype
) -> str | None:
    """What is wrong in the long document behind one of the lengths. What is allowed there depends on how much the two differ
    before the first, by the dtype's rounding alone."""
    calm = _mean([found[: min(lengths)]], [expected[: min(lengths)]])
    allowed = min(3 * TOLERANCE[dtype], max(6 * calm, TOLERANCE[dtype] / 2))
    for at in range(0, len(found), RUN):
        difference = _mean([found[at : at + RUN]], [expected[at : at + RUN]])
        if difference > allowed and np.isfinite(difference):
            passed = [f"{name} = {length}" for length, name in lengths.items() if length <= at + RUN]
            where = f", beyond {', '.join(passed[-3:])}" if passed else ""
            return (
                f"it differs from the plain forward by {difference:.1e} nats in the mean of the tokens from {at} on{where}; "
                f"{allowed:.0e} are allowed"
            )
    return None


def _mean(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Mean absolute difference over the tokens that have a loss in both; infinite where there is none."""
    difference: np.ndarray = np.abs(np.concatenate(found) - np.concatenate(expected))
    finite = difference[np.isfinite(difference)]
    return float(finite.mean()) if finite.size else float("inf")


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean absolute difference, or a third of that of the worst `RUN` tokens in a row; 0 where no token has a loss in both."""
    difference = np.abs(found - expected)
    difference = difference[np.isfinite(difference)]
    runs = difference[: len(difference) // RUN * RUN].reshape(-1, RUN).mean(axis=1)
    return max(float(difference.mean()) if difference.size else 0.0, float(runs.max(initial=0.0)) / 3)
