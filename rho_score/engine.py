"""Ray: one place that starts or finds a cluster and sets what a run on vanishing nodes needs."""

import gc
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from rho_score.errors import RhoScoreError
from rho_score.reach import check_address, check_temp_folder, refusal
from rho_score.retries import add_retries, retries_counted

# Reading, tokenizing and writing ask for half a CPU: half their time they wait for storage, and a request unlike the
# model worker's keeps Ray from fusing them into it, where they would stop the model.
IO_CPUS = 0.5

T = TypeVar("T")
R = TypeVar("R")
Reference = Any
"""What a task is to give: Ray's reference to it, or, without a cluster, the result itself."""

# Nodes vanish: a task is run again that often, elsewhere. An error of its own ends the run at once.
TASK_RETRIES = 20


@contextmanager
def cluster(*, local_cpus: int) -> Iterator[None]:
    """The cluster that this process is connected to or that `RAY_ADDRESS` names (a job has it set); else one of our own.

    `local_cpus` are logical CPUs of our own cluster: enough for the workers and for reading beside them.
    """
    import ray  # here: a second to import, which threads do without
    from ray.exceptions import RayError

    ours = not connected()
    _quiet_backend()
    if starts_its_own():
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it tells that it is on
        configure_own_cluster(local_cpus)
        ray.init(address="local", num_cpus=local_cpus, include_dashboard=False, logging_level=logging.WARNING)
    elif ours:
        _join()
    try:
        yield
    except BaseException as error:  # Ctrl-C in a notebook too
        _let_go(error)
        if isinstance(error, RayError):
            raise _as_ours(error) from error
        raise
    finally:
        if ours:
            ray.shutdown()


def _quiet_backend() -> None:
    """Keep the C++ part of Ray from printing to the user's screen, unless the user chose a level.

    In every run it calls the way in which Ray Data makes its workers an error (ray-project/ray issue 57733). What ends a run
    comes as an exception. A cluster of our own inherits the level, so that its own log files hold fatal errors alone.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


def _join() -> None:
    """Connect to the cluster that `RAY_ADDRESS` names."""
    address = os.environ["RAY_ADDRESS"]
    check_address(address)
    import ray

    try:
        ray.init(logging_level=logging.WARNING)
    except Exception as error:  # of a version, of a token, of a machine that is no node: Ray has no class for them
        raise refusal(address, error) from error


@contextmanager
def joined() -> Iterator[None]:
    """The cluster that `RAY_ADDRESS` names, if it names one, joined before anything is written. A cluster of our own is
    started later, by `cluster`: where nothing is to be done it is not needed.

    Raises:
        InputError: `RAY_ADDRESS` is no address of a cluster.
        RhoScoreError: no cluster answers there, or it does not let this process in.
    """
    if connected() or starts_its_own():
        yield
        return
    with cluster(local_cpus=0):
        yield


def check_own_cluster() -> None:
    """Raises InputError where a cluster of this machine would have to be started, and cannot be."""
    if starts_its_own():
        check_temp_folder()


def _let_go(error: BaseException) -> None:
    """Drop what the frames of an error and of those behind it hold, and of the frames that called them.

    Ray Data ends its workers, and gives back their GPUs, when nothing refers to them any more; but frames of its scheduler,
    which is over, do until the garbage is collected, and in a notebook, which keeps the last error, for ever.
    """
    seen: list[BaseException] = []
    behind = [error]
    while behind:
        one = behind.pop()
        if one in seen:
            continue
        seen.append(one)
        behind += [e for e in (one.__cause__, one.__context__) if e is not None]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            for caller, _ in traceback.walk_stack(frame):
                with suppress(RuntimeError):  # it runs
                    caller.clear()
    gc.collect()


def configure_own_cluster(n_cpus: int) -> None:
    """Set what processes of a cluster that is started next inherit, unless the user did.

    Ray ends idle workers beyond one a CPU within seconds, but tasks here take half a CPU, and a worker takes seconds of
    computing to start: of 400 small units that was two thirds of the time. Its Data workers write three lines a unit into
    each of two files in Ray's folder.
    """
    os.environ.setdefault("RAY_num_workers_soft_limit", str(2 * n_cpus + 2))
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "WARNING")


@contextmanager
def cluster_or_threads() -> Iterator[None]:
    """The cluster that this process is connected to or that `RAY_ADDRESS` names; without one, tasks are threads of this
    process: a cluster of one machine takes longer to start and stop than a hundred million tokens take to select."""
    if starts_its_own():
        yield
    else:
        with cluster(local_cpus=0):
            yield


def connected() -> bool:
    """Whether this process is connected to a cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def starts_its_own() -> bool:
    """Whether there is no cluster to work on but one of this machine that is still to be started."""
    return not connected() and os.environ.get("RAY_ADDRESS", "") in ("", "local")


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


def node_name() -> str:
    """The name of the node that this worker runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def alive_nodes() -> set[str]:
    """The names of the cluster's nodes that are there now."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def in_tasks(
    work: Callable[[Any], Any], items: Iterable[Any], *, workers: int | None = None
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
    def task(item: Any) -> Any:
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


def _in_threads(work: Callable[[Any], Any], items: Iterable[Any], n_threads: int) -> Iterator[tuple[int, Any]]:
    running: dict[Future[Any], int] = {}
    limit = 2 * n_threads  # as many wait, so that no thread does while the caller looks at a result

    def finished() -> Iterator[tuple[int, Any]]:
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


def _as_ours(error: BaseException) -> RhoScoreError:
    """The error of ours that a task or a worker failed with, else one with all that Ray says."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None)
        if isinstance(cause, RhoScoreError):
            return RhoScoreError(str(cause))
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return RhoScoreError(f"a task of the run failed; run the same command again to resume.\n{error}")


def configure_data() -> None:
    """Set Ray Data up for a run of a block a unit on nodes that vanish."""
    from ray.data import DataContext  # a second to import, for those who need it

    context = DataContext.get_current()
    context.target_max_block_size = None  # a block is never split: block == unit
    context.execution_no_progress_timeout_s = -1  # spot nodes may be away for an hour
    context.max_consecutive_actor_init_deaths = 20  # nodes die while a model loads; a broken model is found before
    context.enable_progress_bars = False  # ours counts units, documents and tokens
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off
