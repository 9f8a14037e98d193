"""The time for which the workers of a run are held. Pure arithmetic: every moment is given, in seconds of one clock.

A worker counts from the start of its process, so loading the model and waiting for units count too,
until `GONE_S` after the last thing that it said.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

BEAT_S = 1.0
"""Seconds between two signs of life of a worker."""
QUIET_S = 3.0
"""A worker that was not heard of for so long is not paid ahead any more: another one may be starting in its place."""
SILENT_S = 10.0
"""A worker that was not heard of for so long is taken for gone since its last sign."""
GONE_S = 2.0
"""What a worker's end is charged: its process ends after the last thing that it said."""
AHEAD_S = 5.0
"""Workers are paid for so long beforehand: as long as it takes to hear that the money is gone, and to end."""
START_S = 15.0
"""How long a process takes until its first sign, until the first worker of the run has shown it."""


@dataclass
class _Worker:
    born: float
    heard: float
    paid_until: float
    guessed: bool = False


@dataclass
class _Unit:
    worker: str
    tokens: int
    begun: float
    done: int = 0


@dataclass
class _Speeds:
    """The slowest speeds of the units that were scored, in tokens a second, by size in powers of two."""

    slowest: dict[int, float] = field(default_factory=dict)

    def note(self, tokens: int, seconds: float) -> None:
        if tokens > 0 and seconds > 0:
            size = tokens.bit_length()
            self.slowest[size] = min(self.slowest.get(size, float("inf")), tokens / seconds)

    def of(self, tokens: int) -> float | None:
        """The slowest speed of units that are not much smaller, or else of the largest ones; None if nothing is known.

        Small units are slow because of what each unit takes, whatever its size.
        """
        alike = [speed for size, speed in self.slowest.items() if size >= tokens.bit_length() - 2]
        if alike:
            return min(alike)
        return self.slowest[max(self.slowest)] if self.slowest else None


def reserve_s(start_s: float) -> float:
    """The seconds that there must be money for beside what a worker has cost.

    It may have to end, or it may die, and another one starts in its place before that is known.
    """
    return max(AHEAD_S, start_s + GONE_S + BEAT_S)


