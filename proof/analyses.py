"""The paper's own analyses, on runs of the proof, by the commands `score`, `select`, `dynamics` and `losses`.

They look at a held-out sample of each main condition's corpus, which no model was trained on.
"""

import csv
import json
import math
import os
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from demo.command import rho_score
from proof.corpora import Corpora
from proof.grid import Grid, Rates, Run
from proof.pool import Meter, Piece, logged, run_all, total
from proof.sizes import DOCUMENTS, LIVE, Condition
from rho_score.cluster.ray_cluster import cluster
from rho_score.ranking.trends import CATEGORIES
from rho_score.stores.counts import group_counts_in
from rho_score.stores.selection import Selection

SCHEMA = pa.schema(
    [
        ("analysis", pa.string()),
        ("condition", pa.string()),
        ("arm", pa.string()),
        ("series", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
    ]
)
"""A row for each number.

auc        how well a score tells clean tokens from noise before any training. series: the score
documents  tokens of a selection of documents. series: target, languages or code; value: share of those kept
dynamics   share of the sample's tokens. arm: of the run whose checkpoints were scored; series: the category
kept       mean loss, nats. series: kept or dropped, by the excess at the first checkpoint of `all`; step: the checkpoint
perplexity of the tokens that a checkpoint selects. series: that checkpoint's step; step: the checkpoint it is measured at
"""
WATCHED = ("all", LIVE)


class Analyses:
    """The analyses of a proof's main conditions."""

    def __init__(self, corpora: Corpora, grid: Grid, workers: int) -> None:
        self.corpora, self.grid, self.workers = corpora, grid, workers
        self.folder, self.size = grid.folder, grid.size
        self.rows: list[dict[str, object]] = []

    def run(self, rates: Rates) -> pa.Table:
        """Everything that is not done, and the table of all numbers, see `SCHEMA`."""
        for condition in (*self.size.main, *self.size.others):
            self._selections(condition)
        if self.size.analyses:
            pieces = [self._watched(c, arm, rates) for c in self.size.main for arm in WATCHED]
            run_all(pieces, Meter(total(pieces)), self.workers, lambda piece: piece.done.parent.name)
            with cluster(local_cpus=(os.cpu_count() or 1) + 2):
                for condition in self.size.main:
                    print(f"looking at the checkpoints of {condition.name}", flush=True)
                    with logged(self.folder / f"logs/analyses/{condition.name}.txt"):
                        self._look(condition)
        return pa.Table.from_pylist(self.rows, schema=SCHEMA)

    def _add(self, analysis: str, condition: Condition, arm: str, series: str, step: int, value: float) -> None:
        row = dict(zip(SCHEMA.names, (analysis, condition.name, arm, series, step, value), strict=True))
        self.rows.append(row)

    def _selections(self, condition: Condition) -> None:
        """What is known before any training."""
        groups = group_counts_in(Selection.open(self.grid.selection(DOCUMENTS, condition)).summary)
        for group, counts in groups.items():
            self._add("documents", condition, "", str(group), 0, counts.share_kept)
        if condition.noise:
            oracle = self.corpora.oracle(condition)
            places = (self.grid.scores("reference", condition), self.grid.scores("base", condition))
            for series, value in oracle.auc(*places).items():
                self._add("auc", condition, "", series, 0, value)

    def _watched(self, condition: Condition, arm: str, rates: Rates) -> Piece:
        """A run that keeps its checkpoints."""
        tokens = self.grid.budgets()[-1]
        run = Run(condition, arm, tokens, 0, rates[condition.regime, arm, tokens])
        place = self.folder / f"watched/{condition.name}/{arm}"
        every = max(1, tokens // self.size.batch // self.size.checkpoints)
        command = self.grid.train(run, output=place, save_every=every) + " --keep 0"
        return Piece(command, self.folder / f"logs/watched/{condition.name}-{arm}.txt", tokens, place / "_SUCCESS.json")

    def _look(self, condition: Condition) -> None:
        folder = self.folder / f"analyses/{condition.name}"
        sample = self.corpora.sample(condition)
        sets: dict[str, dict[int, str]] = {}
        self._score(sample, f"{folder}/scores/reference", self.folder / "runs/reference/model")
        for arm in WATCHED:
            checkpoints = sorted((self.folder / f"watched/{condition.name}/{arm}/checkpoints").iterdir())
            sets[arm] = {int(c.name.split("-")[1]): f"{folder}/scores/{arm}-{c.name}" for c in checkpoints}
            for place, checkpoint in zip(sets[arm].values(), checkpoints, strict=True):
                self._score(sample, place, checkpoint)
            self._dynamics(condition, arm, folder, sets[arm])
        first = next(iter(sets["all"].values()))
        self._select(folder, "kept", first)
        for arm in WATCHED:
            scores = " ".join(f"--scores {step}={place}" for step, place in sets[arm].items())
            rho_score(f"losses kept={folder}/selections/kept {scores} --csv {folder}/kept-{arm}.csv")
            for row in self._table(folder / f"kept-{arm}.csv"):
                for series in ("kept", "dropped"):
                    self._add("kept", condition, arm, series, int(row["scores"]), float(row[f"loss_{series}"]))
        for step, place in sets[LIVE].items():
            self._select(folder, str(step), place)
        selections = " ".join(f"{step}={folder}/selections/{step}" for step in sets[LIVE])
        scores = " ".join(f"--scores {step}={place}" for step, place in sets[LIVE].items())
        rho_score(f"losses {selections} {scores} --csv {folder}/perplexity.csv")
        for row in self._table(folder / "perplexity.csv"):
            value = math.exp(float(row["loss_kept"]))
            self._add("perplexity", condition, LIVE, row["selection"], int(row["scores"]), value)

    def _score(self, sample: Path, output: str, model: Path) -> None:
        if not Path(output, "_SUCCESS.json").exists():
            rho_score(self.grid.score(str(sample), output, str(model)))

    def _dynamics(self, condition: Condition, arm: str, folder: Path, sets: dict[int, str]) -> None:
        output = folder / f"dynamics-{arm}"
        steps = " ".join(map(str, sets))
        rho_score(f"dynamics {output} --scores {' '.join(sets.values())} --steps {steps}")
        counts = orjson.loads((output / "summary.json").read_bytes())["categories"]
        sums = {category: sum(row[category] for row in counts) for category in CATEGORIES}
        for category, n in sums.items():
            self._add("dynamics", condition, arm, category, 0, n / sum(sums.values()))

    def _select(self, folder: Path, name: str, base: str) -> None:
        rho_score(f"select {folder}/selections/{name} --ref {folder}/scores/reference --base {base} --ratio 0.3")

    @staticmethod
    def _table(path: Path) -> list[dict[str, str]]:
        with path.open(newline="") as file:
            return [row for row in csv.DictReader(file) if row["documents"] == "all"]


def write(folder: Path, results: pa.Table, analyses: pa.Table, about: dict[str, object]) -> None:
    """Writes the numbers, and what they were made with, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(results, folder / "results.parquet", compression="zstd")
    pq.write_table(analyses, folder / "analyses.parquet", compression="zstd")
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")
