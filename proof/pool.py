"""Runs commands in several processes, each with a thread of its own, and says how far it is."""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple


class Piece(NamedTuple):
    """A command, and where its output goes."""

    command: str
    log: Path
    size: int
    """Tokens, by which the time that is left is estimated."""
    done: Path
    """A file that is there once the piece is done."""


class Meter:
    """Prints what is done, and how long the rest takes."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._counted = total, 0, 0
        self._before, self._begun = 0.0, time.monotonic()

    def begin(self) -> None:
        """Times a part of the work, after a pause."""
        self._begun = time.monotonic()

    def end(self) -> None:
        """Ends a part of the work."""
        self._before += time.monotonic() - self._begun

    def skip(self, size: int) -> None:
        """Counts what was done before."""
        self._done += size

    def add(self, size: int, what: str) -> None:
        """Counts what was done now, and prints a line."""
        self._done += size
        self._counted += size
        took = self._before + time.monotonic() - self._begun
        left = took / max(1, self._counted) * max(0, self._total - self._done)
        share = min(1.0, self._done / max(1, self._total))
        print(f"[{share:4.0%}] {what} ({took / 60:.0f} min so far, about {left / 60:.0f} min left)", flush=True)


def run_all(pieces: Sequence[Piece], meter: Meter, workers: int, tell: Callable[[Piece], str]) -> None:
    """Runs the pieces that are not done, `workers` at a time."""
    todo = []
    for piece in pieces:
        if piece.done.exists():
            meter.skip(piece.size)
        else:
            todo.append(piece)
    if not todo:
        return
    meter.begin()
    with ProcessPoolExecutor(min(workers, len(todo)), mp_context=get_context("spawn"), initializer=_alone) as pool:
        futures = {pool.submit(run, piece): piece for piece in todo}
        try:
            for future in as_completed(futures):
                future.result()
                meter.add(futures[future].size, tell(futures[future]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    meter.end()


def run(piece: Piece) -> None:
    """Runs a piece in this process."""
    from demo.command import rho_score

    with logged(piece.log):
        rho_score(piece.command)


@contextlib.contextmanager
def logged(log: Path) -> Iterator[None]:
    """Appends what the `with` block prints to a file. A command that fails is a RuntimeError that names it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            yield
        except SystemExit as error:
            raise RuntimeError(f"{error}; {log} says why") from None


def _alone() -> None:
    """One thread a process: the same numbers however many processes there are."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def total(pieces: Iterable[Piece]) -> int:
    """The size of pieces."""
    return sum(piece.size for piece in pieces)
