"""`make chaos`: a hundred seeded faults and more, and the table of what became of them.

python -m tests.chaos --seed 7 --faults 100         the long run
python -m tests.chaos --seed 7 --round 3            its fourth run alone, with the same faults
python -m tests.chaos --seed 7 --fault "score: driver" --fault "score: node"    one run with these
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.cluster import ChaosCluster, room_for_a_hog
from tests.chaos.faults import KINDS, Command, Fault, Kind, kind_named, rounds, schedule
from tests.chaos.runs import Disturbed, Outcome, compare, n_published, prepare, undisturbed

NEEDS: dict[Command, tuple[Command, ...]] = {
    "score": ("score",),
    "select": ("score", "select"),
    "export": ("score", "select", "export"),
}


def main() -> int:
    """Exit code 0 where every byte and every document is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=100, help="faults that must happen, at least")
    parser.add_argument("--round", type=int, help="only this run of the seed")
    parser.add_argument("--first", type=int, default=0, help="begin with this run of the seed")
    parser.add_argument(
        "--fault", action="append", choices=[kind.name for kind in KINDS], help="only these, in one run"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with outputs and logs")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="rho-chaos-"))
    prepare(root)
    plan = planned(given.seed, given.faults, given.round, given.fault)
    if not room_for_a_hog():
        print("too little memory is free for the out-of-memory fault; it is left out")
        plan = [(number, name, [kind for kind in kinds if kind.action != "hog"]) for number, name, kinds in plan]
    report = Report(given.seed)
    with ChaosCluster(root) as cluster:
        peace = {
            name: undisturbed(cluster, name) for name in NEEDS[max((n for _, n, _ in plan), key=list(NEEDS).index)]
        }
        for number, name, kinds in plan[given.first :]:
            faults = schedule(kinds, seed=given.seed * 1000 + number, n_files=n_published(peace[name]))
            report.add(number, faults, one_round(cluster, name, faults, root / f"round-{number}", peace[name]))
            if given.round is None and not given.fault and report.n_struck >= given.faults:
                break
        kills = cluster.memory_kills()
    print(report.table())
    print(f"\nRay's memory monitor ended workers {kills} times.")
    if not (given.keep or report.failed):
        shutil.rmtree(root)
    else:
        print(f"outputs and logs are in {root}")
    return int(report.failed)


def planned(
    seed: int, n_faults: int, only: int | None, names: Sequence[str] | None
) -> list[tuple[int, Command, list[Kind]]]:
    """The runs of a seed: number, command, kinds of faults. Half as many again as asked for: some find no moment."""
    if names:
        kinds = [kind_named(name) for name in names]
        return [(0, kinds[0].command, kinds)]
    every = [(number, *run) for number, run in enumerate(rounds(seed, n_faults=n_faults * 3 // 2))]
    return every if only is None else [every[only]]


def one_round(cluster: ChaosCluster, name: Command, faults: Sequence[Fault], output: Path, peace: Path) -> Outcome:
    """A command under faults until it is done, compared with the undisturbed one."""
    disturbed = Disturbed(cluster, name, output, faults)
    try:
        disturbed.run()
    except AssertionError as error:
        disturbed.outcome.messages.append(f"FAILED: {error}")
        disturbed.outcome.failed = True
    compare(disturbed.outcome, name, output, peace)
    return disturbed.outcome


class Report:
    """What became of the faults, by kind; a line for each run as it ends."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rows: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self._totals = [0, 0, 0]
        self._started = time.monotonic()
        self.n_struck = self._strays = self._runs = 0
        self.failed = False

    def add(self, number: int, faults: Sequence[Fault], outcome: Outcome) -> None:
        """Count a run; print it."""
        bad = bool(outcome.differing_bytes or outcome.unaccounted or outcome.failed)
        self.failed |= bad
        self.n_struck += len(outcome.struck)
        self._runs += 1
        self._strays += outcome.strays
        for i, value in enumerate((outcome.resumes, outcome.differing_bytes, outcome.unaccounted)):
            self._totals[i] += value
        for fault in outcome.struck:
            row = self._rows[fault.kind.name]
            row[0] += 1
            row[1] += outcome.resumes if len(outcome.struck) == 1 else int(fault.ends_the_driver)
            row[2] += outcome.differing_bytes
            row[3] += outcome.unaccounted
        what = "; ".join(f"{fault}{'' if fault in outcome.struck else ' [not struck]'}" for fault in faults)
        print(
            f"seed {self._seed} round {number}: {'DIFFERS' if bad else 'same'}, {outcome.wall_s:.0f} s, "
            f"{outcome.resumes} resumes, {outcome.strays} strays: {what}",
            flush=True,
        )
        for message in [*outcome.messages, *outcome.differing_files]:
            print(f"    {message}", flush=True)

    def table(self) -> str:
        """The table, as Markdown."""
        order = {kind.name: i for i, kind in enumerate(KINDS)}
        rows = [
            f"| {name} | {' | '.join(map(str, row))} |"
            for name, row in sorted(self._rows.items(), key=lambda r: order[r[0]])
        ]
        total = f"| **all, {self._runs} runs** | {self.n_struck} | {' | '.join(map(str, self._totals))} |"
        minutes = (time.monotonic() - self._started) / 60
        return "\n".join(
            [
                f"\nSeed {self._seed}: {self.n_struck} faults in {self._runs} runs, {minutes:.0f} min; "
                f"{self._strays} temporary files left by processes killed while publishing.\n",
                "| fault | times | resumes | bytes that differ | documents unaccounted |",
                "|---|---|---|---|---|",
                *rows,
                total,
            ]
        )


if __name__ == "__main__":
    sys.exit(main())
