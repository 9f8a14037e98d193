"""Checks that the pool of model workers fits the cluster, before the output is begun."""

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from rho_score.cluster.ray_cluster import connected, starts_its_own
from rho_score.cluster.room import lost_nodes, n_that_fit, room_for, wait_for_a_cpu, youngest_node
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
    wait_for_a_cpu()
    nodes = _cpus_in_time(workers + 1, f"{workers} workers and one CPU for reading need at least {workers + 1}")
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

    have = ray.cluster_resources()
    if not gpus:
        _refuse_too_many_cpus(workers, cpus)
        if have.get("GPU", 0):
            log.warning("the cluster has GPUs, but this run uses none. Give --gpus-per-worker 1 to use them.")
    else:
        _refuse_too_many_gpus(workers, cpus, gpus)


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


def _refuse_too_many_gpus(workers: int, cpus: int, gpus: float) -> None:
    """Raises InputError for a pool with GPUs that the nodes never hold together with a CPU for reading."""
    import ray

    have = ray.cluster_resources()
    worker = {"CPU": cpus, "GPU": gpus}
    fit, n_cpus = n_that_fit(worker), workers * cpus + 1
    if fit >= workers and have.get("CPU", 0) >= n_cpus:
        return
    needs = f"{workers} workers of {gpus:g} GPUs and {cpus} CPUs"
    if have.get("GPU", 0) < workers * gpus:
        short = f"{needs} need {workers * gpus:g} GPUs, but the cluster has {have.get('GPU', 0):g}"
    elif have.get("CPU", 0) < n_cpus:
        short = f"{needs}, and one CPU for reading, need {n_cpus} CPUs, but the cluster has {have.get('CPU', 0):g}"
    else:
        short = f"{needs} are asked for, but the nodes of the cluster hold {fit} such workers"
    _refuse_what_never_fits([worker] * workers + [{"CPU": 1}], short)


def _refuse_too_many_cpus(workers: int, cpus: int) -> None:
    """Raises InputError for a pool that leaves no CPU for reading, or whose workers fit no node, for ever."""
    need = workers * cpus + 1
    needs = f"{workers} workers of {cpus} CPUs and one CPU for reading need {need}"
    nodes = _cpus_in_time(need, needs)
    fit = sum(int(node) // cpus for node in nodes)
    if fit >= workers and sum(nodes) >= need:
        return
    short = f"{needs}, but the cluster has {sum(nodes):.0f}"
    if fit < workers and sum(nodes) >= need:
        short += f", and the CPUs of its nodes ({_listed(nodes)}) hold {fit} such workers"
    _refuse_what_never_fits([{"CPU": cpus}] * workers + [{"CPU": 1}], short)


def _listed(nodes: Sequence[float]) -> str:
    """The CPUs of the nodes: "4 × 2, 1 × 16"."""
    return ", ".join(f"{n} × {cpus:.0f}" for cpus, n in sorted(Counter(nodes).items(), reverse=True))


def _refuse_what_never_fits(bundles: Sequence[Mapping[str, float]], short: str) -> None:
    """Tells that the run waits for nodes, or raises InputError if none can come.

    bundles: what the smallest pool needs, each on one node. short: what is missing, for the message.
    """
    answer = room_for(bundles)
    while answer in ("never", "silent") and time.time() < youngest_node() + NODES_JOIN_S:
        answer = room_for(bundles)
    if answer == "there":
        return
    if answer == "coming":
        log.info("%s. Its autoscaler is adding nodes.", short)
    elif answer == "busy" or (answer == "silent" and lost_nodes()):
        log.warning(
            "%s. Waiting for nodes to join or to be free; or lower --workers, --cpus-per-worker or --gpus-per-worker.",
            short,
        )
    elif bundles == [{"CPU": 1}] * 2:
        raise InputError(
            f"{short}. Start it with --num-cpus 2 (the number of tasks at a time, which may be more than its cores), or add a "
            "node, or unset RAY_ADDRESS to work on this machine alone."
        )
    else:
        grows = ", and its autoscaler can start no nodes that would be enough" if answer == "never" else ""
        raise InputError(
            f"{short}{grows}. Lower --workers, --cpus-per-worker or --gpus-per-worker, or give the cluster more or larger nodes."
        )


def _cpus_in_time(need: int, needs: str) -> list[float]:
    """Returns the CPUs of each node that is alive, waiting for nodes that may join.

    It waits until the CPUs are enough, or until no node has joined for `NODES_JOIN_S` seconds.
    """
    told = False
    while True:
        nodes = _alive_cpus()
        left = youngest_node() + NODES_JOIN_S - time.time()
        if not 0 < sum(nodes) < need or left <= 0:
            return nodes
        if not told:
            log.info("%s, but the cluster has %.0f. Waiting %.0f s for other nodes to join.", needs, sum(nodes), left)
            told = True
        time.sleep(min(1.0, left))


def _alive_cpus() -> list[float]:
    import ray

    return [float(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
