"""Runs documents through a model: cuts them into windows, packs these, and joins the results."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from rho_score.inference.forward import Forward, Input
from rho_score.inference.windows import Window, packs, rectangles, windows

log = logging.getLogger(__name__)

SHAPES = 16  # a pack is padded to a multiple of batch_tokens / SHAPES, so that few shapes occur
FEWEST = 64  # tokens in a pass; if fewer run out of memory, the pass is not the cause


def ignore(tokens: int) -> None:
    """Does nothing: the default of `on_tokens`."""


class _Piece(NamedTuple):
    document: int
    window: Window

    @property
    def n_targets(self) -> int:
        return self.window.stop - self.window.first


class Passed(NamedTuple):
    """The results of a few documents.

    statistics: float32[len(names), n_tokens] for each document, with a row for each of `names`.
    positions: number of positions that went through the model, padding included. padding: number of
    positions of padding among them.
    """

    names: tuple[str, ...]
    statistics: list[np.ndarray]
    positions: int
    padding: int

    def values(self, name: str) -> list[np.ndarray]:
        """Returns the statistic `name` of each document's tokens, float32[n_tokens]."""
        row = self.names.index(name)
        return [statistics[row] for statistics in self.statistics]

    def rows(self, name: str) -> list[np.ndarray]:
        """Returns all rows `name` of each document's tokens, float32[n_tokens, n_rows]."""
        chosen = [row for row, known in enumerate(self.names) if known == name]
        return [statistics[chosen].T for statistics in self.statistics]

    @property
    def losses(self) -> list[np.ndarray]:
        """The losses of each document's tokens in nats, float32[n_tokens]."""
        return self.values("loss")


@dataclass
class Passes:
    """Runs documents through `forward` in passes of at most `batch_tokens` positions.

    `batch_tokens` is halved for good when a pass runs out of memory and a smaller one fits.
    """

    forward: Forward
    context: int
    overlap: int
    prefix_id: int | None
    batch_tokens: int
    chunked: bool = False
    """True if windows longer than `batch_tokens` go in chunks; otherwise each goes in one pass."""

    @torch.inference_mode()
    def __call__(self, ids: Sequence[np.ndarray], on_tokens: Callable[[int], None] = ignore) -> Passed:
        """Returns the statistics of every token; NaN where a token has none.

        All passes are launched before anything waits for the device. `on_tokens` is called with the
        number of tokens of each pass once the pass is launched. On a CPU the pass is finished then;
        a GPU is at most a few passes behind.

        ids: token ids of each document, int[n_tokens].
        """
        found = [np.full((len(self.forward.statistics), len(document)), np.nan, np.float32) for document in ids]
        has_prefix = self.prefix_id is not None
        pieces = [
            _Piece(i, window)
            for i, document in enumerate(ids)
            for window in windows(len(document), context=self.context, overlap=self.overlap, has_prefix=has_prefix)
        ]
        done: list[tuple[_Piece, torch.Tensor]] = []
        positions = useful = 0
        for batch, size, statistics in self._launched(ids, pieces, on_tokens):
            positions += size
            useful += sum(piece.window.stop - piece.window.start - (not has_prefix) for piece in batch)
            done.extend(zip(batch, statistics.split([piece.n_targets for piece in batch], dim=1), strict=True))
        if done:
            values = torch.cat([statistics for _, statistics in done], dim=1).cpu().numpy()
            ends = np.cumsum([piece.n_targets for piece, _ in done])
            for (piece, _), own in zip(done, np.split(values, ends[:-1], axis=1), strict=True):
                found[piece.document][:, piece.window.first : piece.window.stop] = own
        return Passed(self.forward.statistics, found, positions, positions - useful)

    @contextmanager
    def with_limits(self, batch_tokens: int, *, chunked: bool) -> Iterator[None]:
        """Sets other limits of a pass inside the `with` block and restores them after it."""
        before = self.batch_tokens, self.chunked
        self.batch_tokens, self.chunked = batch_tokens, chunked
        try:
            yield
        finally:
            self.batch_tokens, self.chunked = before

    def _launched(
        self, ids: Sequence[np.ndarray], pieces: list[_Piece], on_tokens: Callable[[int], None]
    ) -> Iterator[tuple[list[_Piece], int, torch.Tensor]]:
        """Yields each pass: its pieces, number of positions, and statistics on the device."""
        left, before = pieces, self.batch_tokens
        while left:
            kind = self.forward.layout.kind
            group = rectangles if kind == "padded" else packs
            lengths = [piece.window.stop - piece.window.start for piece in left]
            passed: set[int] = set()
            for batch in group(lengths, batch_tokens=1 if kind == "plain" else self.batch_tokens):
                try:
                    size, statistics = self._run([self._input(ids, left[i]) for i in batch], on_tokens)
                except torch.OutOfMemoryError:
                    if kind == "plain" or self.batch_tokens // 2 < FEWEST:
                        self.batch_tokens = before  # the size of the pass was not the cause
                        raise
                    self.batch_tokens //= 2
                    torch.cuda.empty_cache()
                    log.warning("out of memory: going on with %d tokens in a pass", self.batch_tokens)
                    break  # pack the remaining windows again
                passed.update(batch)
                yield [left[i] for i in batch], size, statistics
            left = [piece for i, piece in enumerate(left) if i not in passed]

    def _run(self, inputs: list[Input], on_tokens: Callable[[int], None]) -> tuple[int, torch.Tensor]:
        kind = self.forward.layout.kind
        lengths = [len(one.tokens) for one in inputs]
        n = sum(lengths)
        if self.chunked and n > self.batch_tokens:
            return n, self.forward.in_chunks(inputs[0], self.batch_tokens, on_tokens)
        if kind == "packed":
            step = max(self.batch_tokens // SHAPES, 1)
            size = -(-n // step) * step
            statistics = self.forward(inputs, size=size)
        else:
            size = max(lengths) * len(lengths) if kind == "padded" else n
            statistics = self.forward(inputs)
        on_tokens(statistics.shape[1])
        return size, statistics

    def _input(self, ids: Sequence[np.ndarray], piece: _Piece) -> Input:
        document, (start, first, stop) = ids[piece.document], piece.window
        prefix = [] if self.prefix_id is None else [self.prefix_id]
        return Input(np.concatenate([prefix, document[start : stop - 1]]).astype(np.int64), document[first:stop])
