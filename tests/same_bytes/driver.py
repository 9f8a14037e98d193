"""Runs commands one after the other in one process of one version: `PYTHONPATH=VERSION python -P driver.py < list.json`.

Reads [name, key, arguments, in_ray] of each from its standard input. Below the current folder, a command writes to out/NAME;
what it prints goes to stdout/NAME.txt; a line in outcomes.jsonl has its exit code and seconds, and one before it says that it
began. Nothing of rho-score is used but `rho_score.cli.main`.
"""

import contextlib
import itertools
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rho_score.cli import main


def unfinished(source: str, target: str) -> int:
    """Copy a score set as it was before its last two units were published; returns 0."""
    shutil.copytree(source, target)
    Path(target, "_SUCCESS.json").unlink()
    for unit in sorted(Path(target, "data").iterdir())[-2:]:
        unit.unlink()
    return 0


def run(arguments: list[str]) -> int:
    """The command's exit code; 99 where it raises."""
    try:
        return unfinished(*arguments[1:]) if arguments[0] == "unfinished" else main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 99


@contextlib.contextmanager
def _ray_cluster() -> Iterator[None]:
    import ray

    os.environ |= {"RAY_DATA_LOG_LEVEL": "WARNING", "RAY_worker_niceness": "0"}
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="WARNING")
    try:
        yield
    finally:
        ray.shutdown()


def _note(**outcome: Any) -> None:
    with Path("outcomes.jsonl").open("a") as file:
        file.write(json.dumps(outcome) + "\n")


def drive(commands: list[tuple[str, str, list[str], bool]]) -> None:
    """Run them all; neighbours that want a Ray cluster share one."""
    for folder in ("out", "stdout"):
        Path(folder).mkdir(exist_ok=True)
    for in_ray, some in itertools.groupby(commands, key=lambda command: command[-1]):
        with _ray_cluster() if in_ray else contextlib.nullcontext():
            for name, key, arguments, _ in some:
                print(f"\n$ {name}: rho-score {' '.join(arguments)}", file=sys.stderr, flush=True)
                _note(name=name, key="begun")
                shutil.rmtree(Path("out", name), ignore_errors=True)
                started = time.monotonic()
                with Path("stdout", f"{name}.txt").open("w") as file, contextlib.redirect_stdout(file):
                    code = run(arguments)
                _note(name=name, key=key, code=code, seconds=round(time.monotonic() - started, 1))


if __name__ == "__main__":
    drive(json.load(sys.stdin))
