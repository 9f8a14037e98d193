"""Starts or finds a Ray cluster, and sets it up for runs on nodes that may vanish."""

import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rho_score.cluster.backend_log import quiet_backend
from rho_score.cluster.reach import check_address, check_temp_folder, refusal
from rho_score.errors import RhoScoreError


@contextmanager
def cluster(*, local_cpus: int) -> Iterator[None]:
    """Runs the `with` block on the connected cluster, or the one `RAY_ADDRESS` names, or a new one.

    Jobs have `RAY_ADDRESS` set. A new cluster is on this machine alone and has `local_cpus` logical
    CPUs: enough for the workers and for reading at the same time.
    """
    import ray  # imported here because it takes a second, which runs on threads need not spend
    from ray.exceptions import RayError

    ours = not connected()
    if starts_its_own():
        # It logs that it is on.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        configure_own_cluster(local_cpus)
        with quiet_backend():
            ray.init(address="local", num_cpus=local_cpus, include_dashboard=False, logging_level=logging.WARNING)
    elif ours:
        _join()
    try:
        yield
    except BaseException as error:  # including Ctrl-C in a notebook
        _let_go(error)
        if isinstance(error, RayError):
            raise _as_ours(error) from error
        raise
    finally:
        if ours:
            ray.shutdown()


def _join() -> None:
    """Connects to the cluster that `RAY_ADDRESS` names."""
    address = os.environ["RAY_ADDRESS"]
    check_address(address)
    import ray

    try:
        with quiet_backend():
            ray.init(logging_level=logging.WARNING)
    except Exception as error:  # wrong versions, tokens or machines: Ray has no class for them
        raise refusal(address, error) from error


@contextmanager
def joined() -> Iterator[None]:
    """Joins the cluster that `RAY_ADDRESS` names, if it names one, before anything is written.

    A cluster on this machine is started later, by `cluster`, because a run with nothing to do does
    not need one.

    Raises:
        InputError: `RAY_ADDRESS` is not the address of a cluster.
        RhoScoreError: no cluster answers there, or it does not let this process in.
    """
    if connected() or starts_its_own():
        yield
        return
    with cluster(local_cpus=0):
        yield


def check_own_cluster() -> None:
    """Raises InputError if a cluster must be started on this machine and cannot be."""
    if starts_its_own():
        check_temp_folder()


def _let_go(error: BaseException) -> None:
    """Clears the frames of an error, of its causes, and of the callers of these frames.

    Ray Data ends its workers and gives back their GPUs once nothing refers to them. The frames of
    its scheduler refer to them until the garbage is collected, even after the scheduler has ended.
    In a notebook, which keeps the last error, they would do so forever.
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
                with suppress(RuntimeError):  # the frame is running
                    caller.clear()
    gc.collect()


def configure_own_cluster(n_cpus: int) -> None:
    """Sets environment variables for processes of the next cluster, unless the user has set them.

    Ray ends idle workers beyond one per CPU within seconds. But tasks here take half a CPU, and a
    worker takes seconds of computing to start: that was two thirds of the time for 400 small units.
    By default, Ray Data's workers also write three lines per unit into each of two files in Ray's
    folder.
    """
    os.environ.setdefault("RAY_num_workers_soft_limit", str(2 * n_cpus + 2))
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "WARNING")


@contextmanager
def cluster_or_threads() -> Iterator[None]:
    """Runs the `with` block on the connected cluster or the one that `RAY_ADDRESS` names.

    Without one, tasks are threads of this process: starting and stopping a cluster on one machine
    takes longer than a selection from a hundred million tokens.
    """
    if starts_its_own():
        yield
    else:
        with cluster(local_cpus=0):
            yield


def connected() -> bool:
    """True if this process is connected to a cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def starts_its_own() -> bool:
    """True if a run that needs a cluster would have to start one on this machine."""
    return not connected() and os.environ.get("RAY_ADDRESS", "") in ("", "local")


def actor_here(kind: type, *arguments: Any, **options: Any) -> Any:
    """Starts an actor that needs no CPU on the driver's node, and starts it again if it dies.

    That node stays for the whole run. An actor elsewhere would keep its node from being given back.

    arguments: of the class. options: of Ray's actor.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(kind)
    return actor.options(num_cpus=0, max_restarts=-1, scheduling_strategy=here, **options).remote(*arguments)


def node_name() -> str:
    """Returns the name of the node that this worker runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def alive_nodes() -> set[str]:
    """Returns the names of the cluster's nodes that are alive."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _as_ours(error: BaseException) -> RhoScoreError:
    """Returns the project's error that a task failed with, or else one with all that Ray says."""
    if (own := own_error(error)) is not None:
        return RhoScoreError(str(own))
    return RhoScoreError(f"a task of the run failed. Run the same command again to resume.\n{error}")


def own_error(error: BaseException) -> RhoScoreError | None:
    """Returns the project's error that an error of Ray's was made from; None if there is none.

    Ray's error for a task is of the task's own class as well; its text is a traceback.
    """
    from ray.exceptions import RayError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RhoScoreError) and not isinstance(seen, RayError):
            return seen
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return None
