"""`make autoscale`: four commands on a cluster that grows from nothing, each in peace and with nodes killed at random moments.

python -m tests.autoscaling --seed 3 --kills 5      other moments, and more of them
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.autoscaling.cluster import GrowingCluster
from tests.autoscaling.runs import published, score_command, train_command
from tests.chaos.runs import command, prepare

DONE = {"score": 3, "select": 0, "export": 0, "train": 0}  # 3: done, and documents were quarantined
BETWEEN_S = (0.5, 5.0)
"""Seconds from a kill to the next, or from the first file that is published to the first kill."""


def main() -> int:
    """Exit code 0 if every byte is as in peace and no node is kept that does nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.autoscaling", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=3, help="of each command")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="rho-grow-"))
    prepare(root)
    rows, failed = [], False
    with GrowingCluster(root, pace_s=0.3) as cluster:
        for name in DONE:
            row, same = one_command(cluster, root, name, given.kills, random.Random(f"{given.seed} {name}"))
            rows.append(row)
            failed |= not same
            print(row, flush=True)
        print(f"\n{cluster.table()}\n")
    print(
        "| command | seconds to the first file, from no node | kills | most nodes | published bytes | idle nodes gone after, s |"
    )
    print("\n".join(["|---|---|---|---|---|---|", *rows]))
    if not failed:
        shutil.rmtree(root)
    return int(failed)


def one_command(
    cluster: GrowingCluster, root: Path, name: str, n_kills: int, chance: random.Random
) -> tuple[str, bool]:
    """A command in peace and under kills; returns the row of the table, and whether all was as in peace."""
    before = len(cluster.events)
    peace, first_s, _ = run(cluster, root, name, f"peace-{name}", 0, chance)
    killed, _, n_killed = run(cluster, root, name, f"killed-{name}", n_kills, chance)
    most = max(event.n_nodes for event in cluster.events[before:])
    started = time.monotonic()
    cluster.wait("the end of idle nodes", lambda: not cluster.nodes(), 120)
    gone_s = time.monotonic() - started
    same = peace == killed
    return f"| {name} | {first_s:.0f} | {n_killed} | {most} | {'equal' if same else 'DIFFER'} | {gone_s:.0f} |", same


def run(
    cluster: GrowingCluster, root: Path, name: str, output: str, n_kills: int, chance: random.Random
) -> tuple[dict[str, str], float, int]:
    """Runs a command on a cluster without nodes.

    Returns what it published, the seconds from its submission to its first file, and how many nodes were killed.
    """
    cluster.wait("the end of idle nodes", lambda: not cluster.nodes(), 120)
    started = time.monotonic()
    job = cluster.submit(arguments(root, name, output))
    cluster.wait("the first file", lambda: has_begun(root / output, name))
    first_s = time.monotonic() - started
    cluster.note("the first file is published")
    n_killed = 0
    while n_killed < n_kills and not cluster.is_over(job):
        time.sleep(chance.uniform(*BETWEEN_S))
        if (nodes := cluster.nodes()) and not cluster.is_over(job):
            cluster.kill(chance.choice(nodes))
            n_killed += 1
    code, said = cluster.ended(job, within_s=600)
    if code != DONE[name]:
        raise SystemExit(f"{name} ended with {code}:\n{said[-4000:]}")
    return published(root / output), first_s, n_killed


def arguments(root: Path, name: str, output: str) -> Sequence[str]:
    """The command line that writes `root/output`."""
    if name == "score":
        return score_command(root, output, "1:4")
    if name == "train":
        return train_command(root, output)
    return command("select" if name == "select" else "export", root, root / output)


def has_begun(output: Path, name: str) -> bool:
    """True if the first piece of work is published."""
    where = output / {"train": "checkpoints"}.get(name, "data")
    return where.is_dir() and any(not path.name.startswith(".") for path in where.iterdir())


if __name__ == "__main__":
    sys.exit(main())
