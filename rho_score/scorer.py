"""Per-token losses of documents under one model. No Ray here: a worker holds one `Scorer`, and so can a notebook."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from rho_score.config import Signal
from rho_score.errors import InputError
from rho_score.forward import Forward, Input, Way
from rho_score.model import ModelSource, load_model
from rho_score.windows import Window, packs, rectangles, windows

log = logging.getLogger(__name__)

# What the proof at load allows, mean nats: between a fast way and the plain forward of the same dtype, and between two
# passes of a fast way in which only a document's neighbours differ.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}
STEADY = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
LADDER = {
    torch.float16: [torch.float16, torch.bfloat16, torch.float32],
    torch.bfloat16: [torch.bfloat16, torch.float32],
}
PROOF_TOKENS = 512  # in a pass of the proof: its documents share one
SHAPES = 16  # a pack is filled up to a multiple of batch_tokens / SHAPES: so many shapes there are
FEWEST = 64  # tokens in a pass, below which being out of memory is not about the batch
DEFAULT_BATCH_TOKENS = 2048  # on a CPU: the activations of larger ones leave its cache
CUDA_BATCH_TOKENS = (4096, 65536)  # bounds of the budget that is found from a GPU's free memory


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a call found, a document an array, in order."""

    loss: list[np.ndarray]
    """float32[n], nats. NaN: no loss (the first token, where the vocabulary has no prefix; or no finite one)."""
    signals: dict[Signal, list[np.ndarray]]
    """float32[n] each. entropy: nats, of the distribution that the token was drawn from. rank: 0 where it is the argmax."""
    rescored: int
    """Documents that were scored again in a wider dtype, since they overflow in the narrow one."""
    positions: int
    """Positions that went through the model, padding included."""
    padding: int
    """Positions of padding among them."""


class _Piece(NamedTuple):
    document: int
    window: Window


