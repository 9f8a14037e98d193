"""Signs of life are written while a run goes on and at its end, and never disturb it."""

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rho_score.cluster.progress import Progress
from rho_score.cluster.throughput import Done
from rho_score.config import SelectConfig
from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.retries import retries_made
from rho_score.selecting.job import select
from rho_score.stores import signs as module
from rho_score.stores.claim import claim
from rho_score.stores.manifest import new_manifest
from rho_score.stores.signs import KEPT, RUNS, Sign, read_signs, signs_of_life
from tests.stores import cut, random_documents, write_scores


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs every few milliseconds."""
    monkeypatch.setattr(module, "INTERVAL_S", 0.02)
    monkeypatch.setattr(module, "TICK_S", 0.005)


def _only(output: Folder) -> Sign:
    (seen,) = read_signs(output)
    return seen.sign


def _wait_for(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (value := found()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)
    return value


def _signs(output: Folder, wanted: Callable[[Sign], bool]) -> Sign:
    """The first sign of the only run for which `wanted` holds."""
    return _wait_for(lambda: next((seen.sign for seen in read_signs(output) if wanted(seen.sign)), None))  # type: ignore[no-any-return]


@pytest.mark.usefixtures("quick")
def test_a_run_tells_its_progress_and_its_end(tmp_path: Path) -> None:
    output, before = Folder(str(tmp_path / "out")), time.time() - 0.001  # times are stored in milliseconds
    with Progress("score") as progress, signs_of_life(output, "score"):
        progress.phase("loading the model")
        loading = _signs(output, lambda sign: sign.progress.phase == "loading the model")
        assert loading.outcome is None
        assert loading.command == "score"
        assert before <= loading.started <= loading.written <= time.time()
        progress.begin(n_units=4, size=8.0, before=Done(1, 50, 2.0))
        progress.workers = 3
        progress.phase("")
        progress.update(Done(2, 90, 4.0))
        half = _signs(output, lambda sign: sign.progress.units == 2 and sign.most_workers == 3)
        assert (half.progress.n_units, half.progress.share, half.progress.tokens) == (4, 0.5, 40)
        assert half.progress.tokens_per_s > 0
        assert half.progress.seconds_left is not None
        again = _signs(output, lambda sign: sign.written > half.written + 0.05)
        assert again.moved == half.moved, "nothing has moved"
        assert again.idle_s >= 0.05
        assert again.worker_s == pytest.approx(half.worker_s + 3 * (again.written - half.written), abs=0.2)
    ended = _only(output)
    assert (ended.outcome, ended.message) == ("finished", "")
    assert ended.progress.units == 2


@pytest.mark.usefixtures("quick")
def test_the_innermost_progress_is_told_and_the_next_one_is_a_movement(tmp_path: Path) -> None:
    output = Folder(str(tmp_path))
    with signs_of_life(output, "select"):
        with Progress("count", n_units=7) as count:
            count.add()
            first = _signs(output, lambda sign: sign.progress.what == "count" and sign.progress.units == 1)
        with Progress("write", n_units=7) as write:
            write.add()
            second = _signs(output, lambda sign: sign.progress.what == "write")
        assert second.moved > first.moved
    assert _only(output).progress.what == "write"


def test_progresses_of_other_threads_are_not_told(tmp_path: Path) -> None:
    opened, done = threading.Event(), threading.Event()

    def other() -> None:
        with Progress("other", n_units=1):
            opened.set()
            done.wait()

    thread = threading.Thread(target=other)
    thread.start()
    opened.wait()
    with signs_of_life(Folder(str(tmp_path)), "select"):
        pass
    done.set()
    thread.join()
    assert _only(Folder(str(tmp_path))).progress.what == ""


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (RhoScoreError("no \x1b[31mmemory\nmore"), "failed", "no ‹001B›[31mmemory"),
        (ValueError("s3://me:secret@host/x?sig=1 fails\nmore"), "failed", "ValueError: s3://host/x fails"),
        (RhoScoreError("x" * 5000), "failed", "x" * 300 + "…"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(3), "interrupted", "SystemExit"),
    ],
)
def test_the_error_that_ended_a_run_is_told_fit_for_a_terminal(
    tmp_path: Path, error: BaseException, outcome: str, message: str
) -> None:
    with pytest.raises(type(error)), signs_of_life(Folder(str(tmp_path)), "score"):
        raise error
    sign = _only(Folder(str(tmp_path)))
    assert (sign.outcome, sign.message) == (outcome, message)


def test_the_file_is_json_with_times_in_utc(tmp_path: Path) -> None:
    with signs_of_life(Folder(str(tmp_path)), "score"):
        pass
    (path,) = (tmp_path / RUNS).iterdir()
    content = json.loads(path.read_text())
    for name in ("started", "written", "moved"):
        at = datetime.fromisoformat(content[name])
        assert at.tzinfo is not None
        assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert content["outcome"] == "finished"


class _Broken(Folder):
    """A storage that refuses every write, and counts them."""

    tries: ClassVar[list[str]] = []

    def publish(self, name: str, content: bytes) -> None:
        self.tries.append(name)
        raise OSError(5, "the disk fails")


@pytest.mark.usefixtures("quick")
def test_a_storage_that_refuses_signs_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = _Broken(str(tmp_path))
    with caplog.at_level(logging.WARNING), signs_of_life(output, "score"):
        _wait_for(lambda: len(output.tries) > 5)
    assert [record.getMessage() for record in caplog.records] == [
        "signs of life cannot be written, so `status` will not know this run: [Errno 5] the disk fails"
    ]


class _Hanging(Folder):
    """A storage that does not answer."""

    def publish(self, name: str, content: bytes) -> None:
        threading.Event().wait(60)


def test_a_storage_that_hangs_does_not_hold_up_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_S", 0.1)
    started = time.monotonic()
    with signs_of_life(_Hanging(str(tmp_path)), "score"):
        pass
    assert time.monotonic() - started < 30


def test_a_failed_write_is_not_tried_again_nor_counted(tmp_path: Path) -> None:
    (tmp_path / RUNS).write_text("a file in the place of the folder")
    before = retries_made()
    with signs_of_life(Folder(str(tmp_path)), "score"):
        pass
    assert retries_made() == before


def test_old_signs_are_removed_and_their_worker_hours_kept(tmp_path: Path) -> None:
    output = Folder(str(tmp_path))
    for _ in range(KEPT + 3):
        with signs_of_life(output, "score"):
            pass
        (path,) = (path for path in (tmp_path / RUNS).iterdir() if json.loads(path.read_text())["worker_s"] < 100)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"worker_s": 100.0}))
    seen = read_signs(output)
    assert len(seen) == KEPT
    assert sum(one.sign.worker_s + one.sign.removed_worker_s for one in seen) == 100 * (KEPT + 3)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"run": "a"}',
        b'{"outcome": "won"}', b'{"started": "yesterday"}', b'{"started": "9999999-01-01"}', b'{"written": 3}',
        b'{"pid": "1"}', b'{"progress": {}}', b'{"progress": []}', b'{"host": null}',
    ],
)  # fmt: skip
def test_a_damaged_sign_is_left_out(tmp_path: Path, content: bytes) -> None:
    output = Folder(str(tmp_path))
    with signs_of_life(output, "score"):
        pass
    (good,) = (tmp_path / RUNS).iterdir()
    changed = content
    if content.startswith(b'{"') and not content.startswith(b'{"run'):  # the field alone is wrong
        changed = json.dumps(json.loads(good.read_text()) | json.loads(content)).encode()
    (tmp_path / RUNS / "bad.json").write_bytes(changed)
    assert [seen.name for seen in read_signs(output)] == [good.name]


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    documents = [ref for ref, _ in random_documents(20, seed=3)]
    return write_scores(tmp_path / "ref", [cut(documents, [4] * 5)])


def test_signs_are_no_data(scores: Path, tmp_path: Path) -> None:
    output = tmp_path / "sel"
    select(SelectConfig(ref=(str(scores),), output=str(output), ratio=0.5))
    assert len(read_signs(Folder(str(output)))) == 1
    assert not any(RUNS in name for name in Folder(str(output)).listing())
    assert RUNS not in Folder(str(output)).names("")
    fresh = Folder(str(tmp_path / "fresh"))
    with signs_of_life(fresh, "score"):
        pass
    claim(fresh, new_manifest("score set", {}), {})  # it counts as empty


def test_a_dry_run_and_a_finished_store_leave_no_signs(scores: Path, tmp_path: Path) -> None:
    config = SelectConfig(ref=(str(scores),), output=str(tmp_path / "sel"), ratio=0.5)
    select(SelectConfig(ref=(str(scores),), output=str(tmp_path / "dry"), ratio=0.5, dry_run=True))
    assert not (tmp_path / "dry").exists()
    select(config)
    before = [seen.sign for seen in read_signs(Folder(str(tmp_path / "sel")))]
    select(config)
    assert [seen.sign for seen in read_signs(Folder(str(tmp_path / "sel")))] == before


def test_a_job_that_fails_says_why(scores: Path, tmp_path: Path) -> None:
    next((scores / "data").iterdir()).write_bytes(b"damaged")
    with pytest.raises(RhoScoreError):
        select(SelectConfig(ref=(str(scores),), output=str(tmp_path / "sel"), ratio=0.5))
    (seen,) = read_signs(Folder(str(tmp_path / "sel")))
    assert (seen.sign.command, seen.sign.outcome) == ("select", "failed")
    assert "cannot be read" in seen.sign.message
