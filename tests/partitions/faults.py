"""What breaks between hosts, on them, and what becomes of a command under it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.autoscaling.runs import published
from tests.chaos.runs import DONE, command, tail
from tests.partitions.hosts import HostsCluster

Command = Literal["score", "select", "export"]
MOST_RUNS = 4
LIMIT_S = 400.0
CLOCK_S = 300
LOST = 0.1
KILOBITS = 1000


@dataclass(frozen=True)
class Fault:
    """Something that breaks on the first worker host, or everywhere."""

    name: str
    strike: Callable[[HostsCluster], None]
    heal: Callable[[HostsCluster], None]
    lasts_s: float | None
    """None: from before the command begins to its end."""


def _partition(seconds: float) -> Fault:
    return Fault(
        f"a worker host is cut off for {seconds:g} s",
        lambda cluster: cluster.workers[0].cut(),
        lambda cluster: cluster.workers[0].join(),
        seconds,
    )


def _lose(cluster: HostsCluster, share: float) -> None:
    for host in cluster.hosts:
        host.lose(share)


def _set_clock(cluster: HostsCluster, seconds: int) -> None:
    cluster.workers[0].set_clock(seconds)
    cluster.restart(cluster.workers[0])
    cluster.wait("the host with another time of day", lambda: cluster.n_alive() == len(cluster.hosts))


FAULTS = [
    _partition(5),
    _partition(30),
    _partition(120),
    Fault("every host loses 10 % of its packets", lambda c: _lose(c, LOST), lambda c: _lose(c, 0), None),
    Fault(
        "a worker host sends 1 Mbit/s at most",
        lambda cluster: cluster.workers[0].slow(KILOBITS),
        lambda cluster: cluster.workers[0].slow(0),
        None,
    ),
    Fault(
        "the disk of a worker host is full for 30 s",
        lambda cluster: cluster.workers[0].fill(),
        lambda cluster: cluster.workers[0].empty(),
        30,
    ),
    Fault(
        "the clock of a worker host is 5 min ahead",
        lambda cluster: _set_clock(cluster, CLOCK_S),
        lambda cluster: _set_clock(cluster, 0),
        None,
    ),
    Fault(
        "the clock of a worker host is 5 min behind",
        lambda cluster: _set_clock(cluster, -CLOCK_S),
        lambda cluster: _set_clock(cluster, 0),
        None,
    ),
]


@dataclass
class Outcome:
    """What became of a command."""

    same: bool
    """Every published byte is that of a run in peace."""
    runs: int
    """How often the command was started until it was done."""
    restarted: int
    """How often Ray had to be started again on a host."""
    recovered_s: float | None
    """Seconds from the end of the fault to the next file; None if it lasted as long as the run."""
    wall_s: float
    said: list[str]
    """The last lines of runs that failed."""


def run(cluster: HostsCluster, root: Path, name: Command, fault: Fault | None, output: Path) -> Outcome:
    """Runs a command under a fault, again and again until it is done, and compares what it published.

    Ray is started again on worker hosts where it has ended.

    Raises:
        AssertionError: it was not done after `MOST_RUNS` runs, or a run took longer than `LIMIT_S`.
    """
    outcome = Outcome(same=False, runs=0, restarted=0, recovered_s=None, wall_s=0.0, said=[])
    started, healed, n_at_end = time.monotonic(), fault is None, 0
    if fault is not None and fault.lasts_s is None:
        fault.strike(cluster)
        healed = True
    ends: float | None = None
    try:
        while outcome.runs < MOST_RUNS:
            outcome.runs += 1
            log = output.with_name(f"{output.name}-{outcome.runs}.log")
            process = cluster.begin(command(name, root, output), log)
            begun = time.monotonic()
            while process.poll() is None:
                now = time.monotonic()
                if now - begun > LIMIT_S:
                    process.kill()
                    raise AssertionError(f"{name} went on for {LIMIT_S:g} s:\n{tail(log, 30)}")
                n = _n_files(output)
                if fault is not None and not healed and ends is None and n >= 3:
                    fault.strike(cluster)
                    ends = now + (fault.lasts_s or 0.0)
                if fault is not None and not healed and ends is not None and now > ends:
                    fault.heal(cluster)
                    healed, n_at_end = True, n
                if healed and ends is not None and outcome.recovered_s is None and n > n_at_end:
                    outcome.recovered_s = now - ends
                outcome.restarted += len(cluster.mend())
                time.sleep(0.2)
            if process.returncode == DONE[name]:
                break
            outcome.said.append(tail(log, 3))
        else:
            raise AssertionError(f"{name} was not done after {MOST_RUNS} runs:\n" + "\n".join(outcome.said))
    finally:
        if fault is not None and (fault.lasts_s is None or (ends is not None and not healed)):
            fault.heal(cluster)
    outcome.wall_s = time.monotonic() - started
    outcome.same = published(output) == published(root / f"peace-{name}")
    cluster.wait("all hosts", lambda: bool(cluster.mend()) or cluster.n_alive() == len(cluster.hosts), 200)
    return outcome


def _n_files(output: Path) -> int:
    """How many files are published."""
    data = output / "data"
    return sum(not path.name.startswith(".") for path in data.iterdir()) if data.is_dir() else 0
