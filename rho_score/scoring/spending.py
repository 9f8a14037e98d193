"""What a run spends, counted before it is spent, in `spent.json` of the output.

A unit that a server is asked for is paid as a whole before its first request, and what it did not
need is taken back at its end. Workers are paid for some seconds ahead. A run that is killed
therefore never spent more than the file says. Prices and sums are exact fractions.
"""

import gc
import math
import os
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from rho_score.cluster.ray_cluster import actor_here
from rho_score.config import ScoreConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.scoring.limits import worker_range
from rho_score.scoring.worker_time import BEAT_S, START_S, WorkerTime, reserve_s
from rho_score.servers.purse import FreePurse, LimitedPurse, Purse, UnpaidError
from rho_score.stores.layout import SPENT
from rho_score.stores.shapes import SpentMoney, read_json

MILLION = 1_000_000
HOUR_MS = 3_600_000
WRITE_S = 2.0
"""Seconds after which what workers cost is written again."""
ENDED_S = 2.5 * BEAT_S
"""Workers that were silent for so long after the end of a run have ended."""
SETTLE_S = 20.0
"""How long a run waits at most for the end of its workers."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The prices of tokens and of workers, as decimal numbers, and how much may be spent."""

    price: str | None = None
    """Of a million tokens."""
    hour_price: str | None = None
    """Of a worker-hour."""
    limit: str | None

    @classmethod
    def of(cls, config: ScoreConfig) -> "Budget | None":
        """The budget of a run; None if it has no price."""
        prices = config.price_per_million_tokens, config.price_per_hour
        if prices == (None, None):
            return None
        price, hour_price = (None if value is None else str(value) for value in prices)
        limit = config.spend_at_most
        return cls(price=price, hour_price=hour_price, limit=None if limit is None else str(limit))

    def cost(self, tokens: int, milliseconds: int = 0) -> Fraction:
        """The price of so many tokens and of so much time of workers."""
        return Fraction(self.price or 0) * tokens / MILLION + Fraction(self.hour_price or 0) * milliseconds / HOUR_MS

    def affords(self, spent: Fraction, tokens: int = 0, milliseconds: int = 0) -> bool:
        """True if so many tokens and so much time more stay within the limit."""
        return self.limit is None or spent + self.cost(tokens, milliseconds) <= Fraction(self.limit)


@dataclass
class Spent:
    """What was spent for an output so far, by all runs. Times are whole milliseconds."""

    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens that were sent, by the price of a million."""
    wanted: int = 0
    """The tokens of the unit that was too dear last; 0 if there is none."""
    worker_ms: dict[str, int] = field(default_factory=dict)
    """The time of workers, by the price of an hour."""
    wanted_ms: int = 0
    """The time of workers that there was no money for last; 0 if there was enough."""
    of_workers: dict[str, int] = field(default_factory=dict)
    """The part of `worker_ms` of each worker of the run that is under way."""

    @classmethod
    def read(cls, output: Folder) -> "Spent":
        """What `spent.json` says; nothing was spent if there is none."""
        if not output.exists(SPENT):
            return cls()
        found = read_json(output, SPENT, SpentMoney)
        return cls(
            dict(found["tokens_by_price"]),
            found["wanted"],
            _milliseconds(found.get("worker_seconds_by_price", {})),
            milliseconds(found.get("wanted_worker_seconds", 0)),
            _milliseconds(found.get("workers", {})),
        )

    def write(self, output: Folder) -> None:
        """Writes `spent.json`."""
        found: JsonObject = {"tokens_by_price": self.tokens, "wanted": self.wanted}
        if self.worker_ms:
            found["worker_seconds_by_price"] = _seconds(self.worker_ms)
            found["wanted_worker_seconds"] = self.wanted_ms / 1000
            found["workers"] = _seconds(self.of_workers)
        output.publish(SPENT, dump_json(found))

    @property
    def money(self) -> Fraction:
        """What was paid."""
        tokens = sum((Fraction(price) * n / MILLION for price, n in self.tokens.items()), Fraction())
        return sum((Fraction(price) * n / HOUR_MS for price, n in self.worker_ms.items()), tokens)

    def __str__(self) -> str:
        what = [f"{sum(self.tokens.values()):,} tokens"] if self.tokens or not self.worker_ms else []
        what += [f"{_hours(sum(self.worker_ms.values()))} worker-hours"] if self.worker_ms else []
        return f"{float(self.money):,.6g} for {' and '.join(what)}"


def _exists(pid: int) -> bool:
    """True if there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def milliseconds(seconds: float) -> int:
    """Seconds in whole milliseconds, rounded up."""
    return math.ceil(round(seconds * 1000, 3))


