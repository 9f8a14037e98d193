"""The masks that `rho-score select` writes, bit for bit beside a full sort of the stored scores, ties included."""

import contextlib
import io
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from bench.score_sets import Sets
from rho_score.cli import main as rho_score
from rho_score.plan import read_plan

THRESHOLD = 0.25
BATCH_TOKENS = 100_000


@dataclass(frozen=True)
class Corpus:
    """All stored values in corpus order: of tokens, and of documents."""

    sets: Sets

    @cached_property
    def units(self) -> list[str]:
        """Names, in corpus order."""
        return [unit.unit for unit in read_plan((Path(self.sets.ref) / "plan.parquet").read_bytes())]

    def column(self, store: str, name: str) -> list[pa.ChunkedArray]:
        """A column of every unit."""
        return [pq.read_table(Path(store) / "data" / f"{unit}.parquet", columns=[name])[name] for unit in self.units]

    @cached_property
    def scores(self) -> np.ndarray:
        """base - ref, rounded to float16, float32[n_tokens]; NaN where there is no loss."""
        parts = []
        for ref, base in zip(self.column(self.sets.ref, "loss"), self.column(self.sets.base, "loss"), strict=True):
            values = [c.combine_chunks().flatten().to_numpy(zero_copy_only=False) for c in (base, ref)]
            parts.append((values[0] - values[1]).astype(np.float16).astype(np.float32))
        return np.concatenate(parts) + np.float32(0)  # -0.0 is 0.0

    @cached_property
    def unit_lengths(self) -> list[np.ndarray]:
        """Tokens of each document, a unit."""
        return [np.diff(c.combine_chunks().offsets.to_numpy()) for c in self.column(self.sets.ref, "loss")]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, int64[n_docs]."""
        return np.concatenate(self.unit_lengths).astype(np.int64)

    @cached_property
    def owners(self) -> np.ndarray:
        """Document of each token, int64[n_tokens]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def token_groups(self) -> np.ndarray:
        """Number of each token's group."""
        names = np.concatenate([c.to_numpy().astype(str) for c in self.column(self.sets.ref, "group")])
        groups: np.ndarray = np.unique(names, return_inverse=True)[1][self.owners]
        return groups

    @cached_property
    def batches(self) -> np.ndarray:
        """Number of each token's run of `BATCH_TOKENS` consecutive tokens of its unit."""
        runs, first = [], 0
        for lengths in self.unit_lengths:
            runs.append(np.arange(lengths.sum()) // BATCH_TOKENS + first)
            first = int(runs[-1][-1]) + 1
        return np.concatenate(runs)

    @cached_property
    def means(self) -> np.ndarray:
        """Mean score of each document's scored tokens, rounded to float16; NaN without any. The sums are exact in float64."""
        scored = ~np.isnan(self.scores)
        sums = np.bincount(self.owners[scored], self.scores[scored].astype(np.float64), len(self.lengths))
        with np.errstate(invalid="ignore"):
            means = sums / np.bincount(self.owners[scored], minlength=len(self.lengths))
        return means.astype(np.float16).astype(np.float32) + np.float32(0)

    @property
    def n(self) -> int:
        """Scored tokens."""
        return int(np.count_nonzero(~np.isnan(self.scores)))


def ranked(scores: np.ndarray) -> np.ndarray:
    """Indices of all that have a score, the highest first, ties in corpus order."""
    present = np.flatnonzero(~np.isnan(scores))
    order: np.ndarray = present[np.argsort(-scores[present], kind="stable")]
    return order


def band(corpus: Corpus, first: int, count: int) -> np.ndarray:
    """Ranks first to first + count."""
    mask = np.zeros(len(corpus.scores), bool)
    mask[ranked(corpus.scores)[first : first + count]] = True
    return mask


def within(corpus: Corpus, parts: np.ndarray, ratio: float, drop: float = 0.0) -> np.ndarray:
    """The best `ratio` of each part's scored tokens, after its best `drop`. parts: int64[n_tokens]."""
    order = ranked(corpus.scores)
    order = order[np.argsort(parts[order], kind="stable")]  # part by part, each in rank order
    counts = np.bincount(parts[order])
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    mask = np.zeros(len(corpus.scores), bool)
    first, count = np.rint(drop * counts), np.rint(ratio * counts)  # halves to even, as Python rounds
    owner = parts[order]
    mask[order[(rank >= first[owner]) & (rank < (first + count)[owner])]] = True
    return mask


def documents_by_ratio(corpus: Corpus, ratio: float) -> np.ndarray:
    """The best `ratio` of the documents that have a score."""
    order = ranked(corpus.means)
    kept: np.ndarray = np.zeros(len(corpus.lengths), bool)
    kept[order[: round(ratio * len(order))]] = True
    mask: np.ndarray = kept[corpus.owners]
    return mask


def documents_by_budget(corpus: Corpus, n_tokens: int) -> np.ndarray:
    """Documents in rank order up to the first that does not fit the budget."""
    order = ranked(corpus.means)
    fits = np.cumsum(corpus.lengths[order]) <= n_tokens
    kept: np.ndarray = np.zeros(len(corpus.lengths), bool)
    kept[order[fits]] = True
    mask: np.ndarray = kept[corpus.owners]
    return mask


def rules(corpus: Corpus) -> dict[str, Callable[[], np.ndarray]]:
    """Arguments of the command, and the mask that a full sort gives."""
    n, budget = corpus.n, corpus.n // 3
    dropped = round(0.05 * n)
    return {
        "--ratio 0.6": lambda: band(corpus, 0, round(0.6 * n)),
        f"--tokens {budget}": lambda: band(corpus, 0, budget),
        f"--threshold {THRESHOLD}": lambda: corpus.scores >= THRESHOLD,
        "--ratio 0.6 --per-group": lambda: within(corpus, corpus.token_groups, 0.6),
        "--ratio 0.6 --drop-top 0.05": lambda: band(corpus, dropped, round(0.6 * n)),
        f"--tokens {budget} --drop-top 0.05": lambda: band(corpus, dropped, budget),
        "--ratio 0.6 --per-group --drop-top 0.05": lambda: within(corpus, corpus.token_groups, 0.6, 0.05),
        "--ratio 0.6 --level document": lambda: documents_by_ratio(corpus, 0.6),
        f"--tokens {budget} --level document": lambda: documents_by_budget(corpus, budget),
        "--ratio 0.6 --scope document": lambda: within(corpus, corpus.owners, 0.6),
        f"--ratio 0.6 --scope batch --batch-tokens {BATCH_TOKENS}": lambda: within(corpus, corpus.batches, 0.6),
    }


def check(sets: Sets, out: Path) -> Iterator[tuple[str, str, str]]:
    """A row a rule: the arguments, tokens kept by the command and by the sort, whether the masks are equal."""
    corpus = Corpus(sets)
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)
    try:
        for arguments, oracle in rules(corpus).items():
            print(f"  {arguments} …", file=sys.stderr, flush=True)
            shutil.rmtree(out, ignore_errors=True)
            if problem := _select(["select", "--ref", sets.ref, "--base", sets.base, str(out), *arguments.split()]):
                yield arguments, "", problem
                continue
            found = np.concatenate([_mask(c) for c in corpus.column(str(out), "mask")])
            wanted = oracle()
            differing = np.flatnonzero(found != wanted)
            verdict = f"{len(differing):,} tokens differ, first {differing[0]:,}" if len(differing) else "equal"
            yield arguments, f"{np.count_nonzero(found):,} of {np.count_nonzero(wanted):,}", verdict
    finally:
        ray.shutdown()
        shutil.rmtree(out, ignore_errors=True)


def _mask(column: pa.ChunkedArray) -> np.ndarray:
    values: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    assert values.dtype == np.bool_, "a mask has nulls"
    return values


def _select(arguments: list[str]) -> str:
    """Run the command in this process; why it failed, if it did."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = rho_score(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    lines = [line.strip("│╭╰╮╯─ ") for line in said.getvalue().splitlines()]
    return f"exit code {code}: {' '.join(line for line in lines if line)[-200:]}" if code else ""
