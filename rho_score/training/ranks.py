"""Sums over the processes of a data-parallel run; with one process, the values themselves."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

from rho_score.errors import InputError, RhoScoreError

T = TypeVar("T")


class Ranks:
    """The processes of a group, or this one alone if torch.distributed is not initialised."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group

    @property
    def size(self) -> int:
        """The number of processes."""
        return dist.get_world_size(self._group) if self._many else 1

    @property
    def rank(self) -> int:
        """The place of this process among them."""
        return dist.get_rank(self._group) if self._many else 0

    @property
    def _many(self) -> bool:
        return dist.is_available() and dist.is_initialized()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the sum of every rank's values."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def min(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the least of every rank's values."""
        return self._reduced(values, dist.ReduceOp.MIN)

    def before(self, count: torch.Tensor) -> torch.Tensor:
        """Returns the sum of the counts of all lower ranks, a scalar like `count`."""
        if self.size == 1:
            return torch.zeros_like(count)
        every = [torch.empty_like(count) for _ in range(self.size)]
        dist.all_gather(every, count, group=self._group)
        return torch.stack(every)[: self.rank].sum().to(count.dtype)

    def gather(self, value: T) -> list[T]:
        """Returns every rank's value, which must be picklable, in the order of ranks."""
        if self.size == 1:
            return [value]
        every: list[T | None] = [None] * self.size
        dist.all_gather_object(every, value, group=self._group)
        return every  # type: ignore[return-value]

    def together(self, work: Callable[[], T]) -> T:
        """Runs `work` on every rank, and returns what it returned on this one.

        An error of the project on one rank is raised on all of them, so that none waits for the
        others in vain. It is a barrier, too.
        """
        found: list[T] = []
        error: RhoScoreError | None = None
        try:
            found.append(work())
        except RhoScoreError as raised:
            error = raised
        if error is not None and self.size == 1:
            raise error
        told = self.gather(None if error is None else (isinstance(error, InputError), str(error)))
        for one in told:
            if one is not None:
                raise (InputError if one[0] else RhoScoreError)(one[1]) from error
        return found[0]

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.size > 1:
            dist.barrier(self._group)

    def _reduced(self, values: torch.Tensor, how: "dist.ReduceOp.RedOpType") -> torch.Tensor:
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values, op=how, group=self._group)
        return values
