"""Commands under faults: strike, resume until done, compare every published byte with an undisturbed run's."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.chaos.cluster import GONE, ChaosCluster
from tests.chaos.faults import Command, Fault
from tests.conftest import make_tokenizer, save_model, some_text

N_DOCUMENTS, N_QUARANTINED = 96, 12
DONE = {"score": 3, "select": 0, "export": 0}  # 3: done, and documents were quarantined
LIMIT_S = 400
EVERY_S = 0.01


@dataclass
class Outcome:
    """What a run under faults came to."""

    struck: list[Fault] = field(default_factory=list)
    """Faults that happened; the others found their moment already past."""
    resumes: int = 0
    messages: list[str] = field(default_factory=list)
    """Last lines of drivers that failed without being killed."""
    differing_bytes: int = 0
    differing_files: list[str] = field(default_factory=list)
    unaccounted: int = 0
    strays: int = 0
    """Unfinished temporary files left behind; nobody reads them."""
    wall_s: float = 0.0
    failed: bool = False
    """It never came to an end."""


def prepare(root: Path) -> None:
    """A model and a corpus below `root`: 96 documents in 40 units, 12 of them not to be scored."""
    save_model(root / "model", 1, make_tokenizer())
    corpus = root / "corpus"
    corpus.mkdir()
    lines = [json.dumps({"id": f"j{i}", "source": "ab"[i % 2], "text": some_text(60, i)}) for i in range(48)]
    for i in range(4, 48, 8):
        lines[i] = lines[i][:-10]  # a broken line
    (corpus / "a.jsonl").write_text("\n".join(lines) + "\n")
    rows: list[dict[str, Any]] = [{"id": f"p{i}", "source": "c", "text": some_text(60, 100 + i)} for i in range(48)]
    for i in range(3, 48, 8):
        rows[i]["text"] = None
    pq.write_table(pa.Table.from_pylist(rows), corpus / "b.parquet", row_group_size=3)


def command(name: Command, root: Path, output: Path, *, workers: int = 2) -> list[str]:
    """The arguments that write `output`, from the undisturbed score set or selection beside it."""
    if name == "score":
        columns = ["--id-column", "id", "--group-column", "source", "--unit-bytes", "900"]
        windows = ["--context", "32", "--overlap", "8", "--batch-tokens", "128"]
        pool = ["--workers", str(workers), "--cpus-per-worker", "1", "--gpus-per-worker", "0"]
        options = [*columns, *windows, *pool, "--dtype", "float32", "--no-compile"]
        return ["score", f"{root}/corpus", str(output), "--model", f"{root}/model", *options]
    if name == "select":
        return ["select", "--ref", f"{root}/peace-score", str(output), "--ratio", "0.6", "--per-group"]
    return ["export", f"{root}/peace-select", str(output), "--format", "labels", "--units-per-part", "4"]


def undisturbed(cluster: ChaosCluster, name: Command) -> Path:
    """The output of the command in peace."""
    output = cluster.root / f"peace-{name}"
    log = cluster.root / f"peace-{name}.log"
    driver = cluster.run(command(name, cluster.root, output, workers=1), log)
    driver.join(LIMIT_S)
    assert driver.exitcode == DONE[name], f"exit code {driver.exitcode}\n{tail(log, 30)}"
    return output


class Disturbed:
    """One command under its faults, until it is done."""

    def __init__(
        self, cluster: ChaosCluster, name: Command, output: Path, faults: Sequence[Fault], *, workers: int = 2
    ) -> None:
        self._cluster, self._name, self._output = cluster, name, output
        self._log = output.with_suffix(".log")
        self._arguments = command(name, cluster.root, output, workers=workers)
        self._outside = [fault for fault in faults if fault.kind.target]
        self._inside = {str(fault.number): fault for fault in faults if fault.kind.moment}
        self._due: dict[int, float] = {}
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Strike and resume until the command says that it is done.

        Raises:
            AssertionError: it was not done after a resume for each fault and two more, or it took too long.
        """
        started = time.monotonic()
        self._arm()
        try:
            self._until_done()
        finally:
            self._disarm()
            self._cluster.trim()
            self.outcome.wall_s = time.monotonic() - started
        return self.outcome

    def _until_done(self) -> None:
        for _ in range(len(self._outside) + len(self._inside) + 3):
            driver = self._cluster.run(self._arguments, self._log)
            code = self._until_it_ends(driver)
            if code == DONE[self._name]:
                break
            self.outcome.resumes += 1
            if code != -9:
                self.outcome.messages.append(f"exit code {code}: {tail(self._log, 3)}")
            self._cluster.mend()
        else:
            raise AssertionError(f"not done after {self.outcome.resumes} resumes\n{tail(self._log, 60)}")

    def _until_it_ends(self, driver: Any) -> int:
        end = time.monotonic() + LIMIT_S
        while driver.exitcode is None:
            if time.monotonic() > end:
                driver.kill()
                raise AssertionError(f"not finished after {LIMIT_S} s\n{tail(self._log, 60)}")
            for fault in list(self._outside):
                if self._is_due(fault) and self._strike(fault, driver):
                    self._outside.remove(fault)
                    self.outcome.struck.append(fault)
            self._cluster.mend()
            time.sleep(EVERY_S)
        return int(driver.exitcode)

    def _is_due(self, fault: Fault) -> bool:
        if fault.number not in self._due and n_published(self._output) >= fault.after_files:
            self._due[fault.number] = time.monotonic() + fault.delay_s
        return time.monotonic() >= self._due.get(fault.number, float("inf"))

    def _strike(self, fault: Fault, driver: Any) -> bool:
        """Whether there was something to strike."""
        target = fault.kind.target
        if target == "driver":
            driver.kill()
            driver.join()
        elif target in ("node", "leave"):
            self._cluster.remove_node(fault.number, graceful=target == "leave")
        elif target == "join":
            self._cluster.add_node()
        elif target == "head":
            self._cluster.restart()
        else:
            scoring = {process.pid for process in self._cluster.workers("ScoreUnit")}
            workers = [p for p in self._cluster.workers() if (p.pid in scoring) == (target == "actor")]
            if not workers:
                return False
            with suppress(*GONE):
                workers[fault.number % len(workers)].kill()
                return True
            return False
        return True

    def _arm(self) -> None:
        if any(fault.kind.action == "hog" for fault in self._inside.values()):
            self._cluster.add_small_node()
        for fault in self._inside.values():
            kind = fault.kind
            for count in range(fault.passage + 1):
                name = f"{kind.moment},{kind.process},{kind.action},{fault.number},{count:02}"
                (self._cluster.root / "armed" / name).touch()

    def _disarm(self) -> None:
        left = set()
        for file in (self._cluster.root / "armed").iterdir():
            left.add(file.name.split(",")[3])
            file.unlink()
        self.outcome.struck += [fault for number, fault in self._inside.items() if number not in left]


