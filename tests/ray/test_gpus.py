"""A job that asks for GPUs on a machine without any, up to where a worker looks for its GPU."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ray.cluster_utils import Cluster

from tests.forkserver.server import FORKED, START_WORKER, ForkServer

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, see tests/gpu/test_job.py")


def test_workers_are_started_on_gpus_and_say_what_their_node_lacks(
    fork_server: ForkServer, corpus: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    head = {
        "num_cpus": 4,
        "num_gpus": 1,
        "include_dashboard": False,
        "dashboard_agent_listen_port": 0,
        "setup_worker_path": START_WORKER,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        done = subprocess.run(
            [*FORKED, "tests.forkserver.command", "score", corpus, tmp_path / "out",
             "--model", make_model(1), "--gpus-per-worker", "1"],
            env=os.environ | {"RAY_ADDRESS": cluster.address}, capture_output=True, text=True, timeout=300, check=False,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
    finally:
        cluster.shutdown()
    assert done.returncode == 1, done.stderr
    assert "a worker was given a GPU but its torch sees none; install a CUDA build of torch on the nodes" in done.stderr
    assert "Traceback" not in done.stderr
