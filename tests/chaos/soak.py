"""`make soak`: ten thousand small units in one run; what grows with units, and how fast.

    python -m tests.chaos.soak --units 10000

A real run of `rho-score score` in a cluster of its own, by a model so small that a unit costs milliseconds. Every two seconds the
memory, open files and threads of its processes, the object store and Ray's temporary folder are sampled; printed is the slope
of each over published units, by least squares after the first fifth. Exit code 1 where the memory of driver, scoring actors and
object store grows by more than 10 KB a unit. Ray's own server keeps the last 100,000 events of tasks, some 300 MB, whatever
the number of units; task workers come and go, so that theirs is given for one of them.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from tests.chaos.cluster import GONE, SETTINGS
from tests.chaos.runs import n_published, tail
from tests.conftest import make_tokenizer, save_model, some_text

BOUND = 10_000  # bytes a unit
BOUNDED = ("driver, USS bytes", "scoring actors, USS bytes", "object store, largest shared bytes")
WARM_UP = 0.2
EVERY_S = 2.0
LINES_PER_SHARD = 1000


@dataclass
class Samples:
    """Values over the run, by name; `units[i]` units were published at the i-th sample."""

    units: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def slopes(self) -> dict[str, tuple[float, float, float]]:
        """First value after the warm-up, last value, and growth a unit, of each name."""
        units = np.array(self.units, float)
        warm = units >= WARM_UP * units.max()
        found = {}
        for name, values in self.values.items():
            after = np.array(values, float)[warm]
            found[name] = (after[0], after[-1], float(np.polyfit(units[warm], after, 1)[0]))
        return found

    def table(self) -> str:
        """The slopes, as Markdown."""
        rows = [f"| {name} | {a:,.0f} | {b:,.0f} | {slope:,.2f} |" for name, (a, b, slope) in self.slopes().items()]
        head = f"| {self.units[-1]:,} units | after {WARM_UP:.0%} | at the end | a unit |"
        return "\n".join([head, "|---|---|---|---|", *rows])


def main() -> int:
    """Exit code 0 where memory stays within the bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10_000)
    n_units = parser.parse_args().units
    with tempfile.TemporaryDirectory(prefix="rho") as folder:
        started = time.monotonic()
        samples = soak(Path(folder), n_units)
        wall_s = time.monotonic() - started
    print(f"{n_units:,} units in {wall_s:.0f} s ({1000 * wall_s / n_units:.0f} ms a unit)\n\n{samples.table()}")
    slopes = samples.slopes()
    growth = sum(max(0, slopes[name][2]) for name in BOUNDED)
    print(f"\ndriver, scoring actors and object store grow by {growth:,.0f} bytes a unit; the bound is {BOUND:,}")
    return int(growth > BOUND)


def soak(root: Path, n_units: int) -> Samples:
    """Score `n_units` units of one short document each; sample until the run ends.

    Raises:
        RuntimeError: the run failed.
    """
    write(root, n_units)
    command = [
        sys.executable, "-c", "from rho_score.cli import run; run()", "score", f"{root}/corpus", f"{root}/out",
        "--model", f"{root}/model", "--unit-bytes", str(line_bytes()), "--context", "32", "--overlap", "8",
        "--dtype", "float32", "--no-compile", "--cpus-per-worker", "1", "--gpus-per-worker", "0",
    ]  # fmt: skip
    environment = {**os.environ, **SETTINGS, "RAY_TMPDIR": str(root), "RAY_ADDRESS": ""}
    samples, log = Samples(), root / "run.log"
    with log.open("wb") as file:
        driver = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        while driver.poll() is None:
            if 0 < (done := n_published(root / "out")) < n_units:  # not while it ends
                sample(samples, done, driver.pid, root / "ray")
                if len(samples.units) % 150 == 0:
                    print(samples.table() + "\n", flush=True)
            time.sleep(EVERY_S)
    finally:
        driver.kill()
    if driver.returncode != 0 or n_published(root / "out") != n_units:
        raise RuntimeError(f"exit code {driver.returncode}, {n_published(root / 'out')} units\n{tail(log, 40)}")
    return samples


def write(root: Path, n_units: int) -> None:
    """A model, and a corpus of shards of a thousand lines, all of the same length: a line a unit."""
    save_model(root / "model", 1, make_tokenizer())
    (root / "corpus").mkdir()
    for start in range(0, n_units, LINES_PER_SHARD):
        lines = [line(i) for i in range(start, min(start + LINES_PER_SHARD, n_units))]
        (root / "corpus" / f"{start:08}.jsonl").write_text("".join(lines))


def line(i: int) -> str:
    """A document of `line_bytes()` bytes."""
    text = some_text(8, i).encode("ascii", "ignore").decode()[:40]
    return f'{{"text": "{text:40}"}}\n'


def line_bytes() -> int:
    """Bytes of each line."""
    return len(line(0))


def sample(samples: Samples, done: int, driver: int, temporary: Path) -> None:
    """Add the state of all processes below the driver."""
    with contextlib.suppress(*GONE):
        every = [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]
        now: dict[str, float] = defaultdict(float)
        for process in every:
            with contextlib.suppress(*GONE):
                kind, memory = kind_of(process, driver), process.memory_full_info()
                now[kind] += 1
                now[f"{kind}, USS bytes"] += memory.uss
                now["all processes, USS bytes"] += memory.uss
                now["object store, largest shared bytes"] = max(
                    now["object store, largest shared bytes"], memory.shared
                )
                now["open files"] += process.num_fds()
                now["threads"] += process.num_threads()
        now["processes"] = len(every)
        now["a task worker, mean USS bytes"] = now["task workers, USS bytes"] / max(1, now["task workers"])
        now["temporary folder, bytes"] = folder_bytes(temporary)
        samples.units.append(done)
        for name in ("driver", "scoring actors", "raylet", "gcs_server", "other"):
            samples.values[f"{name}, USS bytes"].append(now[f"{name}, USS bytes"])
        for name in (
            "a task worker, mean USS bytes",
            "all processes, USS bytes",
            "object store, largest shared bytes",
            "open files",
            "threads",
            "processes",
            "temporary folder, bytes",
        ):
            samples.values[name].append(now[name])


def kind_of(process: psutil.Process, driver: int) -> str:
    """What a process of the run is."""
    if process.pid == driver:
        return "driver"
    title = " ".join(process.cmdline())
    if title.startswith("ray::"):
        return "scoring actors" if "ScoreUnit" in title else "task workers"
    return process.name() if process.name() in ("raylet", "gcs_server") else "other"


def folder_bytes(folder: Path) -> int:
    """Bytes on disk of all files below a folder."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_blocks * 512
    return total


if __name__ == "__main__":
    sys.exit(main())
