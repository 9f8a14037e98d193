import logging
import os
import pty
import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from rho_score.cluster import progress as progress_module
from rho_score.cluster.progress import Progress, Snapshot, clock, short, shown_here
from rho_score.cluster.throughput import Done


def test_a_log_gets_lines_with_share_units_tokens_rate_and_eta(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "LOG_INTERVAL_S", 0.02)
    with Progress("score", n_units=2) as progress:
        progress.add(tokens=500)
        progress_module.threading.Event().wait(0.1)
        progress.add(tokens=500)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("score: 50 %, 1/2 units, 500 tokens, ") and "tokens/s, ETA 0s" in line for line in lines)
    assert lines[-1].startswith("score: 100 %, 2/2 units, 1.0k tokens, ")
    assert lines[-1].endswith("tokens/s, took 0s")


def test_before_anything_is_done_the_phase_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "LOG_INTERVAL_S", 0.02)

    def fails_while_it_loads() -> None:
        with Progress("score") as progress:
            progress.phase("loading the model")
            progress_module.threading.Event().wait(0.1)
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fails_while_it_loads()
    lines = capsys.readouterr().err.splitlines()
    assert set(lines) == {"score: loading the model … 0s"}


def test_what_is_watched_is_looked_at_until_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "TICK_S", 0.01)
    with Progress("score") as progress:
        seen: list[int] = []

        def look() -> None:
            seen.append(1)
            progress.update(Done(0, len(seen), len(seen) / 1e6))

        progress.begin(n_units=3, size=9.0)
        progress.watch(look)
        progress_module.threading.Event().wait(0.3)
        progress.watch(None)
        n = len(seen)
        assert n > 2
        assert progress.done.tokens == n
        progress_module.threading.Event().wait(0.1)
        assert len(seen) == n


def _chunks(master: int) -> Iterator[str]:
    """What was written to a terminal whose other end is closed; its end is an error on Linux."""
    try:
        while chunk := os.read(master, 1 << 16):
            yield chunk.decode(errors="replace")
    except OSError:
        return


def test_a_terminal_gets_a_bar_and_log_lines_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        handler = logging.StreamHandler(terminal)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            with Progress("score", n_units=2) as progress:
                progress.phase("loading the model")
                logging.getLogger("rho_score.test").warning("a warning")
                progress.phase("")
                progress.add(tokens=500)
                progress.add(tokens=412_000)
        finally:
            root.removeHandler(handler)
    shown = "".join(_chunks(master))
    os.close(master)
    assert "score   0 % |" in shown
    assert "| loading the model … 0s" in shown
    assert re.search(r"\r +\ra warning\r\n", shown), "it is not on a line of its own"
    assert "score 100 % |" in shown
    assert "2/2 units  412k tokens" in shown


def test_numbers_and_times_areshort() -> None:
    assert [short(n) for n in (0, 999, 1000, 412_345, 3_400_000, 12 * 10**9, 10**12)] == [
        "0", "999", "1.0k", "412k", "3.4M", "12G", "1.0T",
    ]  # fmt: skip
    assert [clock(s) for s in (0.4, 59.6, 250, 3600, 11100, 200_000)] == [
        "0s",
        "1m00s",
        "4m10s",
        "1h00m",
        "3h05m",
        "2d07h",
    ]


def test_a_snapshot_says_what_is_shown_and_holds_plain_numbers() -> None:
    with Progress("select", unit="steps") as progress:
        assert shown_here()[-1] is progress
        progress.phase("joining")
        assert progress.snapshot() == Snapshot(what="select", phase="joining", unit="steps")
        progress.begin(n_units=4, size=40.0, before=Done(1, 100, 10.0))
        progress.phase("")
        progress.add(tokens=np.int64(50), units=np.int64(9))  # type: ignore[arg-type]
        progress.workers = 3
        found = progress.snapshot()
        assert (found.units, found.n_units, found.tokens, found.workers) == (10, 4, 50, 3)
        assert found.share == 19 / 40
        assert {type(value) for value in vars(found).values()} <= {str, int, float, type(None)}
    assert progress not in shown_here()
