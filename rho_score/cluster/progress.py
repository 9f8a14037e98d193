"""Progress of a long run: a live bar on a terminal, a line every few seconds in a log."""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from rho_score.cluster import metrics
from rho_score.cluster.throughput import NOTHING, Done, Throughput
from rho_score.files.retries import retries_made

LOG_INTERVAL_S = 5.0
TICK_S = 1.0
"""Seconds between two looks at what is done."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a `Progress` shows at one moment."""

    what: str = ""
    """The name of the work, such as "score" or "count"."""
    phase: str = ""
    """What is going on while nothing is done yet; empty once units are."""
    unit: str = "units"
    units: int = 0
    n_units: int = 0
    """0 while it is not known."""
    share: float = 0.0
    """Of the whole work, an earlier run's part included, from 0 to 1."""
    tokens: int = 0
    """Those of this run."""
    tokens_per_s: float = 0.0
    seconds_left: float | None = None
    """None while it is not known."""
    workers: int = 1
    """Those in use now."""


_HERE = threading.local()


def shown_here() -> list["Progress"]:
    """The progresses that this thread has open, the innermost last. The list is kept up to date, and other threads may read it."""
    if not hasattr(_HERE, "shown"):
        _HERE.shown = []
    shown: list[Progress] = _HERE.shown
    return shown


