"""`make bench`: the global selection beside its peers, interleaved, each a command in a fresh process; a table in Markdown.

Every contender runs once on the same two score sets before any of them gets its next turn, in another order each round, so that
none always follows the same one. A ratio is the median over the rounds.
Files are read before every turn, so that all find them in the page cache: a machine may page out what nobody read for a
minute, and a sorted list takes two. `--check` compares masks with a full sort instead.
"""

import argparse
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from bench.machine import memory_gib, processor, versions
from bench.processes import Ran, helper, run
from bench.score_sets import ROOT, Sets, cached
from bench.selection_check import check
from rho_score.ranking import histogram

OUT = ROOT / "out" / "bench" / "selection"
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}  # one process finds another's cluster without a token
KEYS = 4_000_000
PARTS = 4
Row = Sequence[str]


class Contender(NamedTuple):
    """A peer of `bench.selection_peers`; `connected`: on a Ray cluster that is there already."""

    title: str
    peer: str
    connected: bool = False


OURS = Contender("rho-score select --dry-run", "rho_score")
BIG = [
    OURS,
    Contender("rho-score select --dry-run, on a running cluster", "rho_score", True),
    Contender("rho-score select, masks written", "rho_score_masks"),
    Contender("rho-score select, masks written, on a running cluster", "rho_score_masks", True),
    Contender("DuckDB: join, unnest, quantile_disc", "duckdb"),
    Contender("DuckDB, 2 threads", "duckdb_two_threads"),
    Contender("Polars: join, explode, quantile", "polars"),
    Contender("Polars, streaming", "polars_streaming"),
    Contender("pyarrow and np.partition, all in memory", "numpy_partition"),
    Contender("sorted Python list", "sorted_list"),
]
SMALL = [
    *BIG,
    Contender("Ray Data: a row a token, Quantile (files paired by name)", "ray_data"),
    Contender("Ray Data: join by document, flat_map, Quantile", "ray_data_join"),
]


class Turns:
    """All turns of one contender."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.ran: list[Ran] = []

    @property
    def failed(self) -> str:
        """Why it has no figures; it gets no further turn."""
        return next((ran.error for ran in self.ran if ran.error), "")


def contend(sets: Sets, contenders: list[Contender], rounds: int, limit_s: float) -> list[Turns]:
    """Run all contenders `rounds` times, each round in an order of its own."""
    every = [Turns(contender) for contender in contenders]
    wanted = any(contender.connected for contender in contenders)
    python = [sys.executable, "-m", "bench.selection_peers"]
    cluster = helper([*python, "cluster"], cwd=ROOT, environment=NO_TOKEN) if wanted else nullcontext((0, ""))
    with cluster as (pid, address):
        for number in range(rounds):
            for turns in random.Random(number).sample(every, len(every)):
                if turns.failed:
                    continue
                title, peer, connected = turns.contender
                shutil.rmtree(OUT, ignore_errors=True)
                for path in sets.files:
                    path.read_bytes()
                environment = NO_TOKEN | ({"RAY_ADDRESS": address} if connected else {})
                command = [*python, peer, sets.ref, sets.base, str(OUT / peer)]
                ran = run(command, cwd=ROOT, limit_s=limit_s, environment=environment, also=[pid] if connected else [])
                turns.ran.append(ran)
                print(
                    f"  round {number + 1}, {title}: {ran.error or f'{ran.seconds:.1f} s'}", file=sys.stderr, flush=True
                )
    shutil.rmtree(OUT, ignore_errors=True)
    return every


def contender_rows(every: list[Turns]) -> list[Row]:
    """A row a contender: time, tokens a second, ours over it, memory, threshold."""
    ours = next((turns for turns in every if turns.contender == OURS and not turns.failed), None)
    agreed = _agreed(every)
    rows: list[Row] = []
    for turns in every:
        if turns.failed or not turns.ran:
            rows.append((turns.contender.title, turns.failed or "not run", *[""] * 5))
            continue
        seconds = [ran.seconds for ran in turns.ran]
        tokens = (turns.ran[0].answer or {})["tokens"]
        ratio = ""
        if ours and ours is not turns:
            ratios = [theirs.seconds / own.seconds for own, theirs in zip(ours.ran, turns.ran, strict=True)]
            ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(
            (
                turns.contender.title,
                f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})",
                f"{tokens / statistics.median(seconds) / 1e6:.2f} M",
                ratio,
                f"{max(ran.largest for ran in turns.ran) / 1e6:,.0f} MB",
                f"{max(ran.total for ran in turns.ran) / 1e6:,.0f} MB",
                _threshold(turns, agreed),
            )
        )
    return rows


def _rounded(answer: dict[str, Any]) -> float:
    return float(np.float16(answer["threshold"]))


def _agreed(every: list[Turns]) -> float | None:
    """The float16 threshold that most contenders found."""
    found = [
        _rounded(t.ran[0].answer) for t in every if t.ran and t.ran[0].answer and "decimals" not in t.ran[0].answer
    ]
    found += [_rounded(t.ran[0].answer) for t in every if t.ran and t.ran[0].answer] if not found else []
    return statistics.mode(found) if found else None


def _threshold(turns: Turns, agreed: float | None) -> str:
    """The threshold, and whether it is the others'; a printed one is compared in the decimals that it has."""
    answers = [ran.answer or {} for ran in turns.ran]
    assert all(answer == answers[0] for answer in answers)
    answer = answers[0]
    decimals = answer.get("decimals")
    if decimals is not None and "summary" not in answer and agreed is not None:
        same = round(agreed, decimals) == answer["threshold"] or _rounded(answer) == agreed
    else:
        same = _rounded(answer) == agreed
    return f"{answer['threshold']:.7g}{'' if same else ' **differs**'}"