def _milliseconds(seconds: dict[str, float]) -> dict[str, int]:
    return {name: milliseconds(value) for name, value in seconds.items()}


def _seconds(whole: dict[str, int]) -> dict[str, float]:
    return {name: value / 1000 for name, value in whole.items()}


def _hours(whole: int) -> str:
    return f"{whole / HOUR_MS:,.4g}"


class Ledger:
    """The actor that units and workers are paid at. It starts again from the file if it dies."""

    def __init__(self, output: str, budget: Budget, workers: WorkerTime | None = None) -> None:
        """workers: counts the time of workers, if it has a price."""
        self._output, self._budget, self._workers = Folder(output), budget, workers
        self._spent = Spent.read(self._output)
        self._begun: set[str] = set()
        self._scored: set[str] = set()
        self._closed = self._over = False
        self._written = float("-inf")
        self._processes: dict[str, tuple[str, int]] = {}
        self._first_begun: float | None = None
        heard_before = self._spent.of_workers  # by this actor, before it died
        self._earlier_ms = self._spent.worker_ms.get(budget.hour_price or "", 0) - sum(heard_before.values())
        if workers is not None:
            workers.resume({name: ms / 1000 for name, ms in heard_before.items() if name}, time.monotonic())

    def begin(self, unit: str, tokens: int, worker: str = "", work: int = 0) -> bool:
        """Pays a unit. False if the money does not suffice; no other unit is begun then.

        tokens: that are sent to a server. worker: who takes it. work: the tokens that it has.
        """
        now = time.monotonic()
        if self._closed or not self._pay(tokens, work, now):
            return False
        self._spent.wanted = self._spent.wanted_ms = 0
        self._begun.add(unit)
        self._scored.discard(unit)
        self._first_begun = self._first_begun or now
        if self._workers is not None:
            self._workers.begin(unit, worker, work, now)
        return True

    def more(self, tokens: int) -> bool:
        """Pays tokens besides those of units: for requests that are made again, and for a worker's
        first one. If the money does not suffice, no other unit is begun."""
        return self._pay(tokens, 0, time.monotonic())

    def end(self, unit: str, unused: int) -> None:
        """A unit is scored: takes back what it did not need."""
        self._scored.add(unit)
        if self._workers is not None:
            self._workers.end(unit, time.monotonic())
        self._add(-unused)

    def leave(self, unit: str) -> None:
        """A unit is given up for want of money."""
        if self._workers is not None:
            self._workers.leave(unit)

    def begun(self) -> set[str]:
        """The units that will come from the workers: those that were begun, whether they have ended or
        not. Once the money is gone, these are the ones that have ended."""
        return set(self._scored if self._over else self._begun)

    def beat(self, worker: str, process: tuple[str, int], age: float, start_s: float, done: int) -> bool:
        """A worker lives. True if the money is gone, and it has to give up what it has in hand.

        process: the name of its machine, and the number of its process there. The other arguments are
        those of `WorkerTime.hear`.
        """
        assert self._workers is not None
        now = time.monotonic()
        is_new = worker not in self._processes
        self._processes[worker] = process
        self._workers.hear(worker, age=age, start_s=start_s, done=done, now=now)
        if not self._over:
            if self._affords(0, self._workers.committed(now)):
                self._workers.pay(now)
            else:
                self._over = self._closed = True
                in_hand = self._workers.largest_in_hand()
                self._want(0, self._workers.to_begin_again(in_hand, now))
                self._write(now)
        if is_new or now - self._written >= WRITE_S:
            self._write(now)
        return self._over

    def stop(self) -> None:
        """The workers have to give up what they have in hand, whatever there is of money."""
        self._over = self._closed = True

    def working_s(self) -> float:
        """Seconds since the first unit was begun."""
        return 0.0 if self._first_begun is None else time.monotonic() - self._first_begun

    def ready_s(self) -> float:
        """The seconds from the start of a worker's process to its first unit, of the slowest worker."""
        return 0.0 if self._workers is None else self._workers.ready_s

    def settle(self, *, at_once: bool = False) -> bool:
        """Counts the workers to their ends, once they have ended. False if one was heard of just now.

        at_once: count them even so.
        """
        if self._workers is None:
            return True
        now = time.monotonic()
        here = {name: pid for name, (machine, pid) in self._processes.items() if machine == os.uname().nodename}
        for worker in [name for name, pid in here.items() if _exists(pid)]:
            self._workers.still_there(worker, now)
            del here[worker]
        if self._workers.silent_s(now, ended=here) < ENDED_S and not at_once:
            return False
        self._workers.close()
        self._write(now)
        return True

    def _pay(self, tokens: int, work: int, now: float) -> bool:
        need = 0.0
        if self._workers is not None:
            need = self._workers.committed(now) + self._workers.to_finish(work, now)
        paid = self._affords(tokens, need)
        if not paid:
            again = self._workers.to_begin_again(work, now) if self._workers is not None and work else 0.0
            self._closed = True
            self._want(tokens, again)
        self._add(tokens if paid else 0)
        return paid

    def _want(self, tokens: int, seconds: float) -> None:
        self._spent.wanted, self._spent.wanted_ms = tokens, milliseconds(seconds)

    def _affords(self, tokens: int, seconds: float) -> bool:
        """True if there is money for the tokens, and for so many seconds of this run's workers in all."""
        if self._workers is None:
            return self._budget.affords(self._spent.money, tokens)
        others = self._spent.worker_ms | {self._budget.hour_price or "": 0}
        own = self._earlier_ms + milliseconds(seconds)
        return self._budget.affords(Spent(self._spent.tokens, worker_ms=others).money, tokens, own)

    def _of_workers(self, now: float) -> dict[str, int]:
        assert self._workers is not None
        return {name: milliseconds(value) for name, value in self._workers.seconds(now).items()}

    def _add(self, tokens: int) -> None:
        if (price := self._budget.price) is not None:
            self._spent.tokens[price] = self._spent.tokens.get(price, 0) + tokens
        self._write(time.monotonic())

    def _write(self, now: float) -> None:
        if self._workers is not None:
            self._spent.of_workers = self._of_workers(now)
            total = self._earlier_ms + sum(self._spent.of_workers.values())
            self._spent.worker_ms[self._budget.hour_price or ""] = total
        self._spent.write(self._output)
        self._written = now


