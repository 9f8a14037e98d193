"""How fast a run goes and when it will be done, from counts and times alone."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

WHOLE_S = 120.0
"""Seconds during which the rate is that of the whole time so far; later it is that of the second half."""
STALLED_S = 60.0
"""Seconds without a change after which the time that has passed since then lowers the rate."""


class Done(NamedTuple):
    """What is done of a run. `size` is in the unit in which the whole run is measured, such as bytes of text."""

    units: int
    tokens: int
    size: float


NOTHING = Done(0, 0, 0.0)


class Report(NamedTuple):
    """How far a worker is in a unit.

    `started` is when this attempt at the unit began, in seconds since the epoch by the worker's clock, which only orders attempts.
    `running_s` is how long it has been going on.
    """

    unit: str
    started: float
    done: int
    tokens: int
    running_s: float = 0.0

    @property
    def share(self) -> float:
        """The share of the unit that is done."""
        return self.done / self.tokens if self.tokens else 0.0


class Latest:
    """The latest report on each unit. A report of an attempt that began before another one at the same unit is dropped."""

    def __init__(self) -> None:
        self._reports: dict[str, Report] = {}

    def hear(self, report: Report) -> None:
        """Take a report."""
        known = self._reports.get(report.unit)
        if known is None or known.started <= report.started:
            self._reports[report.unit] = report

    def forget(self, units: Iterable[str]) -> None:
        """Drop what is known of these units."""
        for unit in units:
            self._reports.pop(unit, None)

    def reports(self) -> list[Report]:
        """All reports that are known."""
        return list(self._reports.values())


class UnitsDone:
    """What is done of units of known sizes: each unit counts once, as published or by the last report on it."""

    def __init__(self, sizes: Mapping[str, float], before: Iterable[str] = ()) -> None:
        """`before`: the units that an earlier run published. Their tokens are not counted."""
        self._sizes = sizes
        self._published = set(before)
        self._size = sum(sizes[unit] for unit in self._published)
        self._tokens = 0
        self._in_hand: list[Report] = []

    def publish(self, unit: str, tokens: int) -> None:
        """A unit is published, with so many tokens."""
        if unit not in self._published:
            self._published.add(unit)
            self._size += self._sizes[unit]
            self._tokens += tokens

    def hear(self, reports: Iterable[Report]) -> None:
        """Replace what is known of the units that are not published yet."""
        self._in_hand = [report for report in reports if report.unit in self._sizes]

    @property
    def done(self) -> Done:
        """Published units and the shares of the others that are done."""
        reports = [report for report in self._in_hand if report.unit not in self._published]
        return Done(
            units=len(self._published),
            tokens=self._tokens + sum(report.done for report in reports),
            size=self._size + sum(self._sizes[report.unit] * report.share for report in reports),
        )


class _Sample(NamedTuple):
    at: float
    done: Done


class Throughput:
    """The rate of a run over the second half of its time, so that a cluster that grows or shrinks shows in it soon."""

    def __init__(self, at: float, done: Done) -> None:
        """`at`: now, in seconds of any clock. `done`: what was there before, which does not count into the rate."""
        self._kept = [_Sample(at, done)]
        self._start = at
        self._last = self._kept[0]

    def add(self, at: float, done: Done) -> None:
        """Note what is done by now."""
        if done == self._last.done:
            return
        self._last = _Sample(at, done)
        elapsed = at - self._start
        if at - self._kept[-1].at >= elapsed / 64:
            self._kept.append(self._last)
        while elapsed > WHOLE_S and len(self._kept) > 1 and self._kept[1].at <= self._start + elapsed / 2:
            del self._kept[0]

    def tokens_per_s(self, now: float) -> float:
        """Tokens a second."""
        return max(0.0, self._last.done.tokens - self._kept[0].done.tokens) / self._span(now)

    def seconds_left(self, now: float, size: float) -> float | None:
        """Seconds until `size` is done; None while that is unknown."""
        rate = (self._last.done.size - self._kept[0].done.size) / self._span(now)
        if rate <= 0:
            return None
        return max(0.0, (size - self._last.done.size) / rate - (now - self._last.at))

    def _span(self, now: float) -> float:
        """Seconds from the first sample to the last: what was done since then is in no count yet."""
        end = now if now - self._last.at > STALLED_S else self._last.at
        return max(end - self._kept[0].at, 1e-9)