class WorkerTime:
    """What is known of the workers of a run: since when they live, what they have in hand, how fast they are."""

    def __init__(self, *, opened: float, workers: tuple[int, int], start_s: float = START_S) -> None:
        """opened: when the run began; no worker is older. workers: the smallest and the largest number of them.
        start_s: the seconds that a worker takes until its first sign, until one has shown it."""
        self._opened = opened
        self._low, self._high = workers
        self._workers: dict[str, _Worker] = {}
        self._in_hand: dict[str, _Unit] = {}
        self._begun: set[str] = set()
        self._largest = 0
        self._speeds = _Speeds()
        self._first_guess, self._start_s = start_s, 0.0
        self.ready_s = 0.0
        """Seconds from the start of a worker's process to its first unit, of the slowest worker."""

    def resume(self, seconds: Mapping[str, float], now: float) -> None:
        """Takes the workers of a ledger that died, with what was charged for them. Those that live tell their age again."""
        for worker, charged in seconds.items():
            self._workers[worker] = _Worker(now - charged, now - GONE_S, now, guessed=True)

    def hear(self, worker: str, *, age: float, start_s: float, done: int, now: float) -> None:
        """Takes a sign of life.

        age: of the worker's process. start_s: how old it was when it first spoke. done: tokens of its
        unit that are scored.
        """
        born = max(now - age, self._opened)
        known = self._workers.setdefault(worker, _Worker(born, now, now))
        known.born = born if known.guessed else min(known.born, born)
        known.heard, known.guessed = now, False
        self._start_s = max(self._start_s, min(start_s, now - self._opened))
        for unit in self._in_hand.values():
            if unit.worker == worker:
                unit.done = min(done, unit.tokens)

    def begin(self, unit: str, worker: str, tokens: int, now: float) -> None:
        """A worker takes a unit of so many tokens."""
        self._in_hand = {name: other for name, other in self._in_hand.items() if other.worker != worker}
        self._in_hand[unit] = _Unit(worker, tokens, now)
        self._largest = max(self._largest, tokens)
        if (known := self._workers.get(worker)) is not None and worker not in self._begun:
            self._begun.add(worker)
            self.ready_s = max(self.ready_s, min(now - known.born, now - self._opened))

    def end(self, unit: str, now: float) -> None:
        """A unit is scored."""
        if (had := self._in_hand.pop(unit, None)) is not None:
            self._speeds.note(had.tokens, now - had.begun)

    def leave(self, unit: str) -> None:
        """A unit is given up."""
        self._in_hand.pop(unit, None)

    def pay(self, now: float) -> None:
        """The workers that live are paid for the next `AHEAD_S` seconds."""
        for worker in self._workers.values():
            if self._lives(worker, now):
                worker.paid_until = now + AHEAD_S

    def close(self) -> None:
        """All workers have ended; what was paid ahead is taken back."""
        self._low = self._high = 0
        for worker in self._workers.values():
            worker.paid_until = worker.heard

    def seconds(self, now: float) -> dict[str, float]:
        """What is charged by now for each worker, and under the name "" for those that are starting."""
        charged = {name: self._charged(one, now) for name, one in self._workers.items()}
        starting = max(self._low - self._n_alive(now), 0)
        return charged | ({"": starting * self.start_s} if starting else {})

    def committed(self, now: float) -> float:
        """The seconds of all workers with what is kept in reserve, see `reserve_s`.

        A worker that may start at any moment is included.
        """
        alive = self._n_alive(now)
        starting = max(self._low - alive, 1 if self._high > alive else 0)
        until = now + reserve_s(self.start_s)
        lived = sum(until - one.born for one in self._workers.values() if self._lives(one, now))
        gone = sum(self._charged(one, now) for one in self._workers.values() if not self._lives(one, now))
        return lived + gone + starting * self.start_s

    def to_finish(self, tokens: int, now: float) -> float:
        """Seconds of all workers until the units in hand and one of so many tokens are done.

        No worker is given back before all are done. 0 while no speed is known.
        """
        left = [self._takes(tokens, now), *(self._takes(one.tokens - one.done, now) for one in self._in_hand.values())]
        return max(self._n_alive(now), 1) * max(left)

    def to_begin_again(self, tokens: int, now: float) -> float:
        """Seconds of all workers that another run needs until it has a unit of so many tokens.

        Without a known speed, it is a little more than the workers of this run have had.
        """
        takes, low = self._takes(tokens, now), max(self._low, 1)
        alone = self.ready_s + takes if takes else sum(self.seconds(now).values()) / low
        return low * (alone + reserve_s(self.start_s))

    def largest_unit(self) -> int:
        """The tokens of the largest unit in hand, else of the largest that was begun; 0 if none was."""
        return max((unit.tokens for unit in self._in_hand.values()), default=self._largest)

    def still_there(self, worker: str, now: float) -> None:
        """The process of a worker that may be silent by now was seen."""
        self._workers[worker].heard = now

    def silent_s(self, now: float, ended: Container[str] = ()) -> float:
        """Seconds since any worker was heard of, but for those that are known to have ended."""
        heard = [one.heard for name, one in self._workers.items() if name not in ended]
        return now - max(heard, default=float("-inf"))

    @property
    def start_s(self) -> float:
        """The seconds that a worker takes until its first sign."""
        return self._start_s or self._first_guess

    def _takes(self, tokens: int, now: float) -> float:
        speed = self._speeds.of(tokens) or self._speed_in_hand(now)
        return tokens / speed if speed else 0.0

    def _speed_in_hand(self, now: float) -> float | None:
        """The slowest speed of units in hand of which a quarter is done."""
        told = [
            unit.done / (now - unit.begun)
            for unit in self._in_hand.values()
            if 4 * unit.done >= unit.tokens > 0 and now > unit.begun
        ]
        return min(told, default=None)

    def _n_alive(self, now: float) -> int:
        return sum(self._lives(one, now) for one in self._workers.values())

    def _lives(self, worker: _Worker, now: float) -> bool:
        return now - worker.heard <= QUIET_S

    def _charged(self, worker: _Worker, now: float) -> float:
        said = worker.heard + GONE_S
        return (max(said, worker.paid_until) if now - worker.heard <= SILENT_S else said) - worker.born
