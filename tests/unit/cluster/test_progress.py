import os
import pty
import sys
from collections.abc import Iterator

import pytest

from rho_score.cluster import progress as progress_module
from rho_score.cluster.progress import Progress


def test_a_log_gets_lines_with_units_documents_rate_and_eta(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "LOG_INTERVAL_S", 0.02)
    with Progress("score", n_units=2) as progress:
        progress.add(documents=3, tokens=500)
        progress_module.threading.Event().wait(0.1)
        progress.add(documents=1, tokens=500)
    lines = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith("score: 1/2 units, 3 documents, 500 tokens, ") and "ETA 0:00:0" in line for line in lines
    )
    assert lines[-1].startswith("score: 2/2 units, 4 documents, 1,000 tokens, ")
    assert lines[-1].endswith("ETA done")


def _chunks(master: int) -> Iterator[str]:
    """What was written to a terminal whose other end is closed; its end is an error on Linux."""
    try:
        while chunk := os.read(master, 1 << 16):
            yield chunk.decode(errors="replace")
    except OSError:
        return


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress("score", n_units=2) as progress:
            progress.add(documents=3, tokens=500)
            progress.add(documents=1, tokens=500)
    shown = "".join(_chunks(master))
    os.close(master)
    assert "score: 100%" in shown
    assert "2/2" in shown
    assert "4 documents" in shown
