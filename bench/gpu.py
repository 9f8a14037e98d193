"""`make gpu`: all that is worth knowing of a GPU, in half an hour: tests, speeds, memory, FP8, a whole job, training.

Each part is a process of its own with a limit of its own, in the order of its worth, and may fail alone. What does not fit into
`--minutes` is skipped and named. out/bench/gpu.json has every number, and is whole after each part; the log of each part is in
out/bench/gpu/. `--publish` puts the table into docs/benchmarks.md.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.gpu_page import publish, table
from bench.gpu_parts import Part, all_parts
from bench.machine import memory_gib, processor, versions
from bench.processes import GONE, tree
from bench.rows import Row, read_rows

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "out" / "bench" / "gpu.json", ROOT / "docs" / "benchmarks.md"
PACKAGES = ("torch", "triton", "transformers", "ray", "torchao", "accelerate", "pyarrow", "numpy")
TO_END_S = 15.0  # for a part to write what it has, once it is told to end


def run_parts(parts: Sequence[Part], *, budget_s: float, results: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Runs the parts in turn and returns what `results` then holds. A part that fails or takes too long stops no other."""
    started = time.monotonic()
    folder = results.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    whole: dict[str, Any] = {**about, "minutes": budget_s / 60, "parts": []}
    for i, part in enumerate(parts, 1):
        left = budget_s - (time.monotonic() - started)
        print(f"[{i}/{len(parts)}] {part.name}: {part.about} …", file=sys.stderr, flush=True)
        if left < part.least_s:
            found = _result(part, error=f"skipped: {max(0.0, left):.0f} s of the {budget_s / 60:g} minutes are left")
        else:
            found = run_part(part, limit_s=min(part.limit_s, left), folder=folder)
        whole["parts"].append(found)
        results.write_text(json.dumps(whole, ensure_ascii=False, indent=1))
        told = found["error"] or "done"
        print(f"[{i}/{len(parts)}] {part.name}: {told}, {found['seconds']:.0f} s", file=sys.stderr, flush=True)
    return whole


def run_part(part: Part, *, limit_s: float, folder: Path) -> dict[str, Any]:
    """Runs one part for at most `limit_s` and returns its rows, its seconds, and its error if it failed."""
    name = part.name.replace(" ", "-")
    result, log = folder / f"{name}.{'xml' if part.result == 'junit' else 'json'}", folder / f"{name}.log"
    result.unlink(missing_ok=True)
    command = [word.replace("{result}", str(result)) for word in part.command]
    started = time.monotonic()
    error = ""
    try:
        with log.open("w") as output:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                if child.wait(timeout=limit_s):
                    error = f"exit code {child.returncode}: {_last_line(log)}"
            except subprocess.TimeoutExpired:
                error = f"not finished after {limit_s:.0f} s"
            finally:
                _end(child)
        rows = _counts(result) if part.result == "junit" else read_rows(result)
        error = error or ("" if rows else f"no result: {_last_line(log)}")
    except (OSError, ValueError, TypeError, ElementTree.ParseError) as failure:  # no such program, or half a file
        rows, error = [], error or repr(failure)
    return _result(part, rows=rows, seconds=time.monotonic() - started, error=error)


def _result(part: Part, *, rows: Sequence[Row] = (), seconds: float = 0.0, error: str = "") -> dict[str, Any]:
    told = [row._asdict() for row in rows]
    return {
        "name": part.name,
        "about": part.about,
        "command": shlex.join(part.command),
        "limit_s": part.limit_s,
        "seconds": round(seconds, 1),
        "error": error or None,
        "rows": told,
    }


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends a process, by an interrupt that lets it write what it has, and then all that it started."""
    below = tree(child.pid)
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=TO_END_S)
    for process in reversed(below):
        with suppress(*GONE):
            process.kill()
    with suppress(ProcessLookupError):  # what a part left behind holds memory of the GPU
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _counts(file: Path) -> list[Row]:
    """How many tests passed, failed and were skipped, which failed, and why others were skipped, from a JUnit file."""
    if not file.exists():
        return []
    cases = list(ElementTree.parse(file).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    passed = len(cases) - len(failed) - len(skipped)
    numbers = {"passed": passed, "failed": len(failed), "skipped": len(skipped)}
    shown = ", ".join(f"{n} {what}" for what, n in numbers.items())
    return [
        Row("tests", shown, numbers),
        *(Row(f"failed: {case.get('name')}", _reason(case, "failure", "error")) for case in failed),
        *(Row(f"skipped: {n}", why, {"skipped": n}) for why, n in Counter(_skipped(c) for c in skipped).items()),
    ]


def _reason(case: ElementTree.Element, *kinds: str) -> str:
    found = next((child for kind in kinds if (child := case.find(kind)) is not None), None)
    return " ".join((found.get("message") or "").split())[:150] if found is not None else ""


def _skipped(case: ElementTree.Element) -> str:
    """Why a test was skipped, or all tests of a file, of which the text under the message tells."""
    reason = _reason(case, "skipped")
    return reason if reason != "collection skipped" else " ".join((case.findtext("skipped") or reason).split())[-150:]


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


def machine() -> dict[str, Any]:
    """The machine, the driver, the versions, the commit and the date."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return {
        "gpu": _said(query) or "none",
        "cpu": processor(),
        "memory": {"GiB": round(memory_gib(), 1)},
        "python": sys.version.split()[0],
        "versions": versions(PACKAGES),
        "commit": (_said(["git", "rev-parse", "HEAD"]) or "unknown") + _changed(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _changed() -> str:
    return ", with changes" if _said(["git", "status", "--porcelain", "--untracked-files=no"]) else ""


def _said(command: Sequence[str]) -> str:
    """What a command prints; nothing if it fails or is not there."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parts, lists them, or publishes what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=25.0, help="for all parts together (default 25)")
    parser.add_argument("--vllm-python", default=None, help="a Python that has vllm, for its prompt_logprobs")
    parser.add_argument("--only", nargs="+", default=None, help="names of parts to run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON (default out/bench/gpu.json)")
    parser.add_argument("--dry-run", action="store_true", help="list the parts, their commands and their limits")
    parser.add_argument("--publish", action="store_true", help="put the table of the results into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    # A shell that starts this in the background makes it ignore interrupts, and its parts with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if given.publish:
        PAGE.write_text(publish(PAGE.read_text(), json.loads(given.results.read_text())))
        return
    beside = ROOT / ".venv-vllm-gpu" / "bin" / "python"
    parts = all_parts(given.vllm_python or (str(beside) if beside.exists() else None))
    if unknown := set(given.only or ()) - {part.name for part in parts}:
        parser.error(f"there is no part {min(unknown)!r}; --dry-run lists them")
    parts = [part for part in parts if given.only is None or part.name in given.only]
    if given.dry_run:
        for part in parts:
            print(f"{part.name}: {part.about}, at most {part.limit_s:.0f} s\n  {shlex.join(part.command)}")
        print(f"{sum(part.limit_s for part in parts) / 60:.0f} minutes at most, of which {given.minutes:g} are given")
        return
    print(table(run_parts(parts, budget_s=60 * given.minutes, results=given.results, about=machine())))


if __name__ == "__main__":
    main()
