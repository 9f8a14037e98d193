"""What came out of the runs of a proof."""

from collections import defaultdict
from pathlib import Path

import orjson
import pyarrow as pa

from proof.grid import Grid, Run
from rho_score.files.folder import Folder
from rho_score.stores.training_run import TrainingRun

SCHEMA = pa.schema(
    [
        ("condition", pa.string()),
        ("arm", pa.string()),
        ("budget", pa.int64()),
        ("seed", pa.int64()),
        ("rate", pa.float64()),
        ("tuning", pa.bool_()),
        ("tokens_seen", pa.int64()),
        ("tokens_trained", pa.int64()),
        ("test", pa.float64()),
        ("validation", pa.float64()),
        ("others", pa.float64()),
        ("flops_training", pa.float64()),
        ("flops_before", pa.float64()),
    ]
)
"""A row for each run. budget: tokens to read. tuning: True if it chose a learning rate. test,
validation, others: held-out losses at the end, nats a token. flops_before: of the reference, the
base model and their scores."""


class Results:
    """Reads the runs of a grid."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.rates: dict[tuple[str, str, int], float] = {}
        """The learning rate of each arm, by regime, arm and budget."""

    def held_out(self, run: Path) -> dict[str, float]:
        """The losses of the held-out sets at the end of a run, nats a token."""
        return TrainingRun(Folder(str(run))).last_losses()

    def tune(self) -> None:
        """Takes the learning rate with the lowest validation loss, for each regime, arm and budget.

        A budget that was not tuned takes the rate of the next longer one that was.
        """
        found: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
        for run in self.grid.tuning():
            loss = self.held_out(self.grid.folder / run.name)["validation"]
            found[run.condition.regime, run.arm, run.tokens].append((loss, run.rate))
        self.rates = {of: min(tried)[1] for of, tried in found.items()}
        for condition in (*self.grid.size.main, *self.grid.size.others):
            for arm in self.grid.arms(condition):
                for tokens in self.grid.budgets_of(condition):
                    tuned = min((t for t in self.grid.tuned if t >= tokens), default=tokens)
                    rate = self.rates.get((condition.regime, arm, tuned), self.grid.size.rates[-1])
                    self.rates.setdefault((condition.regime, arm, tokens), rate)

    def table(self) -> pa.Table:
        """A row for each run that is finished, see `SCHEMA`."""
        counts = orjson.loads((self.grid.folder / "texts/counts.json").read_bytes())
        runs = [(run, True) for run in self.grid.tuning()] + [(run, False) for run in self.grid.runs(self.rates)]
        return pa.Table.from_pylist(
            [
                self._row(run, tuning, counts[run.condition.name])
                for run, tuning in runs
                if (self.grid.folder / run.name / "_SUCCESS.json").exists()
            ],
            schema=SCHEMA,
        )

    def _row(self, run: Run, tuning: bool, n_corpus: int) -> dict[str, object]:
        place = self.grid.folder / run.name
        totals = orjson.loads((place / "_SUCCESS.json").read_bytes())
        cost = self.grid.cost(run, totals["tokens_seen"], n_corpus)
        return {
            "condition": run.condition.name,
            "arm": run.arm,
            "budget": run.tokens,
            "seed": run.seed,
            "rate": run.rate,
            "tuning": tuning,
            "tokens_seen": totals["tokens_seen"],
            "tokens_trained": totals["tokens_trained"],
            **self.held_out(place),
            "flops_training": cost.training,
            "flops_before": cost.before,
        }
