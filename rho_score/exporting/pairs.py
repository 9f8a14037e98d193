"""Writes preference pairs with the log-probabilities of a reference, as TRL's DPOTrainer needs them."""

from collections.abc import Iterator

import numpy as np
import orjson
import pyarrow as pa

from rho_score.corpus.columns import Columns, value_at
from rho_score.corpus.content import without_nulls
from rho_score.corpus.units import Unit
from rho_score.corpus.whole_rows import jsonl_rows
from rho_score.exporting.counts import ExportCounts
from rho_score.exporting.original_rows import Corpus, scored_places
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.stores.score_set import ScoreSet


def pair_rows(
    corpus: Corpus, scores: ScoreSet, unit: Unit, margins: tuple[float, float]
) -> tuple[Iterator[bytes], ExportCounts]:
    """The pairs of a unit as lines of JSON, and the counts of their responses.

    A line is the row of the corpus with `prompt` (unless it is what both responses begin with),
    `chosen`, `rejected`, and the sums of the log-probabilities of both responses, `ref_chosen_logps`
    and `ref_rejected_logps`, in nats. A pair of which one response was quarantined is left out.

    margins: the smallest and the largest difference of the two sums that is written.

    Raises:
        RhoScoreError: the shard has changed, or its rows are not those of the score set.
    """
    table = scores.unit_table(unit.unit, ["doc_id", "input_ids", "loss"])
    places = scored_places(corpus, table["doc_id"].to_pylist(), unit).reshape(-1, 2)
    (logps, n_losses), lengths = _sums(table), list_lengths(table["input_ids"])
    whole = (places >= 0).all(axis=1)
    chosen, rejected = (np.append(logps, np.nan)[column] for column in places.T)  # the place -1 has none
    keep = whole & (chosen - rejected >= margins[0]) & (chosen - rejected <= margins[1])
    n_tokens = int(lengths[places[keep]].sum())
    n_trained = int(n_losses[places[keep]].sum())
    counts = ExportCounts(
        documents=len(table),
        documents_exported=2 * int(keep.sum()),
        tokens=int(lengths.sum()),
        tokens_exported=n_tokens,
        tokens_kept=n_trained,
        tokens_written=n_tokens,
        tokens_trained=n_trained,
    )
    rows = jsonl_rows(corpus.root, unit, keep)
    return (
        _line(row, corpus.columns, float(chosen[i]), float(rejected[i]))
        for row, i in zip(rows, np.flatnonzero(keep), strict=True)
    ), counts


def _sums(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each document's log-probabilities, nats, float64[n_docs], and how many tokens have one, int64[n_docs]."""
    documents = np.repeat(np.arange(len(table)), list_lengths(table["loss"]))
    losses = as_numpy(flat_values(table["loss"])).astype(np.float64)
    has_loss = ~np.isnan(losses)
    logps = -np.bincount(documents[has_loss], losses[has_loss], len(table))
    return logps, np.bincount(documents[has_loss], minlength=len(table))


def _line(row: bytes, columns: Columns, chosen: float, rejected: float) -> bytes:
    record = orjson.loads(row)
    named = {"prompt": columns.context, "chosen": columns.text, "rejected": columns.rejected}
    values = {name: without_nulls(value_at(record, column)) for name, column in named.items() if column is not None}
    return orjson.dumps(
        {**record, **values, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected},
        option=orjson.OPT_APPEND_NEWLINE,
    )
