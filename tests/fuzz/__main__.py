"""`python -m tests.fuzz [--minutes M] [--examples N] [TARGET ...]`: fuzz the targets, print a line for each.

Memory is limited to what the process has after its imports and 1.5 GiB; an example that takes longer than 20 seconds is a
failure. What fails is kept under out/fuzz/ and, once mended, under tests/fuzz/regressions/TARGET/.
"""

import argparse
import contextlib
import hashlib
import io
import logging
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

import tenacity
from hypothesis import HealthCheck, Phase, given, settings

import rho_score.files.retries
from tests.fuzz.place import OURS, ROOT
from tests.fuzz.targets import TARGETS, Target

LONGEST_S = 20
MORE_MEMORY = 3 << 29
REGRESSIONS = Path(__file__).parent / "regressions"


def main() -> int:
    """Run the targets; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument(
        "--minutes", type=float, default=0, help="go on with new examples until so much time has passed"
    )
    parser.add_argument("--examples", type=int, default=300, help="of each target in one round")
    options = parser.parse_args()
    chosen = [target for target in TARGETS if not options.targets or target.name in options.targets]
    _limit()
    logging.disable(logging.CRITICAL)
    end = time.monotonic() + options.minutes * 60
    runs = {target.name: Run(target) for target in chosen}
    for run in runs.values():
        run.one(run.originals[0])
        if not run.told["result"] and not run.failures:
            run.failures["a valid example is refused"] = Path(), ""
        run.replay()
    while True:
        for run in runs.values():
            print(run.target.name, end=" ", file=sys.stderr, flush=True)
            run.round(max(1, round(options.examples * run.target.share)))
        if time.monotonic() >= end:
            break
    print(f"{'target':<20} {'examples':>9} {'results':>9} {'refused':>9} {'failures':>9} {'seconds':>8}")
    for name, run in runs.items():
        told = run.told
        print(
            f"{name:<20} {told.total():>9,} {told['result']:>9,} {told['refused']:>9,} {len(run.failures):>9} {run.seconds:>8.1f}"
        )
    for run in runs.values():
        for where, (file, trace) in run.failures.items():
            print(f"\n{run.target.name}: {where}\n{file}\n{trace}")
    return 1 if any(run.failures for run in runs.values()) else 0


class Run:
    """One target and what came of it."""

    def __init__(self, target: Target) -> None:
        self.target, self.told, self.seconds = target, Counter[str](), 0.0
        self.originals = target.originals()
        self.failures: dict[str, tuple[Path, str]] = {}

    def replay(self) -> None:
        """The examples that failed once."""
        for path in sorted((REGRESSIONS / self.target.name).glob("*")):
            self.one(path.read_bytes())

    def round(self, examples: int) -> None:
        """So many new examples."""
        started = time.monotonic()

        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(self.target.strategy(self.originals))
        def body(content: bytes) -> None:
            self.one(content)

        body()
        self.seconds += time.monotonic() - started

    def one(self, content: bytes) -> None:
        """One example; a failure is kept, the first of each place."""
        signal.alarm(LONGEST_S)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                self.target.run(content)
            self.told["result"] += 1
        except OURS:
            self.told["refused"] += 1
        except (Exception, SystemExit) as error:
            self.told["failed"] += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            if where not in self.failures:
                file = ROOT / "out" / "fuzz" / f"{self.target.name}-{hashlib.sha256(content).hexdigest()[:12]}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                self.failures[where] = file, traceback.format_exc()
        finally:
            signal.alarm(0)


def _limit() -> None:
    """Bound memory and time, and let nothing wait before it tries again."""

    def hang(number: int, frame: FrameType | None) -> None:
        raise TimeoutHang(f"an example took longer than {LONGEST_S} s")

    signal.signal(signal.SIGALRM, hang)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    rho_score.files.retries.wait_random_exponential = lambda **_: tenacity.wait_none()  # type: ignore[assignment]


class TimeoutHang(Exception):
    """An example that does not end; no OSError, unlike `TimeoutError`."""


if __name__ == "__main__":
    sys.exit(main())
