"""Documents through a model: cut into windows, packed into passes, and put together again."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from rho_score.inference.forward import Forward, Input
from rho_score.inference.windows import Window, packs, rectangles, windows

log = logging.getLogger(__name__)

SHAPES = 16  # a pack is filled up to a multiple of batch_tokens / SHAPES: so many shapes there are
FEWEST = 64  # tokens in a pass, below which being out of memory is not about the batch


class _Piece(NamedTuple):
    document: int
    window: Window

    @property
    def n_targets(self) -> int:
        return self.window.stop - self.window.first


class Passed(NamedTuple):
    """What passes gave: Shape (1 + signals, n), float32, of each document; and positions, and those of padding among them."""

    statistics: list[np.ndarray]
    positions: int
    padding: int

    @property
    def losses(self) -> list[np.ndarray]:
        """float32[n] of each document, nats."""
        return [statistics[0] for statistics in self.statistics]


@dataclass
class Passes:
    """How documents go through `forward`. `batch_tokens` is halved for good when memory runs out and less is enough."""

    forward: Forward
    context: int
    overlap: int
    prefix_id: int | None
    batch_tokens: int
    chunked: bool = False
    """Windows longer than a pass go in chunks; otherwise each goes in one pass."""

    @torch.inference_mode()
    def __call__(self, ids: Sequence[np.ndarray]) -> Passed:
        """Statistics of every token; NaN where a token has none. Nothing waits for the device until all is launched."""
        found = [np.full((self.forward.n_statistics, len(document)), np.nan, np.float32) for document in ids]
        has_prefix = self.prefix_id is not None
        pieces = [
            _Piece(i, window)
            for i, document in enumerate(ids)
            for window in windows(len(document), context=self.context, overlap=self.overlap, has_prefix=has_prefix)
        ]
        done: list[tuple[_Piece, torch.Tensor]] = []
        positions = useful = 0
        for batch, size, statistics in self._launched(ids, pieces):
            positions += size
            useful += sum(piece.window.stop - piece.window.start - (not has_prefix) for piece in batch)
            done.extend(zip(batch, statistics.split([piece.n_targets for piece in batch], dim=1), strict=True))
        if done:
            values = torch.cat([statistics for _, statistics in done], dim=1).cpu().numpy()
            ends = np.cumsum([piece.n_targets for piece, _ in done])
            for (piece, _), own in zip(done, np.split(values, ends[:-1], axis=1), strict=True):
                found[piece.document][:, piece.window.first : piece.window.stop] = own
        return Passed(found, positions, positions - useful)

    @contextmanager
    def of(self, batch_tokens: int, *, chunked: bool) -> Iterator[None]:
        """Passes of another size for a while."""
        before = self.batch_tokens, self.chunked
        self.batch_tokens, self.chunked = batch_tokens, chunked
        try:
            yield
        finally:
            self.batch_tokens, self.chunked = before

    def _launched(
        self, ids: Sequence[np.ndarray], pieces: list[_Piece]
    ) -> Iterator[tuple[list[_Piece], int, torch.Tensor]]:
        """The pieces of each pass, how many positions it has, and its statistics on the device."""
        left, before = pieces, self.batch_tokens
        while left:
            layout = self.forward.way.layout
            group = rectangles if layout == "padded" else packs
            lengths = [piece.window.stop - piece.window.start for piece in left]
            passed: set[int] = set()
            for batch in group(lengths, batch_tokens=1 if layout == "plain" else self.batch_tokens):
                try:
                    size, statistics = self._run([self._input(ids, left[i]) for i in batch])
                except torch.OutOfMemoryError:
                    if layout == "plain" or self.batch_tokens // 2 < FEWEST:
                        self.batch_tokens = before  # it was not about the size of the pass
                        raise
                    self.batch_tokens //= 2
                    torch.cuda.empty_cache()
                    log.warning("out of memory: going on with %d tokens in a pass", self.batch_tokens)
                    break  # what is left is packed anew
                passed.update(batch)
                yield [left[i] for i in batch], size, statistics
            left = [piece for i, piece in enumerate(left) if i not in passed]

    def _run(self, inputs: list[Input]) -> tuple[int, torch.Tensor]:
        layout = self.forward.way.layout
        lengths = [len(one.tokens) for one in inputs]
        n = sum(lengths)
        if self.chunked and n > self.batch_tokens:
            return n, self.forward.in_chunks(inputs[0], self.batch_tokens)
        if layout == "packed":
            step = max(self.batch_tokens // SHAPES, 1)
            size = -(-n // step) * step
            return size, self.forward(inputs, size=size)
        return max(lengths) * len(lengths) if layout == "padded" else n, self.forward(inputs)

    def _input(self, ids: Sequence[np.ndarray], piece: _Piece) -> Input:
        document, (start, first, stop) = ids[piece.document], piece.window
        prefix = [] if self.prefix_id is None else [self.prefix_id]
        return Input(np.concatenate([prefix, document[start : stop - 1]]).astype(np.int64), document[first:stop])