class Progress:
    """Shows what is done of a run, how fast it goes and when it will end; use it as a context manager.

    On a terminal it is a bar. Elsewhere it is a line every `LOG_INTERVAL_S`, also while nothing is finished.
    """

    def __init__(self, what: str, *, n_units: int = 0, unit: str = "units") -> None:
        """`n_units`: 0 if it is not known yet; then only phases are shown until `begin`. `unit`: what is counted, in the plural."""
        self._what, self._unit = what, unit
        self._phase = ""
        self.workers = 1
        self._run = metrics.current()
        self._retries = retries_made()
        self._gauges: dict[str, float] = {}
        self._watch: Callable[[], None] | None = None
        self._started = time.monotonic()
        self._lock = threading.RLock()
        self._watching = threading.Lock()
        self._stop = threading.Event()
        self._terminal = sys.stderr.isatty()
        self._shown = ExitStack()
        self.begin(n_units=n_units, size=n_units)
        size = shutil.get_terminal_size()  # 80 x 24 where a terminal does not tell; tqdm by itself shows nothing then
        self._bar = tqdm(
            total=1.0,
            bar_format=what + " {percentage:3.0f} % |{bar}| {desc}",
            disable=not self._terminal,
            ncols=size.columns,
            nrows=size.lines,
        )
        self._heartbeat = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Progress":
        if self._terminal:
            self._shown.enter_context(logging_redirect_tqdm())
        self._heartbeat.start()
        self._siblings = shown_here()
        self._siblings.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._siblings.remove(self)
        self._stop.set()
        self._heartbeat.join()
        self._phase = ""
        self._bar.leave = self._n_units > 0
        self._draw()
        self._bar.close()
        self._shown.close()
        self._measure()
        if self._n_units and not self._terminal:
            self._print_line()

    def begin(self, *, n_units: int, size: float, before: Done = NOTHING) -> None:
        """Say how much there is to do. `before`: what an earlier run did of it, which does not count into the rate."""
        with self._lock:
            if (run := metrics.current()) != metrics.UNNAMED:  # a thread that shows progress knows no run
                self._run = run
            self._n_units, self._size, self._tokens_before = n_units, size, before.tokens
            self.done = before
            self.restart_clock(0.0)

    def restart_clock(self, seconds_ago: float) -> None:
        """Measure the rate from that moment on: what came before was preparation."""
        with self._lock:
            self._throughput = Throughput(max(time.monotonic() - seconds_ago, self._started), self.done)

    def phase(self, doing: str) -> None:
        """Show what is going on until something is done; "" shows the counts again."""
        with self._lock:
            self._phase = doing
        self._draw()

    def add(self, *, tokens: int = 0, units: int = 1) -> None:
        """More units are done, each as large as any other. Without tokens (work on what was counted before) only units are told."""
        with self._lock:
            done = self.done
            self.update(Done(done.units + units, done.tokens + tokens, done.size + units))
        self.count(tokens=tokens, units=units)

    def count(self, *, tokens: int, units: int = 1) -> None:
        """Count units that are done for good in the metrics; `add` does it by itself, `update` does not."""
        metrics.record("units_total", units, self._run, phase=self._what)
        metrics.record("tokens_total", tokens, self._run, phase=self._what)

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge of the metrics, now and at every look: Ray forgets one that was not set for a while."""
        with self._lock:
            self._gauges[name] = value
        metrics.record(name, value, self._run)

    def update(self, done: Done) -> None:
        """So much is done in all."""
        with self._lock:
            self.done = done
            self._throughput.add(time.monotonic(), done)
        self._draw()

    def snapshot(self) -> Snapshot:
        """How far the run is now."""
        now = time.monotonic()
        with self._lock:
            begun = bool(self._n_units) and not self._phase
            left = self._throughput.seconds_left(now, self._size) if begun else None
            return Snapshot(
                what=self._what,
                phase=self._phase,
                unit=self._unit,
                units=int(self.done.units),
                n_units=int(self._n_units),
                share=float(min(self._share(), 1.0)),
                tokens=int(self.done.tokens - self._tokens_before),
                tokens_per_s=float(self._throughput.tokens_per_s(now)) if begun else 0.0,
                seconds_left=None if left is None else float(left),
                workers=self.workers,
            )

    def watch(self, look: Callable[[], None] | None) -> None:
        """Call `look` every `TICK_S` from now on; None ends that. When this returns, no call is under way."""
        with self._watching:
            self._watch = look
        if look is None:
            self._measure()  # the cluster may be gone when the progress ends

    def _beat(self) -> None:
        last_line = time.monotonic()
        while not self._stop.wait(min(TICK_S, LOG_INTERVAL_S)):
            with self._watching:
                if self._watch:
                    self._watch()
            self._draw()
            self._measure()
            if not self._terminal and time.monotonic() - last_line >= LOG_INTERVAL_S:
                last_line = time.monotonic()
                self._print_line()

    def _draw(self) -> None:
        if self._terminal:
            with self._lock:
                self._bar.n = min(self._share(), 1.0)
                self._bar.set_description_str("  ".join(self._facts()))

    def _measure(self) -> None:
        """Set the gauges of the metrics, and count retries."""
        now, retries = time.monotonic(), retries_made()
        with self._lock:
            if not self._n_units:  # the run may have no name yet
                return
            new, self._retries = retries - self._retries, retries
            left = 0.0 if self.done.units >= self._n_units else self._throughput.seconds_left(now, self._size)
            rate = self._throughput.tokens_per_s(now) if self.done.tokens else None
            gauges = dict(self._gauges)
        phase = self._what
        metrics.record_each("storage_retries_total", new, self._run, "kind")
        metrics.record("done_ratio", min(self._share(), 1.0), self._run, phase=phase)
        metrics.record("remaining_seconds", left, self._run, phase=phase)
        metrics.record("tokens_per_second", rate, self._run, phase=phase)
        for name, value in gauges.items():
            metrics.record(name, value, self._run)

    def _print_line(self) -> None:
        share = f"{self._share():.0%}".replace("%", " %")
        facts = self._facts() if self._phase else [share, *self._facts()]
        print(f"{self._what}: {', '.join(facts)}", file=sys.stderr, flush=True)

    def _share(self) -> float:
        return self.done.size / self._size if self._size else 0.0

    def _facts(self) -> list[str]:
        """What is shown, as a list of short texts."""
        now = time.monotonic()
        with self._lock:
            if self._phase or not self._n_units:
                return [f"{self._phase or 'starting'} … {clock(now - self._started)}"]
            facts = [f"{self.done.units}/{self._n_units} {self._unit}"]
            if self.done.tokens:
                rate = self._throughput.tokens_per_s(now)
                facts += [f"{short(self.done.tokens)} tokens", f"{rate:,.0f} tokens/s"]
            if self.done.units >= self._n_units:
                return [*facts, f"took {clock(now - self._started)}"]
            left = self._throughput.seconds_left(now, self._size)
            return [*facts, f"ETA {'unknown' if left is None else clock(left)}"]


def short(number: int) -> str:
    """A number in at most four digits: 999, 412k, 3.4M, 120G."""
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            value = number / 10**power
            return f"{value:.1f}{letter}" if value < 10 else f"{value:.0f}{letter}"
    return str(number)


def clock(seconds: float) -> str:
    """A time in its two largest parts: 12s, 4m10s, 3h05m, 2d07h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d{hours % 24:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
