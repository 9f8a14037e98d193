"""The log of a run: a row every few steps, and the held-out losses.

Both are held in memory by rank 0 and written again, whole, with each checkpoint and at the end. A
run that goes on from a checkpoint drops the rows behind it.
"""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rho_score.files.folder import Folder
from rho_score.files.parquet import parquet_bytes, read_table

LOG, EVAL = "log.parquet", "eval.parquet"

LOG_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens_seen", pa.int64()),
        ("tokens_trained", pa.int64()),
        ("loss", pa.float64()),
        ("loss_kept", pa.float64()),
        ("loss_dropped", pa.float64()),
        ("threshold", pa.float64()),
        ("learning_rate", pa.float64()),
        ("grad_norm", pa.float64()),
        ("seconds", pa.float64()),
        ("tokens_per_second", pa.float64()),
    ]
)
"""tokens_seen: tokens read so far, without padding. tokens_trained: tokens that the loss was computed
of so far. loss, loss_kept, loss_dropped: mean loss of all targets, of those that were trained on and
of the others, nats, since the row before; null without such tokens. threshold: the mean over
micro-batches, nats; null without a rule. seconds: since the run's first start, without pauses."""

EVAL_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens_seen", pa.int64()),
        ("tokens_trained", pa.int64()),
        ("name", pa.string()),
        ("group", pa.string()),
        ("tokens", pa.int64()),
        ("loss", pa.float64()),
        ("bits_per_byte", pa.float64()),
    ]
)
"""A row for each held-out set as a whole (group is null) and for each of its groups. loss: nats a
token. bits_per_byte: null if the tokenizer does not tell the bytes of its tokens."""


class RunLog:
    """The rows of both files."""

    def __init__(self, log: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> None:
        self.log, self.evaluations = log, evaluations

    @classmethod
    def resume(cls, run: Folder, step: int) -> "RunLog":
        """The rows of a run up to a step; none at step 0."""
        if not step:
            return cls([], [])
        kept = []
        for name, schema in ((LOG, LOG_SCHEMA), (EVAL, EVAL_SCHEMA)):
            rows = read_table(run.read(name), schema, f"{run.url}/{name}").to_pylist() if run.exists(name) else []
            kept.append([row for row in rows if row["step"] <= step])
        return cls(*kept)

    def write(self, run: Folder) -> None:
        """Writes both files."""
        for name, schema, rows in ((LOG, LOG_SCHEMA, self.log), (EVAL, EVAL_SCHEMA, self.evaluations)):
            run.publish(name, parquet_bytes(pa.Table.from_pylist(rows, schema=schema), schema))

    @property
    def last(self) -> Mapping[str, Any]:
        """The last row of the log; zeros before the first one."""
        return self.log[-1] if self.log else {"tokens_seen": 0, "tokens_trained": 0, "seconds": 0.0}


def mean(total: float, count: float) -> float | None:
    """`total / count`; None without a count or if it is not a number."""
    if not count:
        return None
    found = total / count
    return None if math.isnan(found) else found