class Scorer:
    """Scores documents with one causal LM.

    Windows are packed one behind the other into passes of `batch_tokens` positions, body first, then the head over blocks of
    the vocabulary; a window longer than that goes in chunks with a cache of keys and values. At load each fast way
    (`forward.Way`) is proved on a few documents against the model's own plain forward; where one differs, the next is
    taken, and a warning says so.
    """

    def __init__(
        self,
        model: str | ModelSource,
        *,
        dtype: str,
        context: int,
        overlap: int,
        prefix_id: int | None,
        batch_tokens: int | None = None,
        signals: Sequence[Signal] = (),
        compile: bool = False,
        device: str = "cpu",
    ) -> None:
        self.context, self.overlap, self.prefix_id = context, overlap, prefix_id
        self.signals: tuple[Signal, ...] = tuple(s for s in ("entropy", "rank") if s in signals)
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.batch_tokens = batch_tokens or DEFAULT_BATCH_TOKENS
        self._source = model if isinstance(model, ModelSource) else ModelSource(model=model)
        self._forward = self._load(self.dtype)
        self._chunked = False
        self._refuse_if_not_causal()
        self.way, self._chunked = self._prove(compile)
        self._forward.go(self.way)
        if batch_tokens is None and self.device.type == "cuda":
            self.batch_tokens = self._budget()

    def score_documents(self, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Loss of every token, in nats: `score(ids).loss`."""
        return self.score(ids).loss

    def score(self, ids: Sequence[np.ndarray]) -> Scored:
        """Loss and signals of every token.

        Args:
            ids: token ids of each document, int[n].

        A document whose losses are not finite in float16 is scored again in bfloat16, then in float32; one that still is
        not comes back as it is, for the caller to refuse.
        """
        found, positions, padding = self._pass(self._forward, ids)
        again: set[int] = set()
        for dtype in LADDER.get(self.dtype, [self.dtype])[1:]:
            if bad := [i for i, statistics in enumerate(found) if not self.is_finite(statistics[0])]:
                log.warning("%d documents overflow; scoring them again in %s", len(bad), dtype)
                again.update(bad)
                for i, statistics in zip(bad, self._wider([ids[i] for i in bad], dtype), strict=True):
                    found[i] = statistics
        return Scored(
            loss=[statistics[0] for statistics in found],
            signals={s: [statistics[i] for statistics in found] for i, s in enumerate(self.signals, 1)},
            rescored=len(again),
            positions=positions,
            padding=padding,
        )

    def is_finite(self, loss: np.ndarray) -> bool:
        """Whether every token that must have a loss has a finite one."""
        return bool(np.isfinite(loss[0 if self.prefix_id is not None else 1 :]).all())

    def _load(self, dtype: torch.dtype) -> Forward:
        model = load_model(self._source, dtype, self.device)
        return Forward(model, self.device, entropy="entropy" in self.signals, rank="rank" in self.signals)

    def _wider(self, ids: Sequence[np.ndarray], dtype: torch.dtype) -> list[np.ndarray]:
        """Score with a copy of the model in another dtype, which is dropped again; NaN where it does not fit in memory."""
        try:
            forward = self._load(dtype)
            forward.go(self.way._replace(compiled=False, fused_head=False))
            return self._pass(forward, ids)[0]
        except torch.OutOfMemoryError as error:
            log.warning("no memory for the model in %s: %s", dtype, error)
            return [np.full((1 + len(self.signals), len(document)), np.nan, np.float32) for document in ids]

    @torch.inference_mode()
    def _pass(self, forward: Forward, ids: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int, int]:
        """Statistics of each document, Shape (1 + signals, n); positions and padding that went through the model.

        Nothing waits for the device until all is launched.
        """
        found = [np.full((1 + len(self.signals), len(document)), np.nan, np.float32) for document in ids]
        pieces = [
            _Piece(i, window)
            for i, document in enumerate(ids)
            for window in windows(
                len(document), context=self.context, overlap=self.overlap, has_prefix=self.prefix_id is not None
            )
        ]
        done: list[tuple[_Piece, torch.Tensor]] = []
        positions = padding = 0
        for batch, size, statistics in self._batches(forward, ids, pieces):
            useful = sum(piece.window.stop - piece.window.start for piece in batch)
            useful -= 0 if self.prefix_id is not None else len(batch)
            positions, padding = positions + size, padding + size - useful
            counts = [piece.window.stop - piece.window.first for piece in batch]
            done.extend(zip(batch, statistics.split(counts, dim=1), strict=True))
        if done:
            values = torch.cat([statistics for _, statistics in done], dim=1).cpu().numpy()
            at = 0
            for piece, statistics in done:
                n = statistics.shape[1]
                found[piece.document][:, piece.window.first : piece.window.stop] = values[:, at : at + n]
                at += n
        return found, positions, padding

    def _batches(
        self, forward: Forward, ids: Sequence[np.ndarray], pieces: list[_Piece]
    ) -> Iterator[tuple[list[_Piece], int, torch.Tensor]]:
        """Pass pieces through the model; yields those of one pass, the positions it had, and its statistics.

        Out of memory: the budget is halved for good, and what is left is packed anew.
        """
        left = pieces
        while left:
            lengths = [p.window.stop - p.window.start for p in left]
            group = rectangles if forward.way.layout == "padded" else packs
            batches = group(lengths, batch_tokens=self.batch_tokens if forward.way.layout != "plain" else 1)
            passed: set[int] = set()
            for batch in batches:
                inputs = [self._input(ids, left[i]) for i in batch]
                try:
                    size, statistics = self._run(forward, inputs)
                except torch.OutOfMemoryError:
                    if self.batch_tokens // 2 < FEWEST or forward.way.layout == "plain":
                        raise
                    self.batch_tokens //= 2
                    torch.cuda.empty_cache()
                    log.warning("out of memory: going on with %d tokens in a pass", self.batch_tokens)
                    break
                passed.update(batch)
                yield [left[i] for i in batch], size, statistics
            left = [piece for i, piece in enumerate(left) if i not in passed]

    def _run(self, forward: Forward, inputs: list[Input]) -> tuple[int, torch.Tensor]:
        """One pass; how many positions it had, and its statistics."""
        lengths = [len(one.tokens) for one in inputs]
        n = sum(lengths)
        if self._chunked and n > self.batch_tokens:
            return n, forward.in_chunks(inputs[0], self.batch_tokens)
        if forward.way.layout == "padded":
            return max(lengths) * len(lengths), forward(inputs)
        if forward.way.layout == "plain":
            return n, forward(inputs)
        step = max(self.batch_tokens // SHAPES, 1)
        size = -(-n // step) * step
        return size, forward(inputs, size=size)

    def _input(self, ids: Sequence[np.ndarray], piece: _Piece) -> Input:
        document, (start, first, stop) = ids[piece.document], piece.window
        prefix = [] if self.prefix_id is None else [self.prefix_id]
        return Input(np.concatenate([prefix, document[start : stop - 1]]).astype(np.int64), document[first:stop])

    def _refuse_if_not_causal(self) -> None:
        """A causal model's losses do not change with what comes after; one whose losses do would score noise."""
        document = np.random.default_rng(1).integers(0, self._vocabulary, 24)
        changed = np.concatenate([document[:20], (document[20:] + 1) % self._vocabulary])
        found, *_ = self._pass(self._forward, [document, changed])
        before, after = (np.nan_to_num(statistics[0, :20]) for statistics in found)
        if float(np.abs(before - after).mean()) > TOLERANCE[self.dtype]:
            raise InputError(f"{self._source.model} is not causal: the loss of a token depends on tokens after it.")

    @property
    def _vocabulary(self) -> int:
        return int(self._forward.model.config.get_text_config().vocab_size)

    def _ways(self, compile: bool) -> list[Way]:
        """The ways to try, the fastest first."""
        fused = [Way("packed", compile, True)] if self.device.type == "cuda" and not self.signals else []
        return [*fused, *([Way("packed", True)] if compile else []), Way("packed"), Way("padded")]

    def _prove(self, compile: bool) -> tuple[Way, bool]:
        """The first of the fast ways that gives what the plain forward gives, on a few documents; and whether windows longer
        than a pass may go in chunks (where not, each goes in one pass).

        Where these documents overflow in `dtype` the comparison is made in a wider one.
        """
        ids = self._random_documents(0)
        for dtype in LADDER.get(self.dtype, [self.dtype]):
            forward = self._forward if dtype == self.dtype else self._load(dtype)
            expected = [statistics[0] for statistics in self._pass(forward, ids)[0]]
            if not any(np.isfinite(loss).any() for loss in expected):
                continue
            for way in self._ways(compile):
                with self._passes_of(PROOF_TOKENS, chunked=False):
                    if not self._holds(forward, way, dtype, ids, expected):
                        continue
                with self._passes_of(max(2, min(32, self.context // 3)), chunked=True):
                    return way, self._holds(forward, way, dtype, ids, expected)
            break
        log.warning("%s: using the plain forward, slower", self._source.model)
        return Way("plain"), False

    @contextmanager
    def _passes_of(self, batch_tokens: int, *, chunked: bool) -> Iterator[None]:
        before = self.batch_tokens, self._chunked
        self.batch_tokens, self._chunked = batch_tokens, chunked
        try:
            yield
        finally:
            self.batch_tokens, self._chunked = before

    def _random_documents(self, seed: int) -> list[np.ndarray]:
        random = np.random.default_rng(seed)
        return [random.integers(0, self._vocabulary, n) for n in (3, 40, 17, 2, min(self.context, 100) + 9)]

    def _holds(
        self, forward: Forward, way: Way, dtype: torch.dtype, ids: list[np.ndarray], expected: list[np.ndarray]
    ) -> bool:
        """Whether `way` gives what the plain forward gives, whatever a document's neighbours are."""
        others = [
            new if i % 2 else same for i, (same, new) in enumerate(zip(ids, self._random_documents(2), strict=True))
        ]
        try:
            forward.go(way)
            found, changed = ([s[0] for s in self._pass(forward, d)[0]] for d in (ids, others))
        except ImportError:  # an optional kernel that is not installed
            return False
        except Exception as error:  # whatever a model or a compiler does not stand: the next way will do
            reason = str(error).strip().partition("\n")[0][:300]
            log.warning("%s: not going %s (%s: %s)", self._source.model, way, type(error).__name__, reason)
            return False
        for what, mean, allowed in (
            ("differs from the plain forward", _mean_difference(found, expected), TOLERANCE[dtype]),
            ("lets documents see each other", _mean_difference(found[::2], changed[::2]), STEADY[dtype]),
        ):
            if mean > allowed:
                detail = f"{what}: {mean:.1e} nats in the mean, allowed {allowed:.0e}"
                log.warning("%s: not going %s, it %s", self._source.model, way, detail)
                return False
        return True

    def _budget(self) -> int:
        """Tokens in a pass from the free memory of the GPU: what one pass takes, and four fifths of what there is."""
        fewest, most = CUDA_BATCH_TOKENS
        ids = [np.zeros(fewest - 1, np.int64)]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.batch_tokens = fewest
        self._pass(self._forward, ids)
        taken = (torch.cuda.max_memory_allocated() - before) / fewest
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        budget = fewest
        while budget < most and 2 * budget * taken <= 0.8 * free:
            budget *= 2
        log.info("%d tokens in a pass: %.0f KiB each, %.1f GiB free", budget, taken / 1024, free / 2**30)
        return budget


def _mean_difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Mean absolute difference over the tokens that have a loss in both; infinite where there is none."""
    difference = np.abs(np.concatenate(found) - np.concatenate(expected))
    finite: Any = difference[np.isfinite(difference)]
    return float(finite.mean()) if finite.size else float("inf")
