"""`make bench`: a trillion tokens as its driver sees them, a million units: the functions of scoring and selecting that grow with
units, on made-up units, each in a process of its own with its time and highest memory. A table in Markdown.

`python -m bench.scale --part NAME` runs one part in this process; `--profile` prints its twenty costliest calls.
"""

import argparse
import cProfile
import hashlib
import json
import os
import pstats
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.score_sets import ROOT
from bench.selection import Row, machine, table
from rho_score.config import SelectConfig
from rho_score.corpus.columns import Columns
from rho_score.corpus.plan import Plan, read_plan
from rho_score.corpus.units import Unit
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.files.parquet import parquet_bytes
from rho_score.ranking.histogram import COUNTS, merge
from rho_score.scoring.read import CorpusUnits
from rho_score.selecting.batches import FAN_IN, UNITS_PER_BATCH, batches_of
from rho_score.selecting.inputs import prepare
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import MANIFEST, PLAN, SUCCESS, published_units
from rho_score.stores.manifest import new_manifest
from rho_score.stores.schema import SCHEMA_VERSION, score_schema
from rho_score.stores.unit_file import footers

FOLDER = ROOT / "out" / "bench" / "scale"
UNITS = 1_000_000
UNITS_PER_SHARD = 4
LINKS = 30_000  # names for one file: a local file system allows some 65,000
GROUPS = 8
KEYS_PER_GROUP = 20_000  # distinct float16 excess losses in 256 million tokens, a group
LIMIT_MB = 2_000
Answer = dict[str, Any]


def units(n: int) -> tuple[Unit, ...]:
    """Units as a plan over a trillion tokens of Parquet has them."""
    every: list[Unit] = []
    for i in range(n):
        part, place = divmod(i, UNITS_PER_SHARD)
        if place == 0:
            shard, version = f"web/crawl-2026/part-{part:07d}.parquet", _digits(f"etag {part}", 32)
        every.append(
            Unit(
                unit=f"{shard.replace('/', '-')}_{place}-{place + 1}_{_digits(str(i), 12)}",
                shard=shard, format=".parquet", size=64_000_000, version=version, start=place, stop=place + 1,
                first_row=place * 5000, rows=5000, text_bytes=16_000_000,
            )
        )  # fmt: skip
    return tuple(every)


def _digits(text: str, n: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:n]


def accounts(i: int) -> ScoreCounts:
    """ScoreCounts of unit i."""
    return ScoreCounts(
        documents=5000, scored=5000, tokens=1_000_000 + i, losses=1_000_000 + i, total_nats=2.5e6 + i / 7
    )


class Timer:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, step: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = step()
        self.seconds[name] = time.perf_counter() - started
        return found


def plan(n: int, timer: Timer) -> str:
    """The plan: digest, written and read."""
    made = Plan(root="s3://corpora/web", units=units(n))
    timer("digest", lambda: made.digest)
    content = timer("to_parquet", made.to_parquet)
    found = timer("read_plan", lambda: read_plan(content))
    assert found == made.units
    return f"{len(content) / 1e6:.0f} MB"


def read_tasks(n: int, timer: Timer) -> str:
    """The read tasks of a scoring run, as its driver gives them to Ray Data."""
    source = CorpusUnits("s3://corpora/web", units(n), Columns("text", None, "source"))
    tasks = timer("get_read_tasks", lambda: source.get_read_tasks(n))
    assert len(tasks) == n
    return "without what Ray Data adds to each"


