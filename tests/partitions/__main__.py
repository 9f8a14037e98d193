"""`make partitions`: three commands on hosts whose network, disks and clocks break; compares every byte, and prints a table."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import get_args

from tests.chaos.runs import prepare
from tests.partitions.faults import FAULTS, Command, run
from tests.partitions.hosts import HostsCluster, missing


def main() -> int:
    """Exit code 0 if every byte is as in peace."""
    parser = argparse.ArgumentParser(prog="python -m tests.partitions", description=__doc__.splitlines()[0])
    parser.add_argument("--fault", action="append", help="only those with these words in their names")
    parser.add_argument("--command", action="append", choices=get_args(Command), help="only these")
    given = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    root = Path(tempfile.mkdtemp(prefix="rho-hosts-"))
    prepare(root)
    rows, failed = [], False
    with HostsCluster(root) as cluster:
        for name in get_args(Command):
            peace = run(cluster, root, name, None, root / f"peace-{name}")
            rows.append(f"| none | {name} | | | | {peace.wall_s:.0f} |")
            print(rows[-1], flush=True)
        for fault in FAULTS:
            if given.fault and not any(words in fault.name for words in given.fault):
                continue
            for name in given.command or get_args(Command):
                output = root / f"{name}-{FAULTS.index(fault)}"
                found = run(cluster, root, name, fault, output)
                failed |= not found.same
                recovered = "" if found.recovered_s is None else f"{found.recovered_s:.0f}"
                same = "the same bytes" if found.same else "BYTES DIFFER"
                if found.runs > 1:
                    same += f", after {found.runs - 1} more runs of the command"
                rows.append(
                    f"| {fault.name} | {name} | {same} | {found.restarted} | {recovered} | {found.wall_s:.0f} |"
                )
                print(rows[-1], flush=True)
                for said in found.said:
                    print(said, flush=True)
    header = (
        "| what breaks | command | result | Ray started again on hosts | seconds to the next file | seconds in all |"
    )
    print("\n".join(["", header, "|---|---|---|---|---|---|", *rows]))
    if not failed:
        shutil.rmtree(root)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
