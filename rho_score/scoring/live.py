"""Model workers tell a small actor how far they are in their units, and the driver asks it.

This is for display only. Nothing waits for the actor: workers call it and go on, and the driver takes an answer when there
is one. If the actor dies, Ray starts it again; until workers report again, units count when they are published.
"""

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from rho_score.cluster import metrics
from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import actor_here
from rho_score.cluster.throughput import Done, Latest, Report, UnitsDone

log = logging.getLogger(__name__)

WORKERS_A_SECOND = 200
"""Reports a second that all workers together make at most."""
HERE_S = 5.0
"""Seconds between two times that a worker tells that it is there, at least."""
LEAST_INTERVAL_S = 1.0
"""Seconds between two reports of a worker, at least."""
MOST_WAITING = 20
"""Reports of a worker that may wait for an actor that does not answer; more are dropped."""
STARTING, FIRST_PASS = "waiting for a worker to start", "running the first pass"


class BoardState(NamedTuple):
    """What workers said last."""

    phase: str
    """Of the preparation."""
    reports: list[Report]
    """On units in hand."""
    workers: int
    """Workers that are there."""
    waiting: int
    """Units that wait for a worker."""


class Board:
    """The actor: what workers said last."""

    def __init__(self) -> None:
        self._latest = Latest()
        self._phase = ""
        self._here: dict[str, float] = {}
        self._waiting: set[str] = set()

    def tell_phase(self, doing: str) -> None:
        """A worker prepares itself."""
        self._phase = doing

    def tell(self, report: Report) -> None:
        """A worker is so far in a unit."""
        self._waiting.discard(report.unit)
        self._latest.hear(report)

    def tell_here(self, worker: tuple[str, float]) -> None:
        """A worker is there, and will say so again within some seconds."""
        name, within_s = worker
        self._here[name] = time.monotonic() + 3 * within_s

    def waits(self, unit: str) -> None:
        """A unit is tokenized."""
        self._waiting.add(unit)

    def state(self, published: Sequence[str]) -> "BoardState":
        """What workers said last.


        `published` units are dropped for good.
        """
        self._latest.forget(published)
        self._waiting.difference_update(published)
        now = time.monotonic()
        self._here = {worker: until for worker, until in self._here.items() if until > now}
        return BoardState(self._phase, self._latest.reports(), len(self._here), len(self._waiting))


class Reporter:
    """What a worker has in order to tell how far it is. Cheap to send to it."""

    def __init__(self, board: Any, *, every_s: float) -> None:
        self._board, self._every_s = board, every_s

    def phase(self, doing: str) -> None:
        """Tell what is going on before the first unit."""
        self._send("tell_phase", doing)

    def stay(self) -> None:
        """Tell again and again, until this process ends, that this worker is there."""
        worker, every_s = uuid.uuid4().hex, max(HERE_S, self._every_s)

        def tell() -> None:
            while True:
                self._send("tell_here", (worker, every_s))
                time.sleep(every_s)

        threading.Thread(target=tell, name="worker-is-here", daemon=True).start()

    def waits(self, unit: str) -> None:
        """Tell that a unit is tokenized and waits for a worker."""
        self._send("waits", unit)

    def unit(self, unit: str, tokens: int) -> "UnitReporter":
        """Tell that a unit of so many tokens is begun."""
        return UnitReporter(self, unit, tokens)

    def _send(self, method: str, content: Any) -> None:
        from ray.exceptions import RayError

        try:
            getattr(self._board, method).options(num_returns=0).remote(content)
        except RayError as error:  # too many wait
            log.debug("the progress of this worker is not shown: %s", error)


class UnitReporter:
    """Counts the tokens of a unit as passes finish, and tells of them every so often."""

    def __init__(self, reporter: Reporter, unit: str, tokens: int) -> None:
        self._reporter, self._report = reporter, Report(unit, time.time(), 0, tokens)
        self._begun = time.monotonic()
        self._send()

    def __call__(self, tokens: int) -> None:
        """So many tokens more are done; a part of a unit that is scored again does not take the count beyond the unit."""
        report = self._report
        self._report = report._replace(done=min(report.done + tokens, report.tokens))
        if time.monotonic() - self._told >= self._reporter._every_s:
            self._send()

    def finished(self) -> None:
        """The whole unit is done."""
        self._report = self._report._replace(done=self._report.tokens)
        self._send()

    def _send(self) -> None:
        self._told = time.monotonic()
        self._reporter._send("tell", self._report._replace(running_s=self._told - self._begun))


class LiveProgress:
    """Shows the tokens of the units that workers have in hand; use it as a context manager, inside the cluster's."""

    def __init__(
        self, progress: Progress, *, sizes: dict[str, float], before: Iterable[str], most_workers: int
    ) -> None:
        """`sizes`: of every unit of the plan. `before`: the units that were published by an earlier run."""
        self._progress, self._most_workers = progress, most_workers
        self._units = UnitsDone(sizes, before)
        self._n_units, self._size = len(sizes), sum(sizes.values())
        self._before, self._begun = self._units.done, False
        self._lock = threading.Lock()
        self._published: list[str] = []
        self._answer: Any = None

    def __enter__(self) -> "LiveProgress":
        self._board = actor_here(Board, max_pending_calls=MOST_WAITING)
        self.reporter = Reporter(self._board, every_s=max(LEAST_INTERVAL_S, self._most_workers / WORKERS_A_SECOND))
        self._progress.begin(n_units=self._n_units, size=self._size, before=self._before)
        self._progress.workers = 0
        self._progress.phase(STARTING)
        self._run = metrics.current()
        self._progress.watch(self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import ray

        self._progress.watch(None)
        self._progress.workers = 0
        ray.kill(self._board)

    def publish(self, unit: str, tokens: int, took_s: float) -> None:
        """A unit is published, with so many tokens. `took_s`: how long its worker had it, by the worker's own clock."""
        with self._lock:
            self._published.append(unit)
            self._units.publish(unit, tokens)
            done = self._units.done
        self._show(done, took_s)

    def _look(self) -> None:
        """Take the answer to the last question, if there is one, and ask again."""
        import ray
        from ray.exceptions import RayError

        if self._answer is not None:
            if not ray.wait([self._answer], timeout=0)[0]:
                return
            try:
                said: BoardState = ray.get(self._answer)
                self._progress.workers = said.workers
            except RayError:
                said = BoardState("", [], 0, 0)
            phase, reports = said.phase, said.reports
            metrics.record("units_waiting", said.waiting, self._run)
            metrics.record("units_in_hand", sum(report.done < report.tokens for report in reports), self._run)
            with self._lock:
                self._units.hear(reports)
                done = self._units.done
            if reports or self._begun:
                self._show(done, max((report.running_s for report in reports), default=0.0))
            elif phase:
                self._progress.phase(phase)
        with self._lock:
            published, self._published = self._published, []
        try:
            self._answer = self._board.state.remote(published)
        except RayError:
            self._answer = None

    def _show(self, done: Done, seconds_ago: float) -> None:
        if not self._begun:
            self._begun = True
            self._progress.restart_clock(seconds_ago)  # of durations: the clocks of other nodes may differ
        self._progress.phase(FIRST_PASS if done == self._before else "")
        self._progress.update(done)
