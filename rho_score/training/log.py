"""The log of a run: a row every few steps, and the held-out losses.

Both are held in memory by rank 0 and written again, whole, with each checkpoint and at the end. A
run that goes on from a checkpoint drops the rows behind it.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rho_score.cluster import metrics
from rho_score.files.folder import Folder
from rho_score.files.parquet import parquet_bytes
from rho_score.stores.training_run import EVAL, EVAL_SCHEMA, LOG, LOG_SCHEMA, TrainingRun
from rho_score.training.events import Events


class RunLog:
    """The rows of both files."""

    def __init__(self, log: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> None:
        self.log, self.evaluations = log, evaluations
        self.events: Events | None = None
        """TensorBoard's events, on rank 0."""
        self.run = metrics.current()

    def add_row(self, row: dict[str, Any]) -> None:
        """Adds a row of `log.parquet`."""
        self.log.append(row)
        if self.events:
            self.events.add_row(row)
            self.measure()

    def measure(self) -> None:
        """Sets the gauges of the last row. Ray forgets a gauge that is not set for some seconds."""
        if self.events and self.log:
            row = self.log[-1]
            metrics.record("train_loss", row["loss"], self.run)
            metrics.record("train_tokens_per_second", row["tokens_per_second"], self.run)
            metrics.record("train_learning_rate", row["learning_rate"], self.run)

    def add_held_out(self, row: dict[str, Any]) -> None:
        """Adds a row of `eval.parquet`."""
        self.evaluations.append(row)
        if self.events:
            self.events.add_held_out(row)

    @classmethod
    def resume(cls, run: Folder, step: int) -> "RunLog":
        """The rows of a run up to a step; none at step 0."""
        if not step:
            return cls([], [])
        tables = (TrainingRun(run).log(), TrainingRun(run).evaluations())
        return cls(*([row for row in table.to_pylist() if row["step"] <= step] for table in tables))

    def write(self, run: Folder) -> None:
        """Writes both files, and the events."""
        if self.events:
            self.events.write(run)
        for name, schema, rows in ((LOG, LOG_SCHEMA, self.log), (EVAL, EVAL_SCHEMA, self.evaluations)):
            run.publish(name, parquet_bytes(pa.Table.from_pylist(rows, schema=schema), schema))

    @property
    def last(self) -> Mapping[str, Any]:
        """The last row of the log; zeros before the first one."""
        return self.log[-1] if self.log else {"tokens_seen": 0, "tokens_trained": 0, "seconds": 0.0}


def mean(total: float, count: float) -> float | None:
    """`total / count`; None without a count."""
    return total / count if count else None