def compare(outcome: Outcome, name: Command, output: Path, peace: Path) -> None:
    """Note in `outcome` what differs from the undisturbed run: files and bytes, documents, stray temporary files."""
    here, there = published_files(output), published_files(peace)
    for file in sorted({*here, *there}):
        mine = (output / file).read_bytes() if file in here else b""
        expected = (peace / file).read_bytes() if file in there else b""
        if mine != expected or (file in here) != (file in there):
            same = sum(a == b for a, b in zip(mine, expected, strict=False))
            outcome.differing_bytes += max(max(len(mine), len(expected)) - same, 1)
            outcome.differing_files.append(file)
    expected_rows = N_DOCUMENTS if name == "score" else rows_in(peace)
    outcome.unaccounted = abs(rows_in(output) - expected_rows)
    outcome.strays = sum(path.is_file() for path in output.rglob(".*"))


def published_files(store: Path) -> set[str]:
    """Every file of a store but unfinished temporary ones and signs of life: a part of their names begins with a dot."""
    names = (p.relative_to(store) for p in store.rglob("*") if p.is_file())
    return {str(name) for name in names if not any(part.startswith(".") for part in name.parts)}


def rows_in(store: Path) -> int:
    """Documents in a store's data and quarantine files, by their own row counts."""
    files = [name for name in published_files(store) if name.startswith(("data/", "quarantine/"))]
    return sum(pq.read_metadata(store / name).num_rows for name in files)


def n_published(store: Path) -> int:
    """Files in the store's data folder."""
    with suppress(FileNotFoundError):
        return sum(not path.name.startswith(".") for path in (store / "data").iterdir())
    return 0


def tail(log: Path, n_lines: int) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-n_lines:]) if log.exists() else "(no log)"
