"""The score set: the loss of every token of a corpus under one model, or a value in place of the loss."""

from collections.abc import Iterator

import pyarrow as pa

from rho_score.corpus.columns import Columns
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import read_table, readable
from rho_score.stores import unit_file
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import data_name, quarantine_name, quarantined_units
from rho_score.stores.schema import QUARANTINE
from rho_score.stores.store import Store

WITHOUT = "documents_without_values"
"""The field of `_SUCCESS.json` and of footers that a set of imported values has."""


def quarantined_documents(folder: Folder, n_units: int) -> Iterator[tuple[str, str]]:
    """Yields (doc_id, reason) of quarantined documents, from the first `n_units` units with any."""
    for unit in sorted(quarantined_units(folder))[:n_units]:
        name = quarantine_name(unit)
        for row in read_table(folder.read(name), QUARANTINE, f"{folder.url}/{name}").to_pylist():
            yield row["doc_id"], row["reason"]


class ScoreSet(Store):
    """One corpus scored by one model, or the values that were made or imported for its tokens.

    The columns of a unit are doc_id, group (if the corpus has groups), input_ids and loss. A loss is
    in nats if `in_nats`.
    """

    kind = "score set"

    def unit_parts(self, unit: str, columns: list[str]) -> tuple[JsonObject, Iterator[pa.Table]]:
        """The metadata in a unit's footer, and its rows in parts of about a million tokens.

        See `unit_file.parts`, also for the errors.
        """
        return unit_file.parts(self._file(unit), columns)

    @property
    def columns(self) -> Columns:
        """The columns of the corpus that was scored."""
        parts = self.manifest["parts"]
        text, doc_id, group = (parts.get(name) for name in ("text_column", "id_column", "group_column"))
        kind, rejected = parts.get("content_kind", "text"), parts.get("rejected_column")
        context, split_at = parts.get("context_column"), parts.get("split_at")
        return Columns(text or "", doc_id, group, context=context, kind=kind, rejected=rejected, split_at=split_at)

    @property
    def held(self) -> dict[str, int]:
        """How many documents and tokens are scored. `score --only-quarantined` changes both."""
        return {name: self.summary[name] for name in ("scored", "tokens")}

    @property
    def loss_bits(self) -> int:
        """Bits of the stored losses: 16 if they are rounded to float16, else 32."""
        return 32 if self.manifest["parts"].get("precision") == "float32" else 16

    @property
    def context_hidden(self) -> bool:
        """True if the model did not see what is before the tokens that count (`--hide-context`)."""
        return bool(self.manifest["parts"].get("context_hidden"))

    @property
    def holds(self) -> str:
        """What the scores are: losses in nats, divergences, or imported values of another unit."""
        if not self.in_nats:
            return "imported values of another unit"
        return "divergences" if self.score_label == "divergence" else "losses in nats"

    @property
    def score_column(self) -> str:
        """The column with the tokens' scores: "loss"."""
        return "loss"


def require_nats(scores: ScoreSet, what: str) -> None:
    """Raises InputError unless the scores are in nats. what: what needs them, for the message."""
    if not scores.in_nats:
        raise InputError(
            f"{what} needs losses in nats, but {scores.folder.url} holds imported values of another unit (--unit other)."
        )


def require_losses(scores: ScoreSet, what: str) -> None:
    """Raises InputError unless the scores are losses in nats. what: what needs them, for the message."""
    require_nats(scores, what)
    if scores.holds == "divergences":
        raise InputError(
            f"{what} needs losses, but {scores.folder.url} holds divergences of two models (rho-score kl)."
        )


def require_context(scores: ScoreSet, what: str) -> None:
    """Raises InputError if the model did not see the context. what: what needs that, for the message."""
    if scores.context_hidden:
        raise InputError(
            f"{what} needs the losses of tokens behind their context, but {scores.folder.url} was made with --hide-context."
        )


def score_counts_of(folder: Folder, unit: str, metadata: JsonObject) -> ScoreCounts:
    """The counts in the footer of a score set's unit; raises RhoScoreError if it is damaged."""
    with readable(folder, data_name(unit)):
        return ScoreCounts.of(metadata["accounts"])
