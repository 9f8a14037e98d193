"""The status of a run: what its output holds, its signs of life, and what it has cost."""

import math
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from rho_score.cluster.progress import Snapshot
from rho_score.config.status import StatusConfig
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.retries import tried_once
from rho_score.files.urls import absolute
from rho_score.scoring.money import Spent
from rho_score.stores.manifest import read_manifest
from rho_score.stores.signs import RUNS, Seen, Sign, read_signs
from rho_score.watching.contents import Contents, contents_of
from rho_score.watching.state import EXIT_CODES, Looks, Now, State, Verdict, clocks_apart_s

wall_clock = time.time
WATCH_S = 10.0
"""Seconds between two looks of `--watch`."""


@dataclass(frozen=True, kw_only=True)
class Money:
    """What the runs of a store have cost so far, by what they noted."""

    worker_hours: float
    """Worker-hours: those of `spent.json`, which counts the runs that were told a price, else those of all signs."""
    price_per_hour: float | None
    """As it was given."""
    tokens_sent: int
    """Tokens that were sent to a server for a price, see `spent.json`."""
    for_tokens: float
    """What they cost."""
    paid_for_workers: float | None
    """What `spent.json` says that the worker-hours cost; None if no run was told."""

    @property
    def for_workers(self) -> float | None:
        """What the worker-hours cost, at the price that was given, else as `spent.json` says; None without either."""
        return self.paid_for_workers if self.price_per_hour is None else self.worker_hours * self.price_per_hour

    @property
    def total(self) -> float:
        """What is known of the cost: for workers, if a price was given, and for tokens."""
        return (self.for_workers or 0.0) + self.for_tokens


@dataclass(frozen=True, kw_only=True)
class StatusSummary:
    """How far the run of a store is, and whether it lives."""

    output: str
    kind: str
    """Of the store, such as "score set"."""
    state: State
    contents: Contents
    """What is published."""
    sign: Sign | None
    """The last sign of life; None if there is none."""
    age_s: float | None
    """Seconds since that sign."""
    idle_s: float | None
    """Seconds since its phase, units or tokens changed, for a run that lives."""
    eta_s: float | None
    """Seconds until the end of the stage that a running command is in; None if that is not known."""
    clock_ahead_s: float | None
    """By how much the clock of this machine is ahead of that of the storage, if they differ visibly."""
    money: Money

    @property
    def exit_code(self) -> int:
        """The exit code of `rho-score status`."""
        return EXIT_CODES[self.state]

    @property
    def doing(self) -> Snapshot | None:
        """How far the run is by its last sign, if it lives."""
        return self.sign.progress if self.sign is not None and self.state in ("running", "stuck") else None


def status(config: StatusConfig) -> StatusSummary:
    """Says how far the run of a store is, and whether it lives. Nothing is written.

    Raises:
        InputError: an option is wrong, or there is no store.
        RhoScoreError: the storage failed.
    """
    return next(looks(config))


def looks(config: StatusConfig) -> Iterator[StatusSummary]:
    """Yields a summary for each look; the caller waits between them. Raises errors as in `status`."""
    _check(config)
    output, earlier = Folder(absolute(config.output)), Looks()
    while True:
        yield _look(config, output, earlier)


def _check(config: StatusConfig) -> None:
    if config.price_per_hour is not None and not 0 <= config.price_per_hour < math.inf:
        raise InputError(f"--price-per-hour must not be negative, got {config.price_per_hour:g}.")
    if not 0 < config.stuck_after < math.inf:
        raise InputError(f"--stuck-after must be above 0 minutes, got {config.stuck_after:g}.")
    if config.watch is not None and (len(config.watch) > 1 or not all(0 < s < math.inf for s in config.watch)):
        given = " ".join(f"{seconds:g}" for seconds in config.watch)
        raise InputError(f"--watch takes one number of seconds above 0, got {given}.")


def _look(config: StatusConfig, output: Folder, earlier: Looks) -> StatusSummary:
    manifest = read_manifest(output)
    signs = read_signs(output)  # before the contents: a run that ends in between has finished them
    now = Now(wall_clock(), _storage_time(output, signs))
    contents = contents_of(output, manifest)
    verdict = earlier.judge(
        signs, now, time.monotonic(), finished=contents.finished, stuck_after_s=60 * config.stuck_after
    )
    sign = None if verdict.seen is None else verdict.seen.sign
    return StatusSummary(
        output=output.url,
        kind=manifest["kind"],
        state=verdict.state,
        contents=contents,
        sign=sign,
        age_s=verdict.age_s,
        idle_s=_idle_s(verdict),
        eta_s=_eta_s(verdict),
        clock_ahead_s=None if verdict.seen is None else clocks_apart_s(verdict.seen, now),
        money=_money(config, output, signs),
    )


def _storage_time(output: Folder, signs: list[Seen]) -> float | None:
    """The time by the clock of the storage, if it tells."""
    if not signs or all(seen.sign.host == socket.gethostname() for seen in signs):
        return None
    with suppress(Exception), tried_once():  # the clock of this machine will do
        return output.clock(f"{RUNS}/{signs[-1].name}")
    return None


def _idle_s(verdict: Verdict) -> float | None:
    if verdict.seen is None or verdict.age_s is None or verdict.state not in ("running", "stuck"):
        return None
    return verdict.seen.sign.idle_s + verdict.age_s


def _eta_s(verdict: Verdict) -> float | None:
    """What the last sign said, less the time since then."""
    if verdict.seen is None or verdict.age_s is None or verdict.state != "running":
        return None
    left = verdict.seen.sign.progress.seconds_left
    return None if left is None else max(0.0, left - verdict.age_s)


def _money(config: StatusConfig, output: Folder, signs: list[Seen]) -> Money:
    spent = Spent.read(output)
    signed_s = sum(seen.sign.worker_s + seen.sign.removed_worker_s for seen in signs)
    paid_s = sum(spent.worker_ms.values()) / 1000
    return Money(
        worker_hours=(paid_s or signed_s) / 3600,
        price_per_hour=config.price_per_hour,
        tokens_sent=sum(spent.tokens.values()),
        for_tokens=float(spent.for_tokens),
        paid_for_workers=float(spent.for_workers) if paid_s else None,
    )
