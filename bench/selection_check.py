"""The masks that `rho-score select` writes, bit for bit beside a full sort of the stored scores, ties included."""

import contextlib
import io
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from bench.score_sets import Sets
from rho_score.cli.entry import main as rho_score
from rho_score.corpus.plan import read_plan
from rho_score.ranking.sampling import uniforms

THRESHOLD = 0.25
BATCH_TOKENS = 100_000
SEED = 7
TEMPERATURE = 0.5
QUOTAS = {"web": 0.5, "books": 1_000_000, "law": 10**9, "*": 0.1}


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

    def losses(self, store: str) -> np.ndarray:
        """Of every token, float32[n_tokens]; NaN where there is none."""
        return np.concatenate(
            [c.combine_chunks().flatten().to_numpy(zero_copy_only=False) for c in self.column(store, "loss")]
        )

    def excess(self, ref: np.ndarray) -> np.ndarray:
        """base - ref, rounded to float16, float32[n_tokens]."""
        rounded: np.ndarray = (self.losses(self.sets.base) - ref).astype(np.float16).astype(np.float32)
        return rounded + np.float32(0)  # -0.0 is 0.0

    @cached_property
    def scores(self) -> np.ndarray:
        """Excess loss over the first reference."""
        return self.excess(self.losses(self.sets.ref))

    @cached_property
    def experts(self) -> tuple[np.ndarray, np.ndarray]:
        """Losses of both references."""
        return self.losses(self.sets.ref), self.losses(self.sets.second)

    @cached_property
    def noise(self) -> np.ndarray:
        """The uniform number of each token that the seed gives, float64[n_tokens]."""
        doc_ids = [doc_id for c in self.column(self.sets.ref, "doc_id") for doc_id in c.to_pylist()]
        return uniforms(f"{SEED}/", doc_ids, self.lengths)

    @cached_property
    def n_bytes(self) -> np.ndarray:
        """UTF-8 bytes of each token, int64[n_tokens]: a byte-level vocabulary writes each byte as one character."""
        spec = json.loads((Path(self.sets.ref) / "tokenizer" / "tokenizer.json").read_text())
        sizes = {i: len(piece) for piece, i in spec["model"]["vocab"].items()}
        sizes |= {spec["model"]["vocab"][unknown]: 1 for unknown in [spec["model"]["unk_token"]] if unknown}
        table = np.array([sizes[i] for i in range(len(sizes))])
        ids = [c.combine_chunks().flatten().to_numpy() for c in self.column(self.sets.ref, "input_ids")]
        found: np.ndarray = table[np.concatenate(ids)]
        return found

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
        groups: np.ndarray = np.unique(self._names, return_inverse=True)[1][self.owners]
        return groups

    @cached_property
    def group_names(self) -> list[str]:
        """By number."""
        return [str(name) for name in np.unique(self._names)]

    @cached_property
    def _names(self) -> np.ndarray:
        return np.concatenate([c.to_numpy().astype(str) for c in self.column(self.sets.ref, "group")])

    @cached_property
    def batches(self) -> np.ndarray:
        """Number of each token's run of `BATCH_TOKENS` consecutive tokens of its unit."""
        runs, first = [], 0
        for lengths in self.unit_lengths:
            runs.append(np.arange(lengths.sum()) // BATCH_TOKENS + first)
            first = int(runs[-1][-1]) + 1
        return np.concatenate(runs)

    def per_document(self, values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Sum of `values` over each document's scored tokens, by their number or the sum of their `weights`; NaN without any.

        Rounded to float16. The sums are exact in float64.
        """
        scored = ~np.isnan(self.scores)
        sums = np.bincount(self.owners[scored], values[scored].astype(np.float64), len(self.lengths))
        over = None if weights is None else weights[scored]
        with np.errstate(invalid="ignore"):
            means = sums / np.bincount(self.owners[scored], over, len(self.lengths))
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


def band(scores: np.ndarray, first: int, count: int) -> np.ndarray:
    """Ranks first to first + count, bool[n]."""
    mask = np.zeros(len(scores), bool)
    mask[ranked(scores)[first : first + count]] = True
    return mask


def within(
    corpus: Corpus, parts: np.ndarray, ratio: float | np.ndarray, drop: float = 0.0, budgets: np.ndarray | None = None
) -> np.ndarray:
    """The best `ratio` of each part's scored tokens, after its best `drop`. parts: int64[n_tokens]. budgets: tokens instead."""
    order = ranked(corpus.scores)
    order = order[np.argsort(parts[order], kind="stable")]  # part by part, each in rank order
    counts = np.bincount(parts[order])
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    mask = np.zeros(len(corpus.scores), bool)
    first, count = np.rint(drop * counts), np.rint(ratio * counts)  # halves to even, as Python rounds
    count = count if budgets is None else budgets
    owner = parts[order]
    mask[order[(rank >= first[owner]) & (rank < (first + count)[owner])]] = True
    return mask


def quotas(corpus: Corpus) -> np.ndarray:
    """Each group's own share or number of tokens."""
    counts = np.bincount(corpus.token_groups[~np.isnan(corpus.scores)])
    given = [QUOTAS.get(name, QUOTAS["*"]) for name in corpus.group_names]
    budgets = [quota if isinstance(quota, int) else round(quota * n) for quota, n in zip(given, counts, strict=True)]
    return within(corpus, corpus.token_groups, 0.0, budgets=np.array(budgets))


def documents(corpus: Corpus, scores: np.ndarray, ratio: float) -> np.ndarray:
    """The tokens of the best `ratio` of the documents that have a score. scores: of documents."""
    mask: np.ndarray = band(scores, 0, round(ratio * int(np.count_nonzero(~np.isnan(scores)))))[corpus.owners]
    return mask


def documents_by_budget(corpus: Corpus, n_tokens: int) -> np.ndarray:
    """Documents in rank order up to the first that does not fit the budget."""
    order = ranked(corpus.per_document(corpus.scores))
    fits = np.cumsum(corpus.lengths[order]) <= n_tokens
    kept: np.ndarray = np.zeros(len(corpus.lengths), bool)
    kept[order[fits]] = True
    mask: np.ndarray = kept[corpus.owners]
    return mask


def kept_shares(corpus: Corpus, ratio: float) -> np.ndarray:
    """Share of each document's scored tokens that reach the score of the last of the best `ratio` of all."""
    order = ranked(corpus.scores)
    last = corpus.scores[order[round(ratio * corpus.n) - 1]]
    return corpus.per_document(corpus.scores >= last)


def drawn(corpus: Corpus, ratio: float, temperature: float | None) -> np.ndarray:
    """The share of the tokens with the largest noise, or score over temperature plus Gumbel noise, in float32."""
    noise = corpus.noise
    if temperature is not None:
        noise = corpus.scores.astype(np.float64) / temperature - np.log(-np.log(noise))
    ranking: np.ndarray = np.where(np.isnan(corpus.scores), np.nan, noise).astype(np.float32)
    return band(ranking, 0, round(ratio * corpus.n))


def long_runs(corpus: Corpus, mask: np.ndarray, n: int) -> np.ndarray:
    """Tokens that are in some window of `n` kept tokens of one document."""
    ends = np.cumsum(corpus.lengths)[corpus.owners]
    whole: np.ndarray = np.arange(len(mask)) + n <= ends  # a window that begins here is of one document
    for i in range(n):
        whole[: len(mask) - i] &= mask[i:]
    found = np.zeros(len(mask), bool)
    for i in range(n):
        found[i:] |= whole[: len(mask) - i]
    return found


def union(corpus: Corpus, ratios: Sequence[float]) -> np.ndarray:
    """What any reference keeps, each its share."""
    each = zip(corpus.experts, ratios, strict=True)
    masks = [band(corpus.excess(ref), 0, round(ratio * corpus.n)) for ref, ratio in each]
    kept: np.ndarray = masks[0] | masks[1]
    return kept


def rules(corpus: Corpus) -> dict[str, Callable[[], np.ndarray]]:
    """Arguments of the command, and the mask that a full sort gives."""
    n, budget, scores = corpus.n, corpus.n // 3, corpus.scores
    best, dropped = round(0.6 * n), round(0.05 * n)
    by_quota = " ".join(f"--quota {name}={quota}" for name, quota in QUOTAS.items())
    sample = f"--ratio 0.3 --seed {SEED} --sample"
    return {
        "--ratio 0.6": lambda: band(scores, 0, best),
        f"--tokens {budget}": lambda: band(scores, 0, budget),
        f"--threshold {THRESHOLD}": lambda: scores >= THRESHOLD,
        "--ratio 0.6 --per-group": lambda: within(corpus, corpus.token_groups, 0.6),
        by_quota: lambda: quotas(corpus),
        "--ratio 0.6 --drop-top 0.05": lambda: band(scores, dropped, best),
        f"--tokens {budget} --drop-top 0.05": lambda: band(scores, dropped, budget),
        "--ratio 0.6 --per-group --drop-top 0.05": lambda: within(corpus, corpus.token_groups, 0.6, 0.05),
        "--ratio 0.6 --min-run 3": lambda: long_runs(corpus, band(scores, 0, best), 3),
        "--ratio 0.6 --level document": lambda: documents(corpus, corpus.per_document(scores), 0.6),
        f"--tokens {budget} --level document": lambda: documents_by_budget(corpus, budget),
        "--ratio 0.6 --level document --document-score per-byte": lambda: documents(
            corpus, corpus.per_document(scores, corpus.n_bytes), 0.6
        ),
        "--ratio 0.6 --level document --document-score kept-share --token-ratio 0.4": lambda: documents(
            corpus, kept_shares(corpus, 0.4), 0.6
        ),
        "--ratio 0.6 --scope document": lambda: within(corpus, corpus.owners, 0.6),
        f"--ratio 0.6 --scope batch --batch-tokens {BATCH_TOKENS}": lambda: within(corpus, corpus.batches, 0.6),
        f"{sample} random": lambda: drawn(corpus, 0.3, None),
        f"{sample} gumbel --temperature {TEMPERATURE}": lambda: drawn(corpus, 0.3, TEMPERATURE),
        "--ratio 0.6 --combine min": lambda: band(corpus.excess(np.minimum(*corpus.experts)), 0, best),
        "--ratio 0.6 --combine mean": lambda: band(corpus.excess(np.add(*corpus.experts) / np.float32(2)), 0, best),
        "--ratio 0.3 --combine union --share one=0.4": lambda: union(corpus, (0.4, 0.3)),
    }


def check(sets: Sets, out: Path) -> Iterator[tuple[str, str, str]]:
    """A row a rule: the arguments, tokens kept by the command and by the sort, whether the masks are equal."""
    corpus = Corpus(sets)
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)
    try:
        for arguments, oracle in rules(corpus).items():
            print(f"  {arguments} …", file=sys.stderr, flush=True)
            shutil.rmtree(out, ignore_errors=True)
            refs = [f"one={sets.ref}", f"two={sets.second}"] if "--combine" in arguments else [sets.ref]
            given = [word for ref in refs for word in ("--ref", ref)]
            if problem := _select(["select", *given, "--base", sets.base, str(out), *arguments.split()]):
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
