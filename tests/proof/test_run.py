"""The whole proof in its smallest form: it is killed, goes on, and a run of it made again gives the same numbers."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from proof.grid import Grid, Run
from proof.results import Results
from proof.sizes import TEST, A

COMMAND = [sys.executable, "-m", "proof.run", "--size", "test", "--workers", "2", "--output"]
AT_LEAST = 3  # finished runs before the kill


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proof that was killed in the middle of its runs, and then went on to its end."""
    folder = tmp_path_factory.mktemp("proof") / "out"
    log = folder.with_suffix(".txt").open("w")
    first = subprocess.Popen([*COMMAND, str(folder)], stdout=log, stderr=log, start_new_session=True)
    while len(_finished(folder)) < AT_LEAST:
        assert first.poll() is None, folder.with_suffix(".txt").read_text()
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in _finished(folder)}
    again = subprocess.run([*COMMAND, str(folder)], capture_output=True, text=True, timeout=800)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "min left)" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a run that was finished was made again"
    return folder


def _finished(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"runs/{A.name}/*/*/_SUCCESS.json"))


@pytest.mark.timeout(1200)
def test_a_killed_proof_goes_on_to_its_end(folder: Path) -> None:
    results = Results(Grid(folder, TEST))
    results.tune()
    rows = pq.read_table(folder / "results/results.parquet").to_pylist()
    planned = [run.name for run in (*results.grid.tuning(), *results.grid.runs(results.rates))]
    assert len(rows) == len(planned)
    tuning = [row for row in rows if row["tuning"]]
    for (regime, arm, budget), rate in results.rates.items():  # the rate with the lowest validation loss
        tried = [row for row in tuning if (row["condition"][0], row["arm"], row["budget"]) == (regime, arm, budget)]
        if tried:
            assert rate == min(tried, key=lambda row: row["validation"])["rate"]
        elif (longest := (regime, arm, results.grid.budgets()[-1])) in results.rates:
            assert rate == results.rates[longest]
    page = (folder / "proof.md").read_text()
    for arm in results.grid.arms(A):
        assert f"| `{arm}` |" in page
    for name in ("A-noise-50.svg", "crossover.svg", "ratios.svg", "kept-A-noise-50.svg", "dynamics.svg"):
        assert (folder / "proof" / name).stat().st_size > 1000
        assert name in page
    analyses = pq.read_table(folder / "results/analyses.parquet").to_pylist()
    shares = [row["value"] for row in analyses if row["analysis"] == "dynamics" and row["arm"] == "all"]
    assert sum(shares) == pytest.approx(1)
    perplexity = {(row["series"], row["step"]) for row in analyses if row["analysis"] == "perplexity"}
    steps = {int(series) for series, _ in perplexity}
    assert perplexity == {(str(a), b) for a in steps for b in steps}
    assert len(steps) >= 3


def test_a_run_made_again_gives_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    row = next(r for r in pq.read_table(folder / "results/results.parquet").to_pylist() if r["arm"] == "live-30")
    grid = Grid(folder, TEST)
    run = Run(A, row["arm"], row["budget"], row["seed"], row["rate"])
    again = grid.train(run, output=tmp_path / "again")
    code = f"import torch; torch.set_num_threads(1); from rho_score.cli import main; raise SystemExit(main({shlex.split(again)!r}))"
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found = Results(grid).held_out(tmp_path / "again")
    assert found == {name: row[name] for name in ("test", "validation", "others")}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, and the proof would run")
def test_without_a_gpu_the_proof_with_a_real_model_says_why_it_is_skipped() -> None:
    command = [sys.executable, "-m", "proof.run", "--size", "gpu"]
    assert "needs a GPU" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
