"""A command in a process of its own: its time, its last line, and the memory of all its processes."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

EVERY_S = 0.2
GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Ran:
    """What became of a command: its answer (JSON of its last line) or why there is none."""

    answer: dict[str, Any] | None
    error: str
    seconds: float
    largest: int
    """Highest resident memory of one process, bytes: anonymous and file pages, without shared memory (Ray's object store)."""
    total: int
    """Highest sum over all processes, bytes: proportional set size, so that what several share counts once."""


class MemoryWatch:
    """Highest memory of the trees below some processes while it is open.

    Resident pages are sampled five times a second; shares, which the kernel has to add up page by page, twenty times in
    whatever time has passed, at most as often.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self.largest = self.total = 0
        self._pids = list(pids)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        started = shares_at = time.monotonic()
        while not self._stop.is_set():
            processes = {p for pid in self._pids for p in tree(pid)}
            for process in processes:
                with suppress(*GONE):
                    self.largest = max(self.largest, _resident(process.pid))
            if (now := time.monotonic()) >= shares_at:
                self.total = max(self.total, sum(_proportional(process.pid) for process in processes))
                shares_at = now + min((now - started) / 20, 5)
            self._stop.wait(EVERY_S)


def tree(pid: int) -> list[Any]:
    """The process and all below it."""
    with suppress(*GONE):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.startswith("Rss")}
    return 1024 * (kilobytes.get("RssAnon", 0) + kilobytes.get("RssFile", 0))


def _proportional(pid: int) -> int:
    with suppress(*GONE):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return 1024 * next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return 0


def run(
    command: Sequence[str], *, cwd: Path, limit_s: float, environment: dict[str, str], also: Sequence[int] = ()
) -> Ran:
    """Run a command, at most `limit_s`; `also`: processes whose trees count as its own (a cluster that it uses)."""
    started = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=cwd, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with MemoryWatch([child.pid, *also]) as watch:
        try:
            out, err = child.communicate(timeout=limit_s)
            error = "" if child.returncode == 0 else _last_line(err) or f"exit code {child.returncode}"
        except subprocess.TimeoutExpired:
            end(child.pid)
            out, error = child.communicate()[0], f"not finished after {limit_s:.0f} s"
    seconds = time.perf_counter() - started
    lines = [line for line in out.splitlines() if line.startswith("{")]
    answer = json.loads(lines[-1]) if lines and not error else None
    return Ran(answer, error if error or answer else "no answer", seconds, watch.largest, watch.total)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def end(pid: int) -> None:
    """End a process that this program started, and all below it."""
    for process in reversed(tree(pid)):
        with suppress(*GONE):
            process.kill()


@contextmanager
def helper(command: Sequence[str], *, cwd: Path, environment: dict[str, str]) -> Iterator[tuple[int, str]]:
    """A process that prints a line and then waits until its standard input ends; its id and the line."""
    child = subprocess.Popen(
        command, cwd=cwd, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        yield child.pid, child.stdout.readline().strip()
    finally:
        try:
            child.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            end(child.pid)
