"""The driver's side of what a run spends: it refuses runs without money, and says what was spent."""

import gc
import time
from fractions import Fraction
from typing import Any

from rho_score.cluster.ray_cluster import actor_here
from rho_score.config import ScoreConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.scoring.ledger import Ledger
from rho_score.scoring.limits import worker_range
from rho_score.scoring.money import MILLION, Budget, Spent, hours, milliseconds
from rho_score.scoring.worker_time import BEAT_S, START_S, WorkerTime, reserve_s
from rho_score.servers.purse import FreePurse, LimitedPurse

SETTLE_S = 20.0
"""How long a run waits at most for the end of its workers."""


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
        passed = spent.money > Fraction(self.budget.limit or 0)  # workers that took long to end
        before = "after --spend-at-most" if passed else "before --spend-at-most"
        raise RhoScoreError(
            f"stopped {before} {self.budget.limit} was passed: {spent} were spent, and the next unit needs "
            f"{needs} ({money:,.6g}). {n_published} of {n_units} units are published, "
            "and they stay. Run the same command with a higher --spend-at-most to go on."
        )


def _needed(budget: Budget, tokens: int, whole_ms: int) -> str:
    what = [f"{tokens:,} tokens"] if budget.price else []
    what += [f"about {hours(whole_ms)} worker-hours"] if budget.hour_price else []
    return " and ".join(what)