def resume(n: int, timer: Timer) -> str:
    """What a resumed run looks up: the listing of published units, half of them there, and which are to do."""
    every = units(n)
    folder = _linked("scores", [unit.unit for unit in every[: n // 2]], _score_file())
    done = timer("published_units", lambda: published_units(folder))
    todo = timer("what is to do", lambda: [unit for unit in every if unit.unit not in done])
    assert len(todo) == n - n // 2
    return f"{len(done):,} names listed"


def totals(n: int, timer: Timer) -> str:
    """Totals of a resumed scoring run: accounts of all units, from `n` generated footers."""
    total = timer(
        "ScoreCounts.total",
        lambda: ScoreCounts.total(ScoreCounts(**found["accounts"]) for found in map(_score_footer, range(n))),
    )
    assert total.scored == 5000 * n
    return f"{total.tokens:,} tokens"


def score_footers(n: int, timer: Timer) -> str:
    """Footers of published units of a score set, read and added up."""
    names = [unit.unit for unit in units(n)]
    folder = _linked("scores", names, _score_file())
    found = timer("footers and ScoreCounts.total", lambda: _total(footers(folder, names)))
    return f"{n:,} files of a local disk; {found.scored:,} documents"


def _total(found: Iterable[dict[str, Any]]) -> ScoreCounts:
    return ScoreCounts.total(ScoreCounts(**one["accounts"]) for one in found)


def select_driver(n: int, timer: Timer) -> str:
    """What a resumed selection keeps in its driver: two score sets compared, batches, and which units are published."""
    output = Folder(str(FOLDER / f"scores-{n}"))  # any folder with that many published names
    config = SelectConfig(
        ref=(_empty_set("ref", n),), base=_empty_set("base", n), output=str(FOLDER / "selection"), ratio=0.6
    )
    prepared = timer("prepare: both plans read and compared", lambda: prepare(config))
    batches = timer("batches of units", lambda: batches_of(prepared.main, prepared.others))
    done = timer("published_units", lambda: published_units(output))
    left = timer("what is to do", lambda: sum(len(b.units) - len(done.intersection(b.names)) for b in batches))
    assert left == 0
    return f"{len(batches):,} batches"


def histograms(n: int, timer: Timer) -> str:
    """The histograms of all batches merged, a few at a time."""
    n_batches = max(1, n // UNITS_PER_BATCH)
    made = _batch_histograms()
    level = (made[i % len(made)] for i in range(n_batches))
    merged = timer(f"merge of {n_batches:,}, {FAN_IN} at a time", lambda: _tree(level))
    counted = sum(int(np.sum(made[i % len(made)]["count"].to_numpy())) for i in range(n_batches))
    assert int(np.sum(merged["count"].to_numpy())) == counted
    return f"{len(made[0]):,} rows each, {len(merged):,} rows in the whole"


def _tree(level: Iterator[pa.Table]) -> pa.Table:
    """Merge as the tables come, `FAN_IN` of a height at a time: what waits is `FAN_IN` tables a height."""
    waiting: list[list[pa.Table]] = [[]]
    for part in level:
        waiting[0].append(part)
        for height in range(len(waiting)):
            if len(waiting[height]) == FAN_IN:
                if height + 1 == len(waiting):
                    waiting.append([])
                waiting[height + 1].append(merge(waiting[height]))
                waiting[height] = []
    return merge(part for parts in waiting for part in parts)


def _batch_histograms() -> list[pa.Table]:
    """A few histograms of a batch, as tables."""
    made = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        n = GROUPS * KEYS_PER_GROUP
        keys = np.concatenate([np.sort(random.choice(1 << 16, KEYS_PER_GROUP, replace=False)) for _ in range(GROUPS)])
        counts = pa.array(random.integers(1, 20_000, n))
        columns = {
            "group": pa.array([f"source-{i}" for i in range(GROUPS)]).take(
                np.repeat(np.arange(GROUPS), KEYS_PER_GROUP)
            ),
            "key": pa.array(keys).cast(COUNTS.field("key").type),
            "count": counts,
            "tokens": counts,
        }
        made.append(pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in COUNTS], schema=COUNTS))
    return made


def _score_footer(i: int) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": "0" * 64,
        "unit": f"unit-{i:012d}",
        "accounts": asdict(accounts(i)),
        "content_sha256": f"{i:064x}",
    }


def _score_file() -> bytes:
    schema = score_schema(grouped=True)
    return parquet_bytes(schema.empty_table(), schema, _score_footer(0))


def _empty_set(model: str, n: int) -> str:
    """A score set's manifest, plan and totals, without data."""
    folder = Folder(str(FOLDER / f"{model}-{n}"))
    if not folder.exists(SUCCESS):
        columns = {"text_column": "text", "id_column": None, "group_column": "source"}
        parts = {
            "model": model,
            "tokenizer_sha256": "0" * 64,
            "context": 2048,
            "overlap": 512,
            "prefix_id": 0,
            **columns,
        }
        folder.publish(PLAN, Plan(root="s3://corpora/web", units=units(n)).to_parquet())
        folder.publish(MANIFEST, dump_json(new_manifest("score set", parts)))
        folder.publish(SUCCESS, dump_json({"units": n, **asdict(ScoreCounts(documents=5000 * n, scored=5000 * n))}))
    return folder.url


def _linked(store: str, names: list[str], content: bytes) -> Folder:
    """A store with a published file for each name; they share a few files on the disk."""
    folder = FOLDER / f"{store}-{len(names)}"
    data = folder / "data"
    if not (folder / "made").exists():
        data.mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(names):
            if i % LINKS == 0:
                original = folder / f"original-{i}"
                original.write_bytes(content)
            target = data / f"{name}.parquet"
            target.unlink(missing_ok=True)
            os.link(original, target)
        (folder / "made").touch()
    return Folder(str(folder))


PARTS: dict[str, Callable[[int, Timer], str]] = {
    f.__name__: f for f in (plan, read_tasks, resume, totals, score_footers, select_driver, histograms)
}


def run_part(name: str, n: int) -> Answer:
    """One part in this process: its steps' seconds, the memory before (modules) and the highest, MB."""
    if name in ("resume", "score_footers", "select_driver"):
        _prepare(name, n)
    before = _peak_mb()
    timer = Timer()
    note = PARTS[name](n, timer)
    return {"seconds": timer.seconds, "before_mb": before, "peak_mb": _peak_mb(), "note": note}


def _prepare(name: str, n: int) -> None:
    """Make the part's files in a process of its own, so that its memory is not counted."""
    command = [sys.executable, "-m", "bench.scale", "--units", str(n), "--make", name]
    subprocess.run(command, cwd=ROOT, check=True)


def make(name: str, n: int) -> None:
    """Make the files that a part looks at."""
    names = [unit.unit for unit in units(n)]
    _linked("scores", names[: n // 2] if name == "resume" else names, _score_file())
    if name == "select_driver":
        for model in ("ref", "base"):
            _empty_set(model, n)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def rows_of(name: str, n: int) -> list[Row]:
    """Rows of one part, run in a process of its own."""
    command = [sys.executable, "-m", "bench.scale", "--units", str(n), "--part", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1][:150]
        return [(name, f"failed ({done.returncode}): {last}", "", "")]
    found: Answer = json.loads(done.stdout.splitlines()[-1])
    strong = "**" if found["peak_mb"] > LIMIT_MB else ""
    memory = f"{strong}{found['peak_mb']:,.0f} MB{strong} ({found['before_mb']:,.0f} before)"
    return [
        (f"{name}: {step}", f"{seconds:.1f} s", memory if first == 0 else "", found["note"] if first == 0 else "")
        for first, (step, seconds) in enumerate(found["seconds"].items())
    ]


def main() -> None:
    """Run every part; the table goes to stdout and to out/bench/scale.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=UNITS, help="units of the plan (default a million)")
    parser.add_argument("--skip", nargs="*", default=[], help=f"parts to leave out: {', '.join(PARTS)}")
    parser.add_argument("--part", choices=PARTS, help="run this part in this process, print JSON")
    parser.add_argument("--profile", action="store_true", help="with --part: the costliest calls")
    parser.add_argument("--make", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make(given.make, given.units)
        return
    if given.part:
        profile = cProfile.Profile()
        answer = (
            profile.runcall(run_part, given.part, given.units) if given.profile else run_part(given.part, given.units)
        )
        if given.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(20)
        print(json.dumps(answer))
        return
    file = Path(ROOT / "out" / "bench" / "scale.md")
    file.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    header = ("step", "time", "highest memory of the process", "")
    for name in PARTS:
        if name not in given.skip:
            print(f"{name} …", file=sys.stderr, flush=True)
            rows += rows_of(name, given.units)
            file.write_text(f"{machine()}\n\n{given.units:,} units\n\n{table(header, rows)}")
    print(file.read_text())


if __name__ == "__main__":
    main()
