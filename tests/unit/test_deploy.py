"""cluster.yaml by Ray's own validator; the KubeRay job by what it must hold."""

from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


def test_cluster_yaml_is_valid_and_keeps_work_off_the_head() -> None:
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    head, gpu = (config["available_node_types"][name] for name in ("head", "gpu"))
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert gpu["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert any("RAY_AUTH_MODE=token" in command and "ray start" in command for command in commands)
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= config["max_workers"]


def test_rayjob_runs_the_command_line() -> None:
    spec = yaml.safe_load((ROOT / "deploy" / "rayjob.yaml").read_text())["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["entrypoint"].startswith("rho-score score s3://")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == 0
    assert "nvidia.com/gpu" in workers["template"]["spec"]["containers"][0]["resources"]["limits"]
