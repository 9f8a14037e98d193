"""Asks a cluster whether it has room for what a run needs, and its autoscaler whether there will ever be."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rho_score.cluster.ray_cluster import connected
from rho_score.errors import InputError

Answer = Literal["there", "coming", "never", "busy", "silent"]

ANSWER_S = 20.0  # an autoscaler looks at what is asked for every five seconds
TIMES_REFUSED = 2  # an answer may be from before the question


def room_for(bundles: Sequence[Mapping[str, float]], *, within_s: float = ANSWER_S) -> Answer:
    """Asks for these resources, each bundle on one node, until there is an answer, and gives them back.

    "there": the cluster has them free. "coming": its autoscaler is starting nodes. "never": no nodes
    that the autoscaler may start are enough, although nothing else uses the cluster. "busy": none of
    these within `within_s` seconds. "silent": there is no autoscaler, or one of Ray's first version,
    which does not tell.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(bundle) for bundle in bundles], strategy="PACK")
    refused, end = 0, time.monotonic() + within_s
    try:
        while True:
            if group.wait(1.0):
                return "there"
            state = _autoscaling_state()
            if not state.autoscaler_state_version:
                return "silent"
            if any(group.id.hex() in one.details for one in state.infeasible_gang_resource_requests):
                refused += 1
                if refused >= TIMES_REFUSED and not _is_used():
                    return "never"
            elif state.pending_instance_requests or state.pending_instances:
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


def wait_for_a_cpu() -> None:
    """Waits until a cluster that is to grow from nothing has a node with a CPU.

    Raises:
        InputError: its autoscaler says that there will never be one.
    """
    import ray

    while connected() and not ray.cluster_resources().get("CPU"):
        if room_for([{"CPU": 1}], within_s=60.0) == "never":
            raise InputError(
                "the cluster has no CPUs, and its autoscaler may start no node that has one. Add a type of nodes with CPUs to its "
                "configuration, or raise its largest number of nodes."
            )
