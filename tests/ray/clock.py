"""How long the workers of a run live, watched from outside."""

import os
import threading
import time

import psutil

A_SECOND = 3600.0
"""The price of an hour at which a second of a worker costs 1."""


class Clock:
    """Counts the lifetimes of the workers' processes; knows nothing of what they say.

    A process that Ray had for something else counts from when it became a worker.
    """

    def __init__(self) -> None:
        self._opened = time.time()
        self._known: set[tuple[int, float]] = set()
        self._others: set[tuple[int, float]] = set()
        self._since: dict[tuple[int, float], float] = {}
        self._seen: dict[tuple[int, float], float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Clock":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Of all workers together."""
        return sum(last - self._since[process] for process, last in self._seen.items())

    def pids(self) -> list[int]:
        """The workers that were seen."""
        return [pid for pid, _ in self._seen]

    def _is_ours(self, process: psutil.Process) -> bool:
        """True if this process, or one that it started, started the other: other clusters may run here too."""
        return any(parent.pid == os.getpid() for parent in process.parents())

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            for process in psutil.process_iter():
                try:
                    title = " ".join(process.cmdline())
                    if not title.startswith("ray::"):
                        continue
                    name, now = (process.pid, process.create_time()), time.time()
                    if name not in self._known and not self._is_ours(process):
                        continue
                    self._known.add(name)
                    if "ScoreUnit" in title:
                        self._since.setdefault(name, now if name in self._others else max(name[1], self._opened))
                        self._seen[name] = now
                    else:
                        self._others.add(name)
                except psutil.Error:
                    continue
