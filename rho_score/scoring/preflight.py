"""Checks that the pool of model workers fits the cluster, before the output is begun."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from rho_score.cluster.ray_cluster import connected, starts_its_own
from rho_score.errors import InputError

log = logging.getLogger(__name__)

NODES_JOIN_S = 30.0  # nodes of a new cluster join one after the other


def default_cpus(workers: int, *, gpus: float) -> int:
    """Returns the CPUs of each worker if the user does not say.

    For workers without GPUs on a cluster, they leave one CPU for reading. workers: the smallest
    number of workers.
    """
    if gpus:
        return 2
    here = os.cpu_count() or 1
    if not connected():
        return here
    nodes = _cpus_in_time(workers + 1, f"{workers} workers and one CPU for reading need at least {workers + 1}")
    if not sum(nodes):  # an autoscaler will add nodes
        return here
    chosen = largest_share(nodes, workers)
    if chosen < here and workers * chosen < sum(nodes):
        log.info(
            "each worker has %d of this machine's %d cores, because the cluster has %d CPUs and one is left for reading",
            chosen, here, sum(nodes),
        )  # fmt: skip
    return chosen


def largest_share(nodes: Sequence[float], workers: int) -> int:
    """Returns the most CPUs that each worker can have, each on one of these nodes.

    One CPU is left over. The result is at least 1.
    """
    for cpus in range(int(max(nodes)), 1, -1):
        if workers * cpus + 1 <= sum(nodes) and sum(int(node) // cpus for node in nodes) >= workers:
            return cpus
    return 1


def check_pool(*, workers: int, cpus: int, gpus: float) -> None:
    """Raises InputError for a pool that the cluster can never hold; the run would wait forever.

    workers: the smallest number of workers. A cluster that is starting has fewer nodes at first,
    and one that lost nodes may get them back: the run waits for these.

    Raises:
        InputError: the message says what is needed, what is there and what to lower.
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
            "a worker asks for %d CPUs of one node, but the largest node has %d. Waiting for a larger one; or lower --cpus-per-worker.",
            cpus, largest,
        )  # fmt: skip
    if not gpus and have.get("GPU", 0):
        log.warning("the cluster has GPUs, but this run uses none. Give --gpus-per-worker 1 to use them.")
    if have.get("GPU", 0) < gpus:
        log.warning("the cluster has %s GPUs now; waiting for its autoscaler to add nodes", have.get("GPU", 0))


def _refuse_missing_gpus(workers: int, gpus: float) -> None:
    """Raises InputError if this machine is the whole cluster and lacks the GPUs for the pool.

    No other node would ever join.
    """
    need, have = workers * gpus, torch.cuda.device_count()
    if need > have:
        raise InputError(
            f"{workers} workers of {gpus:g} GPUs each need {need:g}, but this machine has {have}. Set RAY_ADDRESS to a "
            "cluster that has them, or lower --workers or --gpus-per-worker."
        )


def _refuse_too_many_cpus(workers: int, cpus: int) -> None:
    """Raises InputError for a pool that leaves no CPU for reading in a cluster that cannot grow."""
    import ray

    need = workers * cpus + 1
    needs = f"{workers} workers of {cpus} CPUs and one CPU for reading need {need}"
    have = sum(_cpus_in_time(need, needs))
    if not 0 < have < need:
        return
    short = f"{needs}, but the cluster has {have:.0f}"
    if _most_cpus() >= need:
        log.warning("%s. Waiting for its autoscaler to add nodes.", short)
    elif not all(node["Alive"] for node in ray.nodes()):
        log.warning("%s. It has lost nodes. Waiting for others; or lower --workers or --cpus-per-worker.", short)
    elif workers == cpus == 1:
        raise InputError(
            f"{short}. Start it with --num-cpus 2 (the number of tasks at a time, which may be more than its cores), or add a "
            "node, or unset RAY_ADDRESS to work on this machine alone."
        )
    else:
        raise InputError(f"{short}. Lower --workers or --cpus-per-worker.")


def _cpus_in_time(need: int, needs: str) -> list[float]:
    """Returns the CPUs of each node that is alive, waiting for nodes that may join.

    It waits until the CPUs are enough, or until no node has joined for `NODES_JOIN_S` seconds.
    """
    told = False
    while True:
        nodes = _alive_cpus()
        left = _youngest() + NODES_JOIN_S - time.time()
        if not 0 < sum(nodes) < need or left <= 0:
            return nodes
        if not told:
            log.info("%s, but the cluster has %.0f. Waiting %.0f s for other nodes to join.", needs, sum(nodes), left)
            told = True
        time.sleep(min(1.0, left))


def _alive_cpus() -> list[float]:
    import ray

    return [float(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _youngest() -> float:
    """Returns when the last node joined, in seconds since the epoch."""
    from ray._private.worker import global_worker  # no public way tells when a node started

    worker: Any = global_worker
    nodes = worker.gcs_client.get_all_node_info().values()
    return max((node.start_time_ms / 1000 for node in nodes), default=0.0)


def _most_cpus() -> int:
    """Returns the number of CPUs that the autoscaler may bring the cluster to.

    It is 0 if there is no autoscaler or it does not say.
    """
    from ray._private.state import state

    return int((state.get_max_resources_from_cluster_config() or {}).get("CPU", 0))
