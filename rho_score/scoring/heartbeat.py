"""A worker whose time is paid: it tells the ledger that it lives, and gives up its work when the money is gone."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from rho_score.errors import RhoScoreError
from rho_score.scoring.worker_time import BEAT_S

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_START_S = 120.0
"""A process counts from at most so long before it became a worker: Ray may have used it for other tasks."""
LOOK_S = 0.1
"""Seconds between two looks at whether the money is gone, while the model runs."""
ANSWER_S = 30.0
"""How long a worker waits for the ledger, which may be starting again."""


class AbandonedError(RhoScoreError):
    """The money is gone, and the work in hand is given up."""


class Heartbeat:
    """Signs of life to the ledger, from a thread of its own. `over` is set once the money is gone."""

    def __init__(self, ledger: Any) -> None:
        self.worker = uuid.uuid4().hex[:12]
        self.over = threading.Event()
        self.done = 0
        """Tokens of the unit in hand that are scored."""
        self._ledger = ledger
        self._process = os.uname().nodename, os.getpid()
        self._start_s = min(process_age(), MOST_START_S)
        self._hello = time.monotonic()
        self._tell()
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_S)
            self._tell()

    def _tell(self) -> None:
        import ray

        age = self._start_s + time.monotonic() - self._hello
        try:
            over = self._ledger.beat.remote(self.worker, self._process, age, self._start_s, self.done)
            if ray.get(over, timeout=ANSWER_S):
                self.over.set()
        except Exception as error:  # whatever it is, the next sign must follow: without signs the time is not counted
            log.debug("the ledger does not answer: %s", error)


class Desk:
    """Does work in one thread, in order. Who waits for it stops waiting once `over` is set."""

    def __init__(self, over: threading.Event) -> None:
        self._over = over
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._do, daemon=True, name="model").start()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Does this once all work before it is done."""
        future: Future[T] = Future()
        self._work.put((future, work))
        return future

    def run(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns.

        Raises:
            AbandonedError: the money is gone. What is under way goes on until its process ends.
        """
        future = self.submit(work)
        while not wait([future], timeout=LOOK_S).done:
            if self._over.is_set():
                raise AbandonedError("the money is gone")
        return future.result()

    def _do(self) -> None:
        while True:
            future, work = self._work.get()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)


def process_age() -> float:
    """Seconds since this process was started; where the system does not tell, those that it has computed."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.process_time()
    return max(up - started / os.sysconf("SC_CLK_TCK"), 0.0)