class UnitPurse(Purse):
    """The purse of a worker, which holds what was paid for the unit that it has in hand."""

    def __init__(self, ledger: Any, worker: str = "") -> None:
        self._ledger, self._worker, self._left = ledger, worker, 0

    def begin(self, unit: str, tokens: int, work: int) -> bool:
        """Pays a unit; False if the money does not suffice. The arguments are those of `Ledger.begin`."""
        paid = bool(self._asked("begin", unit, tokens, self._worker, work))
        self._left = tokens if paid else 0
        return paid

    def end(self, unit: str) -> None:
        """Gives back what is left of the unit's money."""
        self._asked("end", unit, self._left)
        self._left = 0

    def leave(self, unit: str) -> None:
        """Gives up the unit. Its money is spent, because the server may work on it."""
        self._asked("leave", unit)

    def take(self, tokens: int) -> None:
        if self._left < tokens:
            if not self._asked("more", tokens):
                raise UnpaidError(
                    "requests had to be made again, and --spend-at-most leaves nothing for them. Units that are published stay. "
                    "Run the same command with a higher --spend-at-most to go on."
                )
            self._left += tokens
        self._left -= tokens

    def give_back(self, tokens: int) -> None:
        self._left += tokens

    def _asked(self, method: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self._ledger, method).remote(*arguments))


