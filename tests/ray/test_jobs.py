"""The job scripts as `ray job submit` runs them, on the tests' cluster."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.job_submission import JobInfo, JobStatus, JobSubmissionClient

from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.conftest import N_QUARANTINED

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `--working-dir .` sends it: the jobs and the package, with nothing installed."""
    folder = tmp_path_factory.mktemp("working")
    for name in ("ray_jobs", "rho_score"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _submit(address: str, working_dir: Path, entrypoint: str, **runtime_env: dict[str, str]) -> tuple[JobInfo, str]:
    client = JobSubmissionClient(address)
    job = client.submit_job(
        entrypoint=f"{sys.executable} {entrypoint}", runtime_env={"working_dir": str(working_dir), **runtime_env}
    )
    end = time.monotonic() + 240
    while client.get_job_status(job) not in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED):
        assert time.monotonic() < end, client.get_job_logs(job)
        time.sleep(0.2)
    return client.get_job_info(job), client.get_job_logs(job)


def test_score_and_select_as_jobs(
    ray_cluster: str, working_dir: Path, corpus: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    score = f"ray_jobs/score.py {corpus} {tmp_path}/ref --model {make_model(1)} --group-column source --cpus-per-worker 1 --no-compile"
    info, log = _submit(ray_cluster, working_dir, score)
    assert info.driver_exit_code == 3, log  # documents were quarantined
    assert f"quarantined {N_QUARANTINED}" in log
    assert re.search(r"score: 100 %, \d+/\d+ units, .* tokens/s, took ", log), log
    assert ScoreSet.open(f"{tmp_path}/ref").summary["quarantined"] == N_QUARANTINED
    info, log = _submit(ray_cluster, working_dir, f"ray_jobs/select.py --ref {tmp_path}/ref {tmp_path}/sel --ratio 0.6")
    assert info.driver_exit_code == 0, log
    assert Selection.open(f"{tmp_path}/sel").summary["units"] > 0
    info, log = _submit(ray_cluster, working_dir, f"ray_jobs/select.py --ref {tmp_path}/none {tmp_path}/x --ratio 0.6")
    assert info.driver_exit_code == 2, log


@pytest.mark.long
def test_a_finished_run_and_a_report_as_jobs(
    ray_cluster: str,
    working_dir: Path,
    corpus: Path,
    scores: dict[str, Path],
    make_model: Callable[[int], Path],
    tmp_path: Path,
) -> None:
    score = f"ray_jobs/score.py {corpus} {tmp_path}/ref --model {make_model(1)} --cpus-per-worker 1 --no-compile"
    for options, code in (("", 3), (" --allow-quarantine", 0)):
        info, log = _submit(ray_cluster, working_dir, score + options)
        assert info.driver_exit_code == code, log
    assert "finished already; nothing to do" in log
    info, log = _submit(ray_cluster, working_dir, f"ray_jobs/report.py {scores['ref']} {tmp_path}/report.html")
    assert info.driver_exit_code == 0, log
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_script_runs_its_command_from_the_working_directory(working_dir: Path, scores: dict[str, Path]) -> None:
    """Runs the script as Ray runs a job's driver, with the working directory on PYTHONPATH.

    A report needs no cluster.
    """
    command = [sys.executable, "ray_jobs/report.py", scores["ref"], "report.html"]
    subprocess.run(
        command, cwd=working_dir, env={**os.environ, "PYTHONPATH": str(working_dir)}, check=True, timeout=200
    )
    assert (working_dir / "report.html").stat().st_size > 10_000


def test_a_job_whose_working_directory_is_that_of_the_scripts(
    ray_cluster: str, scores: dict[str, Path], tmp_path: Path
) -> None:
    """`select.py` hides no standard module, though its folder comes first on the path.

    That is so in the driver and in the workers.
    """
    command = f"select.py --ref {scores['ref']} {tmp_path}/sel --ratio 0.6"
    installed = {"PYTHONPATH": str(ROOT)}  # as it must be on the nodes
    info, log = _submit(ray_cluster, ROOT / "ray_jobs", command, env_vars=installed)
    assert info.driver_exit_code == 0, log
    assert Selection.open(f"{tmp_path}/sel").summary["units"] > 0