HEADER = (
    "contender", "time, median (from to)", "tokens/s", "its time ÷ rho-score --dry-run", "largest process", "all processes",
    "threshold",
)  # fmt: skip


def kernel_rows() -> list[Row]:
    """Keys a second on one core: numpy's bincount, and `histogram.Counter`, from float16 scores to counters."""
    scores = np.random.default_rng(0).normal(0.3, 1.2, KEYS).astype(np.float16)
    lengths = np.full(KEYS // 800, 800, np.int64)
    groups = np.arange(len(lengths)) % 8

    def counted(n_groups: int) -> None:
        names = [f"group {i}" for i in range(n_groups)]
        counter, n_docs = histogram.Counter(16), len(lengths) // PARTS
        for part in range(PARTS):  # as a unit comes, by the million tokens
            docs, tokens = (slice(part * n, (part + 1) * n) for n in (n_docs, n_docs * 800))
            counter.add(None, scores[tokens], lengths[docs], groups[docs] % n_groups, names)

    ways: dict[str, Callable[[], object]] = {
        "np.bincount of uint16 keys": lambda: np.bincount(scores.view(np.uint16), minlength=1 << 16),
        "histogram.Counter.add, one group": lambda: counted(1),
        "histogram.Counter.add, 8 groups": lambda: counted(8),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(8):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn:  # the first touches new memory
                rates[name].append(KEYS / (time.perf_counter() - started))
    return [
        (name, f"{statistics.median(r) / 1e6:,.0f} M keys/s ({min(r) / 1e6:,.0f} to {max(r) / 1e6:,.0f})")
        for name, r in rates.items()
    ]


def table(header: Row, rows: Sequence[Row]) -> str:
    """Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows)) + "\n"


def machine() -> str:
    """Machine and versions, one line."""
    named = ", ".join(f"{n} {v}" for n, v in versions(("ray", "duckdb", "polars", "pyarrow", "numpy")).items())
    return f"{processor()}, {memory_gib():.0f} GiB; {named}"


def _contention(n_tokens: int, contenders: list[Contender], rounds: int, limit_s: float, only: list[str]) -> str:
    sets = cached(n_tokens)
    chosen = [
        c
        for c in contenders
        if (not only or c.peer in only) and (c.peer != "duckdb_two_threads" or os.cpu_count() != 2)
    ]
    rows = contender_rows(contend(sets, chosen, rounds, limit_s))
    about = f"{n_tokens:,} tokens, two score sets, {sets.bytes / 1e9:.2f} GB together; {rounds} rounds"
    return f"{about}\n\n{table(HEADER, rows)}"


def main() -> None:
    """Run everything; the tables go to stdout and to out/bench/selection.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200_000_000, help="of the large score sets (default 200 million)")
    parser.add_argument("--small-tokens", type=int, default=20_000_000, help="of the small ones (default 20 million)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=600, help="seconds that one command may take")
    parser.add_argument("--skip", nargs="*", default=[], help="parts to leave out: kernel, small, large")
    parser.add_argument("--only", nargs="*", default=[], help="peers to run, by their function's name")
    parser.add_argument("--check", action="store_true", help="only compare masks with a full sort, at --small-tokens")
    given = parser.parse_args()
    file = ROOT / "out" / "bench" / ("selection_check.md" if given.check else "selection.md")
    file.parent.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], str]] = {
        "kernel": lambda: table(("counting, one core", ""), kernel_rows()),
        "small": lambda: _contention(given.small_tokens, SMALL, given.rounds, given.limit, given.only),
        "large": lambda: _contention(given.tokens, BIG, given.rounds, given.limit, given.only),
    }
    text = f"{machine()}\n\n"
    if given.check:
        sets = cached(given.small_tokens, nulls=True)
        header = ("rule", "tokens kept, of the full sort", "bit for bit")
        rows = []
        for row in check(sets, OUT):
            rows.append(row)
            file.write_text(f"{text}{sets.tokens:,} tokens\n\n{table(header, rows)}")
        print(file.read_text())
        sys.exit(any(row[-1] != "equal" for row in rows))
    text += (
        "Memory of the largest process: resident pages without shared memory. Of all: proportional set size, so that what "
        "several share (Ray's object store) counts once.\n\n"
    )
    for name, part in parts.items():
        if name not in given.skip:
            print(f"{name} …", file=sys.stderr, flush=True)
            text += part()
            file.write_text(text)  # what there is, should the next part fail
    print(text)


if __name__ == "__main__":
    main()
