"""A run that lives, hangs, is stopped, killed, resumed or finished is told apart by `rho-score status`."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from rho_score.config import StatusConfig
from rho_score.stores import signs
from rho_score.watching.job import StatusSummary, status
from tests.conftest import some_text
from tests.ray.conftest import score_into

INTERVAL_S = 0.3
QUICK = f"from rho_score.stores import signs; signs.INTERVAL_S, signs.TICK_S = {INTERVAL_S}, 0.05;"
RUN = (
    QUICK
    + "import sys; from pathlib import Path; from tests.ray.conftest import score_into;"
    + ("score_into(*map(Path, sys.argv[1:4]), unit_bytes=300_000, workers='1')")
)


@pytest.fixture(scope="module")
def slow_units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of six units, each of which takes a tiny model a second or two."""
    folder = tmp_path_factory.mktemp("slow")
    lines = [f'{{"id": "d{i}", "source": "a", "text": "{some_text(2000, i)}"}}\n' for i in range(140)]
    (folder / "a.jsonl").write_text("".join(lines))
    return folder


def _look(output: Path, *, stuck_after_s: float = 3600) -> StatusSummary | None:
    """The status, once the output is begun."""
    if not (output / "manifest.json").exists():
        return None
    return status(StatusConfig(output=str(output), stuck_after=stuck_after_s / 60, price_per_hour=3600.0))


def _until(output: Path, wanted: Callable[[StatusSummary], bool], *, stuck_after_s: float = 3600) -> StatusSummary:
    end = time.monotonic() + 120
    while (found := _look(output, stuck_after_s=stuck_after_s)) is None or not wanted(found):
        assert time.monotonic() < end, f"it never happened: {found}"
        time.sleep(0.05)
    return found


@contextmanager
def _stopped(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def _worker(driver: int) -> psutil.Process:
    """The process of the only worker."""
    [found] = [p for p in psutil.Process(driver).children(recursive=True) if "ScoreUnit" in " ".join(p.cmdline())]
    return found


def test_what_becomes_of_a_run_is_told(
    slow_units: Path,
    ray_cluster: str,
    make_model: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, model = tmp_path / "out", make_model(1)
    driver = subprocess.Popen(
        [sys.executable, "-c", RUN, str(slow_units), str(output), str(model)],
        cwd=Path(__file__).parents[2], start_new_session=True, env={**os.environ, "RAY_ADDRESS": ""},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        begun = _until(output, lambda found: found.doing is not None and found.doing.tokens > 0)
        assert (begun.state, begun.exit_code) == ("running", 10)
        assert begun.sign is not None
        assert (begun.sign.command, begun.sign.pid, begun.sign.most_workers) == ("score", driver.pid, 1)
        with _stopped(_worker(driver.pid)):
            stuck = _until(output, lambda found: found.state != "running", stuck_after_s=2)
            assert (stuck.state, stuck.exit_code) == ("stuck", 11)
        moved = _until(output, lambda found: found.state == "running", stuck_after_s=2)
        with _stopped(psutil.Process(driver.pid)):
            stopped = _until(output, lambda found: found.state != "running")
            assert (stopped.state, stopped.exit_code) == ("dead", 12)
        assert _until(output, lambda found: found.state != "dead").state == "running"
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    killed = _until(output, lambda found: found.state != "running")
    assert (killed.state, killed.exit_code) == ("dead", 12)
    assert killed.contents.of is not None
    assert killed.contents.done < killed.contents.of
    assert killed.money.total >= moved.money.total > 0

    monkeypatch.setattr(signs, "INTERVAL_S", INTERVAL_S)
    again = threading.Thread(
        target=lambda: score_into(slow_units, output, model, unit_bytes=300_000, workers="1"), daemon=True
    )
    again.start()
    resumed = _until(output, lambda found: found.state != "dead")
    assert resumed.state == "running"
    assert resumed.money.worker_hours >= killed.money.worker_hours
    again.join()
    finished = _look(output)
    assert finished is not None
    assert (finished.state, finished.exit_code) == ("finished", 0)
    assert finished.contents.done == finished.contents.of
    assert finished.sign is not None
    assert finished.sign.outcome == "finished"
    assert finished.sign.pid == os.getpid()
    assert finished.sign.worker_s > 0
