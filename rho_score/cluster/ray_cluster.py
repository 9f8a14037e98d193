"""Ray: one place that starts or finds a cluster and sets what a run on vanishing nodes needs."""

import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rho_score.cluster.reach import check_address, check_temp_folder, refusal
from rho_score.errors import RhoScoreError


@contextmanager
def cluster(*, local_cpus: int) -> Iterator[None]:
    """The cluster that this process is connected to or that `RAY_ADDRESS` names (a job has it set); else one of our own.

    `local_cpus` are logical CPUs of our own cluster: enough for the workers and for reading beside them.
    """
    import ray  # here: a second to import, which threads do without
    from ray.exceptions import RayError

    ours = not connected()
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


def node_name() -> str:
    """The name of the node that this worker runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def alive_nodes() -> set[str]:
    """The names of the cluster's nodes that are there now."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _as_ours(error: BaseException) -> RhoScoreError:
    """The error of ours that a task or a worker failed with, else one with all that Ray says."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None)
        if isinstance(cause, RhoScoreError):
            return RhoScoreError(str(cause))
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return RhoScoreError(f"a task of the run failed; run the same command again to resume.\n{error}")
