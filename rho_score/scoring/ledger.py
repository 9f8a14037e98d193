"""The actor that units and workers are paid at, before the money is spent.

A unit that a server is asked for is paid as a whole before its first request, and what it did not
need is taken back at its end. Workers are paid for some seconds ahead. A run that is killed
therefore never spent more than `spent.json` says, but for seconds.
"""

import os
import time
from typing import Any

from rho_score.files.folder import Folder
from rho_score.scoring.money import Budget, Spent, milliseconds
from rho_score.scoring.worker_time import BEAT_S, WorkerTime
from rho_score.servers.purse import Purse, UnpaidError

WRITE_S = 2.0
"""Seconds after which what workers cost is written again."""
ENDED_S = 2.5 * BEAT_S
"""Workers that were silent for so long after the end of a run have ended."""


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
                self._over = True
                if not self._closed:  # else it is known what the refused unit needs
                    self._closed = True
                    self._want(0, self._workers.to_begin_again(self._workers.largest_unit(), now))
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


def _exists(pid: int) -> bool:
    """True if there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
