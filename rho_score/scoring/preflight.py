"""Does the pool of model workers fit the cluster? Asked before the output is begun."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from rho_score.cluster.ray_cluster import connected, starts_its_own
from rho_score.errors import InputError

log = logging.getLogger(__name__)

NODES_JOIN_S = 30.0  # nodes of a cluster that was just started join one after the other


def default_cpus(workers: int, *, gpus: float) -> int:
    """CPUs of each worker where the user does not say: on a cluster, as many as leave one for reading.

    workers: the least that there are to be.
    """
    if gpus:
        return 2
    here = os.cpu_count() or 1
    if not connected():
        return here
    nodes = _cpus_in_time(workers + 1, f"{workers} workers and one CPU for reading need at least {workers + 1}")
    if not sum(nodes):  # an autoscaler is to add some
        return here
    chosen = largest_share(nodes, workers)
    if chosen < here and workers * chosen < sum(nodes):
        log.info(
            "each worker has %d of this machine's %d cores: the cluster has %d CPUs, and one is left for reading",
            chosen, here, sum(nodes),
        )  # fmt: skip
    return chosen


def largest_share(nodes: Sequence[float], workers: int) -> int:
    """The largest number of CPUs, at least 1, that each of so many workers can have of one of these nodes, so that one CPU is left."""
    for cpus in range(int(max(nodes)), 1, -1):
        if workers * cpus + 1 <= sum(nodes) and sum(int(node) // cpus for node in nodes) >= workers:
            return cpus
    return 1


def check_pool(*, workers: int, cpus: int, gpus: float) -> None:
    """Refuse a pool of at least so many workers that the cluster can never hold: it would wait for ever.

    A cluster that is starting has fewer nodes at first, and one that lost some has them again later: that is waited for.

    Raises:
        InputError: names what is needed, what is there and what to lower.
    """
    if starts_its_own():
        _refuse_missing_gpus(workers, gpus)
        return
    import ray

    if not gpus:
        _refuse_too_many_cpus(workers, cpus)
    nodes, have = ray.nodes(), ray.cluster_resources()
    largest = max((node["Resources"].get("CPU", 0) for node in nodes if node["Alive"]), default=0)
    if cpus > largest:
        log.warning(
            "a worker asks for %d CPUs of one node and the largest has %d; waiting for a larger one. Else give --cpus-per-worker",
            cpus, largest,
        )  # fmt: skip
    if not gpus and have.get("GPU", 0):
        log.warning("the cluster has GPUs and this run uses none; give --gpus-per-worker 1 to use them")
    if have.get("GPU", 0) < gpus:
        log.warning("the cluster has %s GPUs now; waiting for its autoscaler to add nodes", have.get("GPU", 0))


def _refuse_missing_gpus(workers: int, gpus: float) -> None:
    """Refuse a pool that this machine has not the GPUs for, where it is the whole cluster: none would ever join."""
    need, have = workers * gpus, torch.cuda.device_count()
    if need > have:
        raise InputError(
            f"{workers} workers of {gpus:g} GPUs each need {need:g}, this machine has {have}. Name a cluster that "
            "has them in RAY_ADDRESS, or lower --workers or --gpus-per-worker."
        )


def _refuse_too_many_cpus(workers: int, cpus: int) -> None:
    """Refuse a pool that leaves a fixed cluster no CPU for reading."""
    import ray

    need = workers * cpus + 1
    needs = f"{workers} workers of {cpus} CPUs and one CPU for reading need {need}"
    have = sum(_cpus_in_time(need, needs))
    if not 0 < have < need:
        return
    short = f"{needs}, the cluster has {have:.0f}"
    if _most_cpus() >= need:
        log.warning("%s. Waiting for its autoscaler to add nodes", short)
    elif not all(node["Alive"] for node in ray.nodes()):
        log.warning("%s. It has lost nodes; waiting for others. Else lower --workers or --cpus-per-worker.", short)
    elif workers == cpus == 1:
        raise InputError(
            f"{short}. Start it with --num-cpus 2 (a count of tasks at a time, more than there are cores if need be), or add a "
            "node, or unset RAY_ADDRESS to work on this machine alone."
        )
    else:
        raise InputError(f"{short}. Lower --workers or --cpus-per-worker.")


def _cpus_in_time(need: int, needs: str) -> list[float]:
    """The CPUs of each node that is alive: at once where they are enough or no node has joined for `NODES_JOIN_S`, else once
    they are enough or that time is over."""
    told = False
    while True:
        nodes = _alive_cpus()
        left = _youngest() + NODES_JOIN_S - time.time()
        if not 0 < sum(nodes) < need or left <= 0:
            return nodes
        if not told:
            log.info("%s, the cluster has %.0f; waiting %.0f s for other nodes to join", needs, sum(nodes), left)
            told = True
        time.sleep(min(1.0, left))


def _alive_cpus() -> list[float]:
    import ray

    return [float(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _youngest() -> float:
    """When the last of the nodes joined, seconds since the epoch."""
    from ray._private.worker import global_worker  # when a node started is in no public place

    worker: Any = global_worker
    nodes = worker.gcs_client.get_all_node_info().values()
    return max((node.start_time_ms / 1000 for node in nodes), default=0.0)


def _most_cpus() -> int:
    """How many CPUs the cluster's autoscaler may bring it to; 0 where it has none, or does not tell."""
    from ray._private.state import state

    return int((state.get_max_resources_from_cluster_config() or {}).get("CPU", 0))
