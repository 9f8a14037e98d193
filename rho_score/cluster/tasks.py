"""Runs work in Ray tasks, or in threads if there is no cluster."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

from rho_score.cluster.ray_cluster import connected
from rho_score.cluster.room import wait_for_a_cpu
from rho_score.errors import RhoScoreError
from rho_score.files.retries import add_retries, retries_counted

T = TypeVar("T")
R = TypeVar("R")
Reference = Any
"""A handle for the result of a task: Ray's reference or, without a cluster, the result itself."""


END_S = 30.0
"""How long a run that failed waits for the end of the tasks that it has begun."""

# How often a task is run again elsewhere if its node vanishes. An error in the task itself ends the
# run.
TASK_RETRIES = 20


def check_attempts(what: str) -> None:
    """Ends the run if the current task has already ended `TASK_RETRIES` workers.

    Ray Data would begin the task again forever.

    Raises:
        RhoScoreError: the task ended that many workers; the message begins with `what`, which says
            what the task does.
    """
    if not connected():
        return
    # Ray has no public way to get the number of an attempt.
    from ray._private.worker import global_worker

    core: Any = getattr(global_worker, "core_worker", None)
    attempts = getattr(core, "get_current_task_attempt_number", int)()
    if attempts >= TASK_RETRIES:
        raise RhoScoreError(
            f"{what} ended its worker {attempts} times; Ray's logs say why (no memory, or a crash in a library). What is "
            "published stays. Give the nodes more memory, or remove the cause from the corpus. Then run the same command again, "
            "which starts a new count."
        )


def in_tasks(
    work: Callable[[T], R], items: Iterable[T], *, workers: int | None = None
) -> Iterator[tuple[int, Reference]]:
    """Runs `work(item)` for every item, each in a Ray task of one CPU.

    Yields (index, reference to the result) as the tasks finish. An error in a task is raised when
    that task ends, although its result is not fetched. At most `workers` tasks run at a time. The
    default is a few per CPU of the cluster, so that an autoscaler sees that there is more to do.
    Without a cluster, there is one thread per CPU.
    """
    if not connected():
        yield from _in_threads(work, items, workers or os.cpu_count() or 1)
        return
    import ray

    @ray.remote(num_cpus=1, max_retries=TASK_RETRIES, num_returns=2)
    def task(item: T) -> tuple[dict[str, int], R]:
        with retries_counted() as made:
            done = work(item)
        return made, done

    wait_for_a_cpu()
    limit = workers or max(16, 4 * int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Reference, tuple[int, Reference]] = {}

    def finished() -> Iterator[tuple[int, Reference]]:
        for reference in ray.wait(list(running), num_returns=1)[0]:
            add_retries(ray.get(reference))
            yield running.pop(reference)

    try:
        for index, item in enumerate(items):
            if len(running) >= limit:
                yield from finished()
            both: Any = task.remote(item)
            running[both[0]] = index, both[1]
        while running:
            yield from finished()
    finally:
        _wait_for_the_end(list(running))


def _wait_for_the_end(running: list[Reference]) -> None:
    """Waits for tasks, after an error, so that none writes behind the caller's back in a process that lives on.

    They are not cancelled: Ray 2.60 ends the whole process if it cancels a task that ends at the same moment.
    """
    import ray

    if running:
        with suppress(Exception):  # the error that ended the run says more
            ray.wait(running, num_returns=len(running), timeout=END_S)


def _in_threads(work: Callable[[T], R], items: Iterable[T], n_threads: int) -> Iterator[tuple[int, R]]:
    running: dict[Future[R], int] = {}
    limit = 2 * n_threads  # half of them wait, so that no thread does while the caller is busy

    def finished() -> Iterator[tuple[int, R]]:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()

    pool = ThreadPoolExecutor(n_threads)
    try:
        for index, item in enumerate(items):
            if len(running) >= limit:
                yield from finished()
            running[pool.submit(work, item)] = index
        while running:
            yield from finished()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, waiting items are not begun


class _Shared(Iterator[T]):
    """An iterator that threads share: each item goes to one of them. After `end`, none are left."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)

    def end(self) -> None:
        """Drops all remaining items."""
        with self._lock:
            self._items = iter(())


def in_turn(work: Callable[[Iterator[T]], R], items: Iterable[T], *, workers: int | None = None) -> list[R]:
    """Runs `work` in one thread per CPU, or in `workers` threads; returns what each returned.

    All threads take their items from one iterator, so that none waits for the slowest. There are as
    many results as threads. After an error or Ctrl-C, the other threads end after their current
    item.
    """
    n_threads = workers or os.cpu_count() or 1
    shared = _Shared(items)
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            running = [pool.submit(work, shared) for _ in range(n_threads)]
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            shared.end()
        return [future.result() for future in running]


def as_task(work: Callable[..., Any]) -> Callable[..., Reference]:
    """Returns `work` as a Ray task of one CPU that takes and returns references.

    Without a cluster, it returns `work` itself.
    """
    if not connected():
        return work
    import ray

    task: Callable[..., Reference] = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(work).remote
    return task


def result(reference: Reference) -> Any:
    """Returns the result that a reference stands for."""
    if not connected():
        return reference
    import ray

    return ray.get(reference)


def in_order(results: Iterable[tuple[int, T]]) -> Iterator[tuple[int, T]]:
    """Yields numbered results in the order of their numbers, from 0; holds back early ones."""
    early: dict[int, T] = {}
    following = 0
    for index, result in results:
        early[index] = result
        while following in early:
            yield following, early.pop(following)
            following += 1
