"""Progress inside a unit: it shows before the unit is published and stays right when workers die.

It never gets in the way of a run.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.state import list_actors

from rho_score.cluster import progress
from rho_score.cluster.throughput import Done
from rho_score.scoring import live
from rho_score.scoring.job import ScoreSummary
from rho_score.scoring.live import Board, LiveProgress
from tests.conftest import some_text
from tests.ray.conftest import digests, score_into


class Seen:
    """Watches a run: keeps what its progress said, and the progress actor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[Done] = []
        self.phases: list[str] = []
        self.live: LiveProgress | None = None
        update, enter, phase = live.Progress.update, LiveProgress.__enter__, live.Progress.phase
        monkeypatch.setattr(live, "LEAST_INTERVAL_S", 0.2)  # so that a fast machine tells often enough
        monkeypatch.setattr(progress, "TICK_S", 0.1)

        def updating(progress: live.Progress, done: Done) -> None:
            self.done.append(done)
            update(progress, done)

        def telling(progress: live.Progress, doing: str) -> None:
            self.phases.append(doing)
            phase(progress, doing)

        def entering(own: LiveProgress) -> LiveProgress:
            self.live = own
            return enter(own)

        monkeypatch.setattr(live.Progress, "update", updating)
        monkeypatch.setattr(live.Progress, "phase", telling)
        monkeypatch.setattr(LiveProgress, "__enter__", entering)

    def wait_for_tokens(self, *, after: int = 0) -> int:
        """Waits until a report counts tokens of an unfinished unit; returns the number of reports.

        after: how many reports are passed over.
        """
        end = time.monotonic() + 120
        while not any(done.units == 0 and done.tokens > 0 for done in self.done[after:]):
            assert time.monotonic() < end, "nothing was told of the unit in hand"
            time.sleep(0.02)
        return len(self.done)


@pytest.fixture(scope="module")
def one_unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of one unit, which takes a tiny model ten to twenty seconds."""
    folder = tmp_path_factory.mktemp("one")
    lines = [f'{{"id": "d{i}", "source": "a", "text": "{some_text(2000, i)}"}}\n' for i in range(200)]
    (folder / "a.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    ray_cluster: str, one_unit: Path, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ScoreSummary, Seen]:
    """The score set of an undisturbed run."""
    output = tmp_path_factory.mktemp("peace") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen = Seen(monkeypatch)
        summary = score_into(one_unit, output, make_model(1), unit_bytes=1 << 30)
    return output, summary, seen


def _disturbed(
    how: Callable[[Seen], None], corpus: Path, output: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ScoreSummary, Seen]:
    """The same run, while another thread disturbs it by `how`."""
    seen = Seen(monkeypatch)
    failed: list[BaseException] = []

    def disturb() -> None:
        try:
            how(seen)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=disturb)
    thread.start()
    summary = score_into(corpus, output, model, unit_bytes=1 << 30)
    thread.join()
    if failed:
        raise failed[0]
    return summary, seen


def _alive(name: str) -> list[Any]:
    return [actor for actor in list_actors(filters=[("state", "=", "ALIVE")]) if name in actor.class_name]


def test_tokens_are_told_before_their_unit_is_published(undisturbed: tuple[Path, ScoreSummary, Seen]) -> None:
    _, summary, seen = undisturbed
    assert summary.units == 1
    inside = [done.tokens for done in seen.done if done.units == 0 and 0 < done.tokens < summary.computed_tokens]
    assert len(inside) > 2
    assert inside == sorted(inside)
    assert seen.done[-1] == Done(1, summary.computed_tokens, seen.done[-1].size)
    assert seen.phases[:3] == ["listing the corpus", "reading the model's files", "starting Ray"]
    assert not _alive(Board.__name__), "it outlived the run"


def test_a_unit_that_is_scored_again_after_a_death_counts_once(
    undisturbed: tuple[Path, ScoreSummary, Seen], one_unit: Path, make_model: Callable[[int], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calm, _, _ = undisturbed
    told: list[int] = []

    def kill_the_worker(seen: Seen) -> None:
        seen.wait_for_tokens()
        (worker,) = _alive("ScoreUnit")
        os.kill(worker.pid, signal.SIGKILL)
        told.append(len(seen.done))

    summary, seen = _disturbed(kill_the_worker, one_unit, tmp_path / "out", make_model(1), monkeypatch)
    after = [done.tokens for done in seen.done[told[0] :]]
    assert min(after) < max(done.tokens for done in seen.done[: told[0]]), (
        "the second attempt did not start from nothing"
    )
    assert max(done.tokens for done in seen.done) == summary.computed_tokens
    assert max(done.units for done in seen.done) == 1
    assert digests(tmp_path / "out") == digests(calm)


@pytest.mark.parametrize("for_good", [False, True])
def test_the_run_goes_on_when_the_actor_dies(
    undisturbed: tuple[Path, ScoreSummary, Seen], one_unit: Path, make_model: Callable[[int], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, for_good: bool,
) -> None:  # fmt: skip
    calm, _, _ = undisturbed

    def kill_the_actor(seen: Seen) -> None:
        told = seen.wait_for_tokens()
        assert seen.live is not None
        ray.kill(seen.live._board, no_restart=for_good)
        if not for_good:
            seen.wait_for_tokens(after=told + 1)

    summary, seen = _disturbed(kill_the_actor, one_unit, tmp_path / "out", make_model(1), monkeypatch)
    assert seen.done[-1].tokens == summary.computed_tokens
    assert digests(tmp_path / "out") == digests(calm)
    assert not _alive(Board.__name__)
