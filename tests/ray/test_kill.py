"""Processes are killed, and the result has the bytes of an undisturbed run."""

import json
import os
import shutil
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


def _killed_and_resumed(corpus: Path, undisturbed: Path, model: Path, output: Path, **options: Any) -> None:
    """Kills a run of its own after five units, resumes it, and compares it with the undisturbed one."""
    code = (
        "import json, sys; from pathlib import Path; from tests.ray.conftest import score_into;"
        "score_into(*map(Path, sys.argv[1:4]), **json.loads(sys.argv[4]))"
    )
    # a cluster of its own, in a session of its own: the kill must not reach the tests' cluster
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(corpus), str(output), str(model), json.dumps(options)],
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
    summary = score_into(corpus, output, model, **options)
    assert summary.computed == n_units - len(done)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert digests(output) == digests(undisturbed)


def test_a_killed_driver_costs_only_what_it_had_not_published(
    many_units: Path, undisturbed: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    _killed_and_resumed(many_units, undisturbed, make_model(1), tmp_path / "out")


TEMPLATE = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
KINDS: dict[str, dict[str, Any]] = {
    "ids": {"ids_column": "ids"},
    "prefixed": {"prefix_column": "prompt"},
    "response": {"prompt_column": "prompt", "response_column": "text"},
    "hidden": {"prompt_column": "prompt", "response_column": "text", "hide_context": True},
    "messages": {"messages_column": "messages"},
    "pair": {"prompt_column": "prompt", "chosen_column": "text", "rejected_column": "other"},
}
"""The options of each kind of document."""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose rows can be read as every kind, a row in each unit."""
    rows = []
    for i in range(N_UNITS):
        text, prompt = some_text(100, i), some_text(20, 1000 + i)
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        rows.append(
            {"id": f"d{i}", "source": "a", "text": text, "prompt": prompt, "other": some_text(90, 2000 + i),
             "messages": chat, "ids": [(7 * i + j) % 400 for j in range(100)]}
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    "kind", ["pair", *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS if kind != "pair")]
)
def test_a_killed_run_of_every_kind_goes_on_to_the_same_bytes(
    kind: str, ray_cluster: str, kinds: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(make_model(1), tmp_path / "model"))
    if kind == "messages":
        (model / "chat_template.jinja").write_text(TEMPLATE)
    score_into(kinds, tmp_path / "peace", model, **KINDS[kind])
    _killed_and_resumed(kinds, tmp_path / "peace", model, tmp_path / "out", **KINDS[kind])


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