class Account:
    """The driver's side of what a run spends."""

    def __init__(self, config: ScoreConfig, output: Folder, *, done: bool = False) -> None:
        """Raises InputError if there is no money for the start of the workers, or if a run before this
        one stopped for want of money, and there is no more.

        done: True if there is nothing to do, so that no money is needed.
        """
        self._output, self.budget = output, Budget.of(config)
        self._n_workers = worker_range(config.workers)
        self._began = time.monotonic()
        self.check_purse = FreePurse()
        self.ledger: Any = None
        self._stopped = False
        self._arrived: set[str] = set()
        if self.budget is None or self.budget.limit is None:
            return
        spent = Spent.read(output)
        if not done:
            self._refuse_without_money(spent, self.budget)
        if self.budget.price is not None:
            left = Fraction(self.budget.limit) - spent.money
            self.check_purse = LimitedPurse(int(left * MILLION / Fraction(self.budget.price)))

    def _refuse_without_money(self, spent: Spent, budget: Budget) -> None:
        tokens = spent.wanted if budget.price else 0
        start_ms = milliseconds(self._n_workers[0] * (START_S + reserve_s(START_S))) if budget.hour_price else 0
        whole_ms = max(start_ms, spent.wanted_ms if budget.hour_price else 0)
        if not (tokens or whole_ms) or budget.affords(spent.money, tokens, whole_ms):
            return
        before = f"{self._output.url} has spent {spent}. " if spent.tokens or spent.worker_ms else ""
        what = "The start of the workers needs" if whole_ms == start_ms and not tokens else "The next unit needs"
        raise InputError(
            f"{before}{what} {_needed(budget, tokens, whole_ms)}, which --spend-at-most {budget.limit} leaves no money for. "
            "Give more to go on."
        )

    def note_check(self) -> None:
        """Adds what the check of the server has spent, once the output is begun."""
        if self.budget is not None and self.budget.price is not None and self.check_purse.sent:
            spent = Spent.read(self._output)
            spent.tokens[self.budget.price] = spent.tokens.get(self.budget.price, 0) + self.check_purse.sent
            spent.wanted = 0
            spent.write(self._output)
            self.check_purse.sent = 0

    def open(self) -> None:
        """Starts the ledger, in a cluster that runs."""
        if self.budget is None:
            return
        workers = None
        if self.budget.hour_price is not None:
            spent = Spent.read(self._output)
            spent.of_workers = {}  # those of a run that was killed stay paid
            spent.write(self._output)
            workers = WorkerTime(opened=self._began, workers=self._n_workers, start_s=START_S)
        self.ledger = actor_here(Ledger, self._output.url, self.budget, workers)

    def stops_after(self, unit: str, *, paid: bool) -> bool:
        """True if the run ends after this unit: money is short, and no paid unit is under way."""
        import ray

        self._arrived.add(unit)
        self._stopped = self._stopped or not paid
        return self._stopped and ray.get(self.ledger.begun.remote()) <= self._arrived

    def settle(self) -> None:
        """Counts the time of the workers to their ends, once the units have come and the workers are let go."""
        import ray

        if self.ledger is None or self.budget is None or self.budget.hour_price is None:
            return
        gc.collect()  # Ray ends a worker once nothing refers to it
        end = time.monotonic() + SETTLE_S
        while not ray.get(self.ledger.settle.remote(at_once=time.monotonic() >= end)):
            time.sleep(BEAT_S / 4)

    def close(self, n_published: int, n_units: int) -> str:
        """What was spent, as text; empty without a price.

        Raises:
            RhoScoreError: the money did not suffice for all units.
        """
        if self.budget is None:
            return ""
        spent = Spent.read(self._output)
        if not self._stopped:
            return f"spent {spent}"
        needs = _needed(self.budget, spent.wanted, spent.wanted_ms)
        money = float(self.budget.cost(spent.wanted, spent.wanted_ms))
        raise RhoScoreError(
            f"stopped before --spend-at-most {self.budget.limit} was passed: {spent} were spent, and the next unit needs "
            f"{needs} ({money:,.6g}). {n_published} of {n_units} units are published, "
            "and they stay. Run the same command with a higher --spend-at-most to go on."
        )


def _needed(budget: Budget, tokens: int, whole_ms: int) -> str:
    what = [f"{tokens:,} tokens"] if budget.price else []
    what += [f"about {_hours(whole_ms)} worker-hours"] if budget.hour_price else []
    return " and ".join(what)
