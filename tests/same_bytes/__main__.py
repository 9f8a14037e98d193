"""`python -m tests.same_bytes BEFORE AFTER`: a table of the files that two versions write; exit code 1 where they differ.

--work DIR keeps the inputs and both versions' files. A command is run again only if the version's code, the command or one
of its inputs changed; so a second comparison with the same BEFORE runs AFTER alone.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.same_bytes.commands import COMMANDS, Command
from tests.same_bytes.compare import Compared, compare_folders
from tests.same_bytes.versions import Version

SHOWN = 40


def chosen(patterns: Sequence[str]) -> list[Command]:
    """The commands with these names, and those that they read from."""
    names = {c.name for c in COMMANDS if not patterns or any(fnmatch(c.name, p) for p in patterns)}
    for command in reversed(COMMANDS):
        if command.name in names:
            names |= command.reads
    return [command for command in COMMANDS if command.name in names]


def table(commands: Sequence[Command], files: Sequence[Compared], before: Version, after: Version) -> bool:
    """Print a row a command and the differences; returns whether there is none."""
    by_command: dict[str, Counter[str]] = defaultdict(Counter)
    for file in files:
        by_command[file.name.split("/")[0]][file.answer] += 1
    codes = [version.outcomes() for version in (before, after)]
    faults = [f"{file.name}: {file.where}" for file in files if file.answer == "different"]
    print(f"{'command':<24}{'files':>7}{'same':>7}{'but fields':>12}{'different':>11}{'exit codes':>12}{'seconds':>16}")
    for command in commands:
        counts, runs = by_command[command.name], [outcomes[command.name] for outcomes in codes]
        exits, seconds = [run["code"] for run in runs], [run["seconds"] for run in runs]
        print(
            f"{command.name:<24}{sum(counts.values()):>7}{counts['same']:>7}{counts['but for named fields']:>12}"
            f"{counts['different']:>11}{f'{exits[0]}, {exits[1]}':>12}{f'{seconds[0]:.1f}, {seconds[1]:.1f}':>16}"
        )
        if exits != [command.code] * 2:
            faults.append(f"{command.name} ended with {exits[0]} before and {exits[1]} after, expected {command.code}")
    answers = Counter(file.answer for file in files)
    print(f"{len(files):,} files: " + ", ".join(f"{n:,} {answer}" for answer, n in answers.most_common()))
    for fault in faults[:SHOWN]:
        print(f"  {fault}")
    if len(faults) > SHOWN:
        print(f"  and {len(faults) - SHOWN:,} more")
    return not faults


def main() -> int:
    """Returns 1 where a file or an exit code differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.same_bytes", description=__doc__)
    parser.add_argument("before", type=Path, help="a checkout of the project")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--work", type=Path, default=Path("out/same-bytes"), help="folder of all that is written")
    parser.add_argument("--only", action="append", default=[], help="name or pattern of commands; repeat it")
    arguments = parser.parse_args()
    work, commands = arguments.work.resolve(), chosen(arguments.only)
    versions = [Version(getattr(arguments, name).resolve(), work / name) for name in ("before", "after")]
    for version in versions:
        version.run(commands, work / "inputs")
    names = {command.name for command in commands}
    before, after = versions
    compared = compare_folders(before.folder / "out", after.folder / "out")
    files = [file for file in compared if file.name.split("/")[0] in names]
    return 0 if table(commands, files, before, after) else 1


if __name__ == "__main__":
    raise SystemExit(main())
