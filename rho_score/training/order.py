"""Which blocks a step trains on: a function of the seed and the step alone."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Order(NamedTuple):
    """An endless sequence of block indices: each epoch is another permutation of all blocks."""

    n_blocks: int
    seed: int

    def at(self, place: int) -> int:
        """The block at this place of the sequence."""
        epoch, within = divmod(place, self.n_blocks)
        return int(_permutation(self.n_blocks, self.seed, epoch)[within])


@lru_cache(maxsize=2)
def _permutation(n_blocks: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n_blocks)


class RankPlaces(Sequence[int]):
    """The places of the sequence that one rank reads, one after another, over a whole run.

    A step has `batch` blocks, in micro-batches of `micro * n_ranks` consecutive blocks, of which
    each rank takes `micro`. All ranks together read each step's blocks once, in the order of the
    sequence, however many ranks there are.
    """

    def __init__(self, *, n_steps: int, batch: int, micro: int, rank: int, n_ranks: int) -> None:
        assert batch % (micro * n_ranks) == 0, "the batch has whole micro-batches"
        self._micro, self._rank, self._n_ranks = micro, rank, n_ranks
        self._length = n_steps * batch // n_ranks

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if not 0 <= index < self._length:
            raise IndexError(index)
        micro_batch, within = divmod(index, self._micro)
        return (micro_batch * self._n_ranks + self._rank) * self._micro + within
