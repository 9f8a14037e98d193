"""The training run: what a model was trained on, its log, and its held-out losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import read_table
from rho_score.stores.layout import SUCCESS
from rho_score.stores.manifest import read_manifest

MODEL, LOG, EVAL = "model", "log.parquet", "eval.parquet"

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
"""tokens_seen: tokens of documents that were read so far, trained on or not. tokens_trained: those
that were trained on. loss, loss_kept, loss_dropped: mean loss of all tokens whose loss was computed,
of those that were trained on and of the others, nats, since the row before; null without such
tokens. With --selection, the losses of tokens outside the mask are not computed. threshold: the mean over
micro-batches, nats; null without a rule. grad_norm: before it is clipped. seconds: of training since
the run's first start, without pauses and evaluations."""

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


@dataclass(frozen=True)
class TrainingRun:
    """The folder of a training run."""

    folder: Folder

    @classmethod
    def open(cls, url: str) -> "TrainingRun":
        """Opens a run, finished or not.

        Raises:
            InputError: there is no training run at `url`.
        """
        run = cls(Folder(url))
        if run.manifest["kind"] != "training run":
            raise InputError(f"{url} holds another kind of store ({run.manifest['kind']}, not a training run).")
        return run

    @cached_property
    def manifest(self) -> JsonObject:
        """The manifest: kind, fingerprint, the parts it is made of, the model, the data."""
        return read_manifest(self.folder)

    @cached_property
    def finished(self) -> bool:
        """True if the model is written."""
        return self.folder.exists(SUCCESS)

    def log(self) -> pa.Table:
        """The rows of the log so far, see `LOG_SCHEMA`; they are written with each checkpoint."""
        return self._table(LOG, LOG_SCHEMA)

    def evaluations(self) -> pa.Table:
        """The held-out losses so far, see `EVAL_SCHEMA`."""
        return self._table(EVAL, EVAL_SCHEMA)

    def last_losses(self) -> dict[str, float]:
        """The losses of the held-out sets as wholes at the last evaluation, nats a token, by name."""
        rows = self.evaluations().to_pylist()
        last = max((row["step"] for row in rows), default=0)
        return {row["name"]: row["loss"] for row in rows if row["step"] == last and row["group"] is None}

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        if not self.folder.exists(name):
            return schema.empty_table()
        return read_table(self.folder.read(name), schema, f"{self.folder.url}/{name}")


class HeldOutLoss(NamedTuple):
    """The loss of a held-out set, or of one of its groups, at the first and at the last evaluation."""

    name: str
    """The set's name, and the group's."""
    before: float | None
    """Nats a token; None if it was not there at the first evaluation."""
    last: Mapping[str, Any]
    """The row of the last evaluation."""


def before_and_after(rows: Sequence[Mapping[str, Any]]) -> list[HeldOutLoss]:
    """What a run changed of its held-out losses, from its rows of `EVAL_SCHEMA`."""
    steps = [row["step"] for row in rows]
    first = {held_out_name(row): row["loss"] for row in rows if row["step"] == min(steps)}
    last = [row for row in rows if row["step"] == max(steps)]
    return [HeldOutLoss(held_out_name(row), first.get(held_out_name(row)), row) for row in last]


def held_out_name(row: Mapping[str, Any]) -> str:
    """What a row of `EVAL_SCHEMA` is about: a set, or a group of it."""
    return str(row["name"] if row["group"] is None else f"{row['name']}, {row['group']}")
