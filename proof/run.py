"""`make proof`: trains every arm of the proof by the project's own commands, and writes what came out.

It can be stopped at any moment; the same command goes on.
"""

import argparse
import datetime
import importlib.metadata
import os
import time
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import torch

from bench.selection import machine
from demo.command import rho_score
from proof.analyses import Analyses, write
from proof.corpora import Corpora
from proof.grid import RATE, Grid, Run, parameters
from proof.page import Page
from proof.pool import Meter, Piece, logged, run_all, total
from proof.published import PUBLISHED, compare
from proof.results import Results
from proof.sizes import BYTES, DOCUMENTS, ORACLE, SIZES, STORED, Condition, Size
from rho_score.cluster.ray_cluster import cluster

MADE_WITH = ("torch", "transformers", "sympy", "networkx", "mpmath")


class Proof:
    """A proof in a folder."""

    def __init__(self, folder: Path, size: Size, workers: int) -> None:
        self.folder, self.size, self.workers = folder, size, workers
        self.corpora, self.grid = Corpora(folder, size), Grid(folder, size)
        self.conditions = (*size.main, *size.others)
        self.results = Results(self.grid)
        self.clock = Clock(folder / "seconds")

    def run(self) -> None:
        """Everything, in order; what is done already is left out."""
        print(f"1. real text, under {self.folder}/texts", flush=True)
        self.corpora.build(self.conditions)
        _ = self.corpora.tokenizer
        if self.size.analyses:
            self.corpora.weaker()
            self.corpora.other_words()
        foreseen = self._pieces(self.grid.tuning()) + self._pieces(self.grid.runs(defaultdict(lambda: RATE)))
        plain = self._plain_pieces()
        meter = Meter(total(plain) + total(foreseen))
        print("2. references, and a base model for each corpus", flush=True)
        run_all(plain, meter, self.workers, lambda piece: piece.command.split()[2])
        print("3. scores and selections", flush=True)
        self.prepare()
        print("4. learning rates", flush=True)
        run_all(self._pieces(self.grid.tuning()), meter, self.workers, self._tell)
        self.results.tune()
        print("5. the runs", flush=True)
        run_all(self._pieces(self.grid.runs(self.results.rates)), meter, self.workers, self._tell)
        print("6. what happens during training", flush=True)
        analyses = Analyses(self.corpora, self.grid, self.workers).run(self.results.rates)
        results, table = self.folder / "results", self.results.table()
        write(results, table, analyses, self._about())
        Page(results).write(self.folder / "proof.md", self.folder / "proof")
        print(f"wrote {self.folder / 'proof.md'} and {results}")
        if (PUBLISHED / "results.parquet").exists():
            print(compare(table, pq.read_table(PUBLISHED / "results.parquet")))

    def _about(self) -> dict[str, object]:
        """What the numbers were made with."""
        versions = [f"{name} {importlib.metadata.version(name)}" for name in MADE_WITH]
        return {
            "size": next(name for name, size in SIZES.items() if size == self.size),
            "parameters": parameters(self.folder / "model"),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine().split(";")[0],  # versions stand below
            "workers": self.workers,
            "hours": self.clock.seconds() / 3600,
            "versions": ", ".join(versions),
        }

    def _tell(self, piece: Piece) -> str:
        run = piece.done.parent
        row = self.results.held_out(run)
        self.clock.seconds()
        return f"{run.relative_to(self.folder / 'runs')}: test loss {row['test']:.4f}"

    def _pieces(self, runs: list[Run]) -> list[Piece]:
        found = []
        for run in runs:
            place = self.folder / run.name
            log = self.folder / f"logs/{run.name}.txt"
            found.append(Piece(self.grid.train(run), log, run.tokens, place / "_SUCCESS.json"))
        return found

    def _plain_pieces(self) -> list[Piece]:
        """References, and a base model for each condition."""
        models = {"reference": "model"}
        if self.size.analyses:
            models |= {"weak": "model-weak", "other-words": "model-other-words"}
        found = [(name, self.grid.text("reference"), model, self.size.reference) for name, model in models.items()]
        found += [
            (f"base/{c.name}", self.grid.text(f"corpora/{c.name}"), "model", self.size.base * self.size.batch)
            for c in self.conditions
        ]
        return [
            Piece(
                self.grid.plain(name, text, model=model, tokens=tokens),
                self.folder / f"logs/runs/{name}.txt",
                tokens,
                self.folder / f"runs/{name}/_SUCCESS.json",
            )
            for name, text, model, tokens in found
        ]

    def prepare(self) -> None:
        """Scores every corpus, and makes the selections."""
        todo = [condition for condition in self.conditions if not self._done(condition).exists()]
        if not todo:
            return
        with cluster(local_cpus=(os.cpu_count() or 1) + 2):
            for condition in todo:
                print(f"scoring {condition.name}", flush=True)
                with logged(self.folder / f"logs/scores/{condition.name}.txt"):
                    self._prepare(condition)
                self._done(condition).touch()

    def _done(self, condition: Condition) -> Path:
        return self.folder / f"scores/{condition.name}.done"

    def _prepare(self, condition: Condition) -> None:
        grid, corpus = self.grid, self.grid.text(f"corpora/{condition.name}")
        main = condition in self.size.main and self.size.analyses
        models = {"reference": "reference", "base": f"base/{condition.name}"}
        models |= {"weak": "weak", "other-words": "other-words"} if main else {}
        for name, run in models.items():
            rho_score(grid.score(corpus, grid.scores(name, condition), f"{self.folder}/runs/{run}/model"))
        scored = {name: grid.scores(name, condition) for name in (*models, "oracle")}
        both = f"--ref {scored['reference']} --base {scored['base']}"
        rho_score(f"select {grid.selection(STORED, condition)} {both} --ratio 0.3")
        n_tokens = round(condition.documents * self.size.corpus)
        rho_score(f"select {grid.selection(DOCUMENTS, condition)} {both} --level document --tokens {n_tokens}")
        if main:
            rho_score(
                f"select {grid.selection(BYTES, condition)} --ref {scored['other-words']} --base {scored['base']} "
                "--align bytes --ratio 0.3"
            )
        if condition.noise:
            if not Path(scored["oracle"]).exists():
                self.corpora.oracle(condition).write_scores(scored["reference"], Path(scored["oracle"]))
            rho_score(f"select {grid.selection(ORACLE, condition)} --ref {scored['oracle']} --threshold 0.5")


class Clock:
    """The seconds that a proof took, over all its starts."""

    def __init__(self, path: Path) -> None:
        self._path, self._started = path, time.monotonic()
        self._before = float(path.read_text()) if path.exists() else 0.0

    def seconds(self) -> float:
        """The seconds so far, which are also written."""
        total = self._before + time.monotonic() - self._started
        self._path.write_text(f"{total:.0f}")
        return total


def main() -> None:
    """Run a proof."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--output", type=Path, default=None, help="by default out/proof, or out/proof-SIZE")
    parser.add_argument(
        "--workers", type=int, help="processes, each with one thread; by default one for each core, or GPU"
    )
    options = parser.parse_args()
    if options.size == "gpu" and not torch.cuda.is_available():
        print("skipped: the proof with SmolLM2-135M needs a GPU, and PyTorch finds none here")
        return
    folder = options.output or Path("out") / ("proof" if options.size == "full" else f"proof-{options.size}")
    workers = options.workers or (torch.cuda.device_count() if options.size == "gpu" else os.cpu_count()) or 1
    Proof(folder.absolute(), SIZES[options.size], workers).run()


if __name__ == "__main__":
    main()
