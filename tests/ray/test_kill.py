"""Processes are killed, and the result has the bytes of an undisturbed run."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.util.state import list_actors

from tests.conftest import some_text
from tests.ray.conftest import digests, score_into

N_UNITS = 60


@pytest.fixture(scope="module")
def many_units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of one JSONL shard in about `N_UNITS` units, which take a second in all."""
    folder = tmp_path_factory.mktemp("many")
    lines = [f'{{"id": "d{i}", "source": "a", "text": "{some_text(120, i)}"}}\n' for i in range(N_UNITS * 3)]
    (folder / "a.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    ray_cluster: str,
    many_units: Path,
    make_model: Callable[[int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The score set of an undisturbed run."""
    output = tmp_path_factory.mktemp("peace") / "out"
    assert score_into(many_units, output, make_model(1)).units > N_UNITS / 2
    return output


def _published(output: Path) -> list[Path]:
    return list((output / "data").glob("[!.]*")) if (output / "data").exists() else []


def _wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_a_killed_driver_costs_only_what_it_had_not_published(
    many_units: Path, undisturbed: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from tests.ray.conftest import score_into;"
        "score_into(*map(Path, sys.argv[1:]))"
    )
    # a cluster of its own, in a session of its own: the kill must not reach the tests' cluster
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(many_units), str(output), str(make_model(1))],
        cwd=Path(__file__).parents[2], start_new_session=True, env={**os.environ, "RAY_ADDRESS": ""},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _wait_for(lambda: len(_published(output)) >= 5 or driver.poll() is not None)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # its workers finish what they were publishing
    done = {path: path.stat().st_mtime_ns for path in _published(output)}
    n_units = len(_published(undisturbed))
    assert 5 <= len(done) < n_units
    assert not (output / "_SUCCESS.json").exists()
    summary = score_into(many_units, output, make_model(1))
    assert summary.computed == n_units - len(done)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert digests(output) == digests(undisturbed)


def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    many_units: Path, undisturbed: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    killed = []

    def scorers() -> list[Any]:
        return [a for a in list_actors(filters=[("state", "=", "ALIVE")]) if "ScoreUnit" in a.class_name]

    def kill_one() -> None:
        _wait_for(scorers)  # asked for early: on a busy machine the answer takes seconds
        (actor, *_) = scorers()
        _wait_for(lambda: len(_published(tmp_path / "out")) >= 5)
        os.kill(actor.pid, signal.SIGKILL)
        killed.append((actor.pid, len(_published(tmp_path / "out"))))

    killer = threading.Thread(target=kill_one)
    killer.start()
    summary = score_into(many_units, tmp_path / "out", make_model(1), workers="2")
    killer.join()
    assert killed
    assert killed[0][1] < summary.units, "the worker was killed too late to matter"
    assert summary.computed == summary.units
    assert digests(tmp_path / "out") == digests(undisturbed)
