"""A head of Ray with its metrics exporter, until standard input ends: `python -m tests.metrics.head FOLDER`."""

import sys

import ray

from rho_score.cluster.ray_cluster import configure_own_cluster

configure_own_cluster(4)
found = ray.init(
    address="local",
    num_cpus=4,
    include_dashboard=True,
    dashboard_port=None,
    object_store_memory=200_000_000,
    log_to_driver=False,
    _temp_dir=sys.argv[1],
)
print("address", found.address_info["gcs_address"], flush=True)
sys.stdin.read()
ray.shutdown()
