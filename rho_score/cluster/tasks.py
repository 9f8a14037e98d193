"""Ray tasks, or threads where there is no cluster: results as they finish, and in order."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from rho_score.cluster.ray_cluster import connected
from rho_score.errors import RhoScoreError
from rho_score.files.retries import add_retries, retries_counted

T = TypeVar("T")
R = TypeVar("R")
Reference = Any
"""What a task is to give: Ray's reference to it, or, without a cluster, the result itself."""


# Nodes vanish: a task is run again that often, elsewhere. An error of its own ends the run at once.
TASK_RETRIES = 20


def check_attempts(what: str) -> None:
    """End the run where the task that this process is at ended `TASK_RETRIES` workers before: Ray Data would begin it again
    for ever.

    Raises:
        RhoScoreError: names `what` the task does.
    """
    if not connected():
        return
    from ray._private.worker import global_worker  # the number of an attempt is in no public place

    core: Any = getattr(global_worker, "core_worker", None)
    attempts = getattr(core, "get_current_task_attempt_number", int)()
    if attempts >= TASK_RETRIES:
        raise RhoScoreError(
            f"{what} ended its worker {attempts} times; Ray's logs say how (memory? a library's fault?). What is published stays. "
            "Give the nodes more memory, or take the cause out of the corpus; the same command begins to count anew."
        )


def in_tasks(
    work: Callable[[T], R], items: Iterable[T], *, workers: int | None = None
) -> Iterator[tuple[int, Reference]]:
    """`work(item)` for every item, each in a Ray task of one CPU; (index, reference to the result) as they finish.

    An error of a task is raised when that task ends, though its result is not fetched. At most `workers` are under way; by
    default a few for each CPU of the cluster, so that an autoscaler sees more to do. Without a cluster: a thread a CPU.
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

    limit = workers or max(16, 4 * int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Reference, tuple[int, Reference]] = {}

    def finished() -> Iterator[tuple[int, Reference]]:
        for reference in ray.wait(list(running), num_returns=1)[0]:
            add_retries(ray.get(reference))
            yield running.pop(reference)

    for index, item in enumerate(items):
        if len(running) >= limit:
            yield from finished()
        both: Any = task.remote(item)
        running[both[0]] = index, both[1]
    while running:
        yield from finished()


def _in_threads(work: Callable[[T], R], items: Iterable[T], n_threads: int) -> Iterator[tuple[int, R]]:
    running: dict[Future[R], int] = {}
    limit = 2 * n_threads  # as many wait, so that no thread does while the caller looks at a result

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
        pool.shutdown(cancel_futures=True)  # where one failed, what waits is not begun


class _Shared(Iterator[T]):
    """An iterator that threads share: each item goes to one of them. After `end` there are no more."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)

    def end(self) -> None:
        """Give out nothing more."""
        with self._lock:
            self._items = iter(())


def in_turn(work: Callable[[Iterator[T]], R], items: Iterable[T], *, workers: int | None = None) -> list[R]:
    """`work` in a thread a CPU (or `workers` of them), all of which take their items from one iterator; what each returns.

    So no thread waits for the last one, and there are as many results as threads. An error or Ctrl-C ends the others after
    the item that they are at.
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
    """`work` as a Ray task of one CPU on references, which gives a reference; without a cluster, `work` itself."""
    if not connected():
        return work
    import ray

    task: Callable[..., Reference] = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(work).remote
    return task


def result(reference: Reference) -> Any:
    """What a reference stands for."""
    if not connected():
        return reference
    import ray

    return ray.get(reference)


def in_order(results: Iterable[tuple[int, T]]) -> Iterator[tuple[int, T]]:
    """Numbered results as they come, by their numbers from 0 on; those that came early are held."""
    early: dict[int, T] = {}
    following = 0
    for index, result in results:
        early[index] = result
        while following in early:
            yield following, early.pop(following)
            following += 1
