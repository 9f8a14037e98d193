"""The default options on a cluster of two CPUs that no more nodes will join."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.conftest import N_QUARANTINED
from tests.forkserver.server import FORKED, ForkServer

PROGRAM = """
import os, sys
from ray.cluster_utils import Cluster
from rho_score.scoring import preflight
from rho_score.cli import main
from tests.forkserver.server import START_WORKER

preflight.NODES_JOIN_S = 0.0  # what is there is all
head = {"num_cpus": 2, "include_dashboard": False, "dashboard_agent_listen_port": 0, "setup_worker_path": START_WORKER}
cluster = Cluster(initialize_head=True, head_node_args=head)
os.environ["RAY_ADDRESS"] = cluster.address
try:
    assert main([*sys.argv[1:], "--cpus-per-worker", "2"]) == 2
    assert not os.path.exists(sys.argv[3])
    assert main(sys.argv[1:]) == 3
finally:
    cluster.shutdown()
"""


def test_the_default_fits_a_running_cluster_of_two_cpus(
    fork_server: ForkServer, corpus: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    options = ["--model", str(make_model(1)), "--no-compile", "--gpus-per-worker", "0", "--group-column", "source"]
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = subprocess.run(
        [*FORKED, tmp_path / "program.py", "score", str(corpus), str(tmp_path / "out"), *options],
        env={**os.environ, "RAY_ADDRESS": ""}, capture_output=True, text=True, timeout=300, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "1 workers of 2 CPUs and one CPU for reading need 3, but the cluster has 2" in ended.stderr
    assert f"quarantined {N_QUARANTINED}" in ended.stdout
    for noise in ("core_worker.cc", "Loading weights", "Running Dataset"):
        assert noise not in ended.stderr, "another package prints to the user's screen"
