"""cluster.yaml by Ray's own validator; the KubeRay job by what it must hold; the job scripts by their names."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def _is_spot(node: dict[str, Any]) -> bool:
    return (
        node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or node.get("scheduling", {}).get("provisioningModel") == "SPOT"
        or node.get("azure_arm_parameters", {}).get("priority") == "Spot"
    )


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/cluster-gcp.yaml", "deploy/cluster-azure.yaml"])
def test_a_cluster_is_valid_and_keeps_work_off_the_head(name: str) -> None:
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    validate_config(config)
    head, gpu = (config["available_node_types"][name] for name in ("head", "gpu"))
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert not _is_spot(head["node_config"])
    assert _is_spot(gpu["node_config"])
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert any("RAY_AUTH_MODE=token" in command and "ray start" in command for command in commands)
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= config["max_workers"]


def test_the_clouds_install_the_same_versions() -> None:
    commands = [
        set(yaml.safe_load((ROOT / name).read_text())["setup_commands"][0].split()) - {"s3fs", "gcsfs", "adlfs"}
        for name in ("cluster.yaml", "deploy/cluster-gcp.yaml", "deploy/cluster-azure.yaml")
    ]
    assert commands[0] == commands[1] == commands[2]


def test_rayjob_runs_the_command_line() -> None:
    spec = yaml.safe_load((ROOT / "deploy" / "rayjob.yaml").read_text())["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["entrypoint"].startswith("rho-score score s3://")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == 0
    assert "nvidia.com/gpu" in workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        assert pod["containers"][0]["image"].endswith("/rho-score:cuda")
        assert pod["securityContext"]["runAsUser"] == int(re.findall(r"--uid (\d+)", DOCKERFILE)[0])


def test_dockerfile_has_the_stages_and_extras_that_it_promises() -> None:
    assert re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.MULTILINE) == ["wheel", "installed", "cpu", "cuda"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for found in re.findall(r"\.whl\)\[([\w,]+)\]", DOCKERFILE) for extra in found.split(",")}
    assert named == extras.keys() - {"demo", "dev", "bench"}
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] == "1000:1000"


def test_release_pins_every_action_by_its_commit() -> None:
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    used = re.findall(r"uses: (\S+)", release)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)
    jobs = yaml.safe_load(release)["jobs"]
    assert {"bare", "sbom"} <= set(jobs["publish"]["needs"])


STANDS_ASIDE = {"select"}
"""Job scripts with the name of a module of the standard library, which load that module where it is imported."""


def test_no_job_hides_a_module_of_the_standard_library() -> None:
    names = {path.stem for path in (ROOT / "ray_jobs").glob("*.py")}
    assert names & sys.stdlib_module_names == STANDS_ASIDE


def test_a_job_stands_aside_for_the_module_of_its_name() -> None:
    """In a process that has the jobs' folder first in its path, as a job of `--working-dir ray_jobs` does."""
    for name in STANDS_ASIDE:
        program = f"import sys; sys.path.insert(0, {str(ROOT / 'ray_jobs')!r})\n"
        program += "import selectors, socket, subprocess, asyncio\n"
        program += f"import {name} as found, {name} as again\nassert found is again is sys.modules[{name!r}]\n"
        program += "assert 'ray_jobs' not in getattr(found, '__file__', '')\nassert found.select([], [], [], 0) == ([], [], [])"
        ended = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
