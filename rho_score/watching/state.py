"""Whether a run lives, from its signs of life and the clocks. No files here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rho_score.stores.signs import Seen, Sign

State = Literal["finished", "running", "stuck", "dead", "failed", "interrupted", "unknown"]
EXIT_CODES: dict[State, int] = {
    "finished": 0, "running": 10, "stuck": 11, "dead": 12, "failed": 13, "interrupted": 13, "unknown": 14,
}  # fmt: skip
MISSED = 3
"""Intervals without a sign after which a run counts as dead."""
LONGEST_S = 600.0
"""The longest interval that is believed."""


@dataclass(frozen=True)
class Now:
    """The time of a look, in seconds since the epoch."""

    here: float
    """By the clock of this machine."""
    storage: float | None = None
    """By the clock of the storage, if it tells."""


class Verdict(NamedTuple):
    """What is known of the last run."""

    state: State
    seen: Seen | None
    """Its last sign; None if there is none."""
    age_s: float | None
    """Seconds since that sign."""


class Looks:
    """The looks at one store. From the second one on, a sign that changes or does not says more than any clock."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[float, float]] = {}
        self._changed: dict[str, float] = {}

    def judge(
        self, signs: Sequence[Seen], now: Now, elapsed_s: float, *, finished: bool, stuck_after_s: float
    ) -> Verdict:
        """What a look says. finished: True if the store is complete. elapsed_s: of a clock that only goes forward."""
        ages = {seen.name: self._age(seen, now, elapsed_s) for seen in signs}
        alive = [seen for seen in signs if seen.sign.outcome is None and ages[seen.name] <= _patience(seen.sign)]
        others = sorted(signs, key=lambda seen: -ages[seen.name])
        if finished:
            ended = [seen for seen in others if seen.sign.outcome is not None]
            last = (ended or others)[-1:]
            return Verdict("finished", last[0] if last else None, ages[last[0].name] if last else None)
        if alive:  # of several, the one that moved last
            seen = min(alive, key=lambda seen: seen.sign.idle_s)
            return Verdict("stuck" if seen.sign.idle_s >= stuck_after_s else "running", seen, ages[seen.name])
        if not others:
            return Verdict("unknown", None, None)
        seen = others[-1]
        outcome = seen.sign.outcome
        state: State = "dead" if outcome is None else "unknown" if outcome == "finished" else outcome
        return Verdict(state, seen, ages[seen.name])

    def _age(self, seen: Seen, now: Now, elapsed_s: float) -> float:
        """Seconds since a sign, as well as they can be known."""
        written, first = self._first.setdefault(seen.name, (seen.sign.written, elapsed_s))
        if seen.sign.written != written:
            self._first[seen.name] = seen.sign.written, elapsed_s
            self._changed[seen.name] = elapsed_s
        if seen.name in self._changed:
            return elapsed_s - self._changed[seen.name]
        return max(age_by_clocks(seen, now), elapsed_s - first)


def age_by_clocks(seen: Seen, now: Now) -> float:
    """Seconds since a sign, by the clocks alone; not below 0.

    If the storage tells its time, only its clock counts. Otherwise the clocks may differ: the age
    is the least that the clock of the storage or that of the run allows, compared with this
    machine's. A sign from the future is as good as new.
    """
    if seen.modified is not None and now.storage is not None:
        return max(0.0, now.storage - seen.modified)
    ages = [now.here - at for at in (seen.modified, seen.sign.written) if at is not None]
    past = [age for age in ages if age >= -seen.sign.interval_s]
    return max(0.0, min(past, default=0.0))


def clocks_apart_s(seen: Seen, now: Now) -> float | None:
    """By how many seconds this machine's clock is ahead of that of the storage, or else of the run; None if it does not show."""
    if seen.modified is not None and now.storage is not None:
        apart = now.here - now.storage
    else:
        apart = now.here - (seen.sign.written if seen.modified is None else seen.modified)
        apart = min(apart, 0.0)  # a sign from the future shows it, an old one does not
    return apart if abs(apart) > seen.sign.interval_s else None


def _patience(sign: Sign) -> float:
    """Seconds after which a run without another sign is dead."""
    return MISSED * min(sign.interval_s, LONGEST_S)
