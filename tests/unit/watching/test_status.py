"""`rho-score status`: what it prints, its exit codes, the money, and watching."""

import io
import json
import os
import pty
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rho_score as rho
from rho_score.cli import main
from rho_score.cluster.progress import Snapshot
from rho_score.files.folder import Folder
from rho_score.stores.layout import data_name
from rho_score.stores.signs import RUNS, Sign
from rho_score.watching import job
from tests.stores import cut, random_documents, write_scores

DOCUMENTS = [ref for ref, _ in random_documents(12, seed=1)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A score set of three units, of which one is published; it has no signs yet."""
    folder = write_scores(tmp_path / "scores", [cut(DOCUMENTS, [4] * 3)])
    (folder / "_SUCCESS.json").unlink()
    for path in sorted((folder / "data").iterdir())[1:]:
        path.unlink()
    return folder


def put_sign(store: Path, *, ago: float = 1.0, idle: float = 0.0, name: str = "a", **changes: Any) -> None:
    """A sign that was written some seconds ago, when nothing had moved for `idle` seconds."""
    written = time.time() - ago
    progress = Snapshot(what="score", units=1, n_units=3, share=0.43, tokens=412_000, tokens_per_s=2310.0, seconds_left=251.0, workers=3)  # fmt: skip
    sign: dict[str, Any] = {
        "run": name, "command": "score", "version": "1", "host": "node-7", "pid": 4711, "started": written - 3600,
        "written": written, "interval_s": 30.0, "moved": written - idle, "outcome": None, "message": "",
        "progress": progress, "most_workers": 4, "worker_s": 7200.0, "removed_worker_s": 0.0,
    }  # fmt: skip
    path = store / RUNS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(Sign(**sign | changes).to_json())
    os.utime(path, (written, written))


Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def status(store: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The exit code and the printed lines of the command."""

    def run(*options: str) -> tuple[int, list[str]]:
        code = main(["status", str(store), *options])
        return code, capsys.readouterr().out.replace(str(store), "OUT").splitlines()

    return run


SOME = r"(\d+m)?\d+s"
"""A time below an hour: a busy machine may take a second more."""


def test_a_running_one(store: Path, status: Run) -> None:
    put_sign(store)
    code, lines = status()
    assert code == 10
    assert lines[0] == "OUT: score set, running: score on node-7, process 4711"
    tokens = sum(len(document.ids) for document in DOCUMENTS[:4])
    assert lines[1].startswith(
        f"published: 1 of 3 units (33.3%); documents 4, scored 4, quarantined 0, tokens {tokens}, "
    )
    assert re.fullmatch(
        f"last sign {SOME} ago: score 43%, 1 of 3 units, 412k tokens in this run, 2,310 tokens/s, ETA {SOME}, workers 3, at most 4",
        lines[2],
    )
    assert re.match(f"last movement {SOME} ago; begun 20", lines[3])
    assert lines[4] == "so far: 2 worker-hours"


def test_the_time_left_of_a_stage_is_not_that_of_the_run(store: Path, status: Run) -> None:
    put_sign(store, command="select", progress=Snapshot(what="count", units=1, n_units=3, seconds_left=100.0))
    assert re.search(f"count 0%, 1 of 3 units, ETA {SOME} for this stage, workers 1", status()[1][2])


def test_a_stuck_one(store: Path, status: Run) -> None:
    put_sign(store, idle=1900, progress=Snapshot(what="score", phase="waiting for a worker to start", workers=0))
    code, lines = status()
    assert code == 11
    assert re.fullmatch(
        f"OUT: score set, stuck: score on node-7, process 4711 lives, but nothing has moved for {SOME}", lines[0]
    )
    assert any(line.endswith(" ago: waiting for a worker to start, workers 0, at most 4") for line in lines)
    assert status("--stuck-after", "60")[0] == 10


def test_a_dead_one(store: Path, status: Run) -> None:
    put_sign(store, ago=250)
    code, lines = status()
    assert code == 12
    assert re.fullmatch(
        rf"OUT: score set, dead: no sign since 20\S+ \S+ UTC, {SOME} ago \(score on node-7, process 4711\)", lines[0]
    )
    assert lines[1] == (
        "It was killed, stopped or cut off from the storage. 2 units are left. Run the same command again to go on."
    )


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
def test_one_that_ended_before_its_end(store: Path, status: Run, outcome: str) -> None:
    put_sign(store, outcome=outcome, message="no space on the disk")
    code, lines = status()
    assert code == 13
    assert lines[0].startswith(f"OUT: score set, {outcome} at 20")
    assert lines[0].endswith(": no space on the disk") == (outcome == "failed")
    assert lines[1] == "2 units are left. Run the same command again to go on."


def test_one_without_signs(status: Run) -> None:
    code, lines = status()
    assert code == 14
    assert lines[0].startswith("OUT: score set, unknown: no run has left a sign of life here.")


def test_one_that_lost_files_after_its_end(store: Path, status: Run) -> None:
    put_sign(store, outcome="finished")
    code, lines = status()
    assert code == 14
    assert "finished, but files were removed" in lines[0]


def test_one_that_finished_and_lost_units_since(store: Path, status: Run) -> None:
    put_sign(store, outcome="finished")
    (store / "_SUCCESS.json").write_text(
        json.dumps(
            {
                "units": 3,
                "documents": 12,
                "scored": 12,
                "quarantined": 0,
                "tokens": 1,
                "losses": 1,
                "total_nats": 1.0,
                "text_bytes": 1,
            }
        )
    )
    code, lines = status()
    assert code == 14
    assert "files were removed since then" in lines[0]
    assert lines[1].startswith("2 units are left")


def test_a_finished_one(store: Path, status: Run) -> None:
    write_scores(store, [cut(DOCUMENTS, [4] * 3)])
    assert status()[0] == 0
    put_sign(store, outcome="finished")
    code, lines = status()
    assert code == 0
    assert lines[0].startswith("OUT: score set, finished at 20")
    assert lines[1].startswith("published: 3 of 3 units (100.0%); documents 12, ")


def test_no_store_and_wrong_options_are_wrong_usage(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ([str(tmp_path)], "is not a rho-score store"),
        ([str(tmp_path / "nothing")], "is not a rho-score store"),
        ([str(store), "--price-per-hour", "-1"], "--price-per-hour must not be negative"),
        ([str(store), "--stuck-after", "0"], "--stuck-after must be above 0"),
        ([str(store), "--watch", "0"], "--watch takes one number of seconds above 0, got 0"),
        ([str(store), "--watch", "1", "2"], "--watch takes one number"),
    ):
        assert main(["status", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_money_is_the_sum_over_all_runs_and_the_servers_tokens(store: Path, status: Run) -> None:
    put_sign(store, name="first", ago=9000, worker_s=3600.0, removed_worker_s=1800.0)
    put_sign(store, name="second", worker_s=5400.0)
    (store / "spent.json").write_text('{"tokens_by_price": {"0.5": 3000000, "0.25": 1000000}, "wanted": 0}')
    assert status()[1][-1] == "so far: 3 worker-hours, and 1.75 for 4,000,000 tokens that were sent to a server"
    assert status("--price-per-hour", "2.5")[1][-1] == (
        "money so far: 9.25 = 7.5 for 3 worker-hours at 2.5 + 1.75 for 4,000,000 tokens that were sent to a server"
    )
    summary = rho.status(rho.StatusConfig(output=str(store), price_per_hour=2.5))
    assert (summary.money.total, summary.money.for_workers, summary.money.for_tokens) == (9.25, 7.5, 1.75)


def test_the_time_of_workers_that_was_paid_for_is_counted_once(store: Path, status: Run) -> None:
    put_sign(store, name="first", worker_s=3600.0)
    (store / "spent.json").write_text(
        '{"tokens_by_price": {"0.5": 2000000}, "wanted": 0, "worker_seconds_by_price": {"2": 7200.0, "4": 1800.0}, '
        '"wanted_worker_seconds": 0, "workers": {}}'
    )
    tokens = "1 for 2,000,000 tokens that were sent to a server"
    assert status()[1][-1] == f"money so far: 7 = 6 for 2.5 worker-hours + {tokens}"
    assert status("--price-per-hour", "10")[1][-1] == f"money so far: 26 = 25 for 2.5 worker-hours at 10 + {tokens}"


def test_json_has_what_the_lines_say(store: Path, status: Run) -> None:
    put_sign(store)
    code, (line,) = status("--json", "--price-per-hour", "1")
    found = json.loads(line)
    assert (code, found["exit_code"], found["state"], found["kind"]) == (10, 10, "running", "score set")
    assert (found["contents"]["done"], found["contents"]["of"]) == (1, 3)
    assert found["sign"]["progress"]["tokens_per_s"] == 2310.0
    assert found["sign"]["written"].endswith(" UTC")
    assert found["money"]["total"] == 2.0


def test_json_is_json_whatever_a_message_holds(store: Path, status: Run) -> None:
    put_sign(store, outcome="failed", message='no token="abc" at https://u:secret@host/x?q="a" max_tokens="5"')
    code, (line,) = status("--json")
    assert code == 13
    assert json.loads(line)["sign"]["message"] == 'no token="abc" at https://host/x"a" max_tokens="5"'


def test_hostile_texts_of_a_sign_are_shown_as_what_they_are(store: Path, status: Run) -> None:
    hostile = "\x1b[2J\r\nOUT: score set, finished s3://me:secret@host/x?sig=1 \u202e"
    put_sign(
        store, outcome="failed", message=hostile * 100, host=hostile, command=hostile, progress=Snapshot(phase=hostile)
    )
    (code, lines), (_, alive) = status(), (put_sign(store, host=hostile, progress=Snapshot(phase=hostile)), status())[1]
    assert code == 13
    for shown in (lines, alive):
        text = "\n".join(shown)
        assert len(shown) < 7
        assert "secret" not in text
        assert "sig=1" not in text
        assert all(character.isprintable() for line in shown for character in line)
    assert len(lines[0]) < 2000


def test_a_clock_that_is_behind_is_told(store: Path, status: Run) -> None:
    put_sign(store, ago=-300)
    code, lines = status()
    assert code == 10
    assert re.fullmatch(f"the clock of this machine is {SOME} behind that of the storage or of the run", lines[-1])


def test_the_clock_of_the_run_may_be_wrong(store: Path, status: Run) -> None:
    put_sign(store, ago=7200)
    os.utime(store / RUNS / "a.json")  # the storage says that it is new
    assert status()[0] == 10


@pytest.fixture
def ends_at_the_third_look(store: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Publishes a unit at each wait, and ends the run at the third; the waits."""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        (store / data_name(f"shard-0.parquet_{4 * len(waits)}-{4 * len(waits) + 4}_{len(waits)}of3")).touch()
        put_sign(store, outcome="interrupted" if len(waits) == 2 else None)

    put_sign(store)
    monkeypatch.setattr("rho_score.cli.status_commands.time.sleep", wait)
    return waits


def test_watching_prints_a_block_for_each_look_until_the_run_ends(
    status: Run, ends_at_the_third_look: list[float]
) -> None:
    code, lines = status("--watch", "7")
    assert code == 13
    assert ends_at_the_third_look == [7.0, 7.0]
    assert [line.split()[1] for line in lines if line.startswith("published")] == ["1", "2", "3"]
    assert lines.count("") == 2


def test_watching_as_json_prints_a_line_for_each_look(status: Run, ends_at_the_third_look: list[float]) -> None:
    code, lines = status("--watch", "--json")
    assert code == 13
    assert ends_at_the_third_look == [job.WATCH_S, job.WATCH_S]
    assert [json.loads(line)["state"] for line in lines] == ["running", "running", "interrupted"]


def test_on_a_terminal_each_look_takes_the_place_of_the_one_before(
    store: Path, ends_at_the_third_look: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = pty.openpty()
    monkeypatch.setenv("COLUMNS", "60")
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["status", str(store), "--watch"]) == 13
        monkeypatch.undo()
    shown = b""
    with io.FileIO(master) as other_end:
        try:
            while chunk := other_end.read(1 << 16):
                shown += chunk
        except OSError:  # the end of a terminal
            pass
    blocks = shown.decode().replace("\r\n", "\n").split("\x1b[5A\x1b[J")
    assert len(blocks) == 3
    assert all(len(line) <= 60 for block in blocks for line in block.splitlines())
    assert blocks[0].count("\n") == 5


def test_ctrl_c_ends_watching_with_the_last_state(store: Path, status: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    put_sign(store)
    monkeypatch.setattr("rho_score.cli.status_commands.time.sleep", interrupt)
    assert status("--watch")[0] == 10


def test_the_options_may_stand_in_a_file(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_sign(store, outcome="failed", message="why")
    (tmp_path / "run.yaml").write_text(f"output: {store}\nwatch: [3]\nprice_per_hour: 2\n")
    assert main(["status", "--config", str(tmp_path / "run.yaml")]) == 13
    assert "money so far: 4 for 2 worker-hours at 2" in capsys.readouterr().out


def test_nothing_is_written(store: Path) -> None:
    put_sign(store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    rho.status(rho.StatusConfig(output=str(store)))
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_the_newest_time_of_a_file_is_that_of_the_storage(store: Path) -> None:
    put_sign(store, ago=500)
    info = Folder(str(store)).listing(RUNS)["a.json"]
    assert info.modified == pytest.approx(time.time() - 500, abs=5)
