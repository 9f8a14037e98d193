"""Asks a cluster whether it has room for what a run needs, and its autoscaler whether there will ever be."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rho_score.cluster.ray_cluster import connected
from rho_score.errors import InputError

log = logging.getLogger(__name__)

Answer = Literal["there", "coming", "never", "busy", "silent"]

ANSWER_S = 20.0  # an autoscaler looks at what is asked for every five seconds
TIMES_REFUSED = 2  # an answer may be from before the question
TIMES_SEEN = 2  # nodes that are starting before an autoscaler has seen the question are for others


def room_for(bundles: Sequence[Mapping[str, float]], *, within_s: float = ANSWER_S) -> Answer:
    """Asks for these resources, each bundle on one node, until there is an answer, and gives them back.

    "there": the cluster has them free. "coming": its autoscaler is starting nodes. "never": no nodes
    that the autoscaler may start are enough, although nothing else uses the cluster. "busy": none of
    these within `within_s` seconds. "silent": there is no autoscaler, or one of Ray's first version,
    which does not tell.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(bundle) for bundle in bundles], strategy="PACK")
    refused, first, end = 0, 0, time.monotonic() + within_s
    try:
        while True:
            if group.wait(1.0):
                return "there"
            state = _autoscaling_state()
            if not state.autoscaler_state_version:
                return "silent"
            seen = state.last_seen_cluster_resource_state_version
            first = first or seen
            if any(group.id.hex() in one.details for one in state.infeasible_gang_resource_requests):
                refused += 1
                if refused >= TIMES_REFUSED and not _is_used():
                    return "never"
            elif seen >= first + TIMES_SEEN and (state.pending_instance_requests or state.pending_instances):
                return "coming"
            if time.monotonic() > end:
                return "busy"
    finally:
        remove_placement_group(group)


def _autoscaling_state() -> Any:
    """What the autoscaler said last to the cluster's head."""
    import ray
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    # As in `ray.autoscaler.v2.sdk.get_cluster_status`, which leaves the refusals out.
    raylet: Any = _raylet
    protocol: Any = autoscaler_pb2
    client = raylet.GcsClient(ray.get_runtime_context().gcs_address)
    reply = protocol.GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    return reply.autoscaling_state


def _is_used() -> bool:
    """True if work holds CPUs or GPUs of the cluster."""
    import ray

    free, all_ = ray.available_resources(), ray.cluster_resources()
    return any(free.get(kind, 0) < all_.get(kind, 0) for kind in ("CPU", "GPU"))


def n_that_fit(bundle: Mapping[str, float]) -> int:
    """How many of such bundles the nodes that are alive can hold, if nothing else uses them."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(math.floor(node.get(kind, 0) / n + 1e-9) for kind, n in bundle.items() if n) for node in nodes)


def lost_nodes() -> bool:
    """True if the cluster has lost nodes, which may come back."""
    import ray

    return not all(node["Alive"] for node in ray.nodes())


def youngest_node() -> float:
    """Returns when the last node joined, in seconds since the epoch."""
    from ray._private.worker import global_worker  # no public way tells when a node started

    worker: Any = global_worker
    nodes = worker.gcs_client.get_all_node_info().values()
    return max((node.start_time_ms / 1000 for node in nodes), default=0.0)


def wait_for_a_cpu() -> None:
    """Waits until a cluster that is to grow from nothing has a node with a CPU, and says so.

    Raises:
        InputError: its autoscaler says that there will never be one.
    """
    import ray

    told = False
    while connected() and not ray.cluster_resources().get("CPU"):
        if not told:
            log.warning("the cluster has no CPUs. Waiting for a node that has some.")
            told = True
        if room_for([{"CPU": 1}], within_s=60.0) == "never":
            raise InputError(
                "the cluster has no CPUs, and its autoscaler may start no node that has one. Add a type of nodes with CPUs to its "
                "configuration, or raise its largest number of nodes."
            )
