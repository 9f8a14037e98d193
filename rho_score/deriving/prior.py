"""The prior job: count the tokens of a corpus → the loss of each by its frequency alone.

OUT/prior.parquet    the count and the loss of every word of the tokenizer, written before any unit
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.cluster.tasks import in_tasks, result
from rho_score.config import PriorConfig
from rho_score.deriving.like import check_output, claim_like
from rho_score.deriving.units import Batch, DerivedUnits, Published, Tokens, batches_of, finished_before, write_all
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import parquet_bytes, read_table
from rho_score.files.urls import absolute
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.signs import signs_of_life

PRIOR = "prior.parquet"
PRIOR_SCHEMA = pa.schema(
    [
        pa.field("token", pa.int32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("loss", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class PriorSummary:
    """What a run did. `counts` covers the whole score set."""

    output: str
    units: int
    computed: int
    """Units that this call wrote."""
    counts: ScoreCounts
    words: int
    """Words of the tokenizer."""
    words_seen: int
    tokens_counted: int
    wall_s: float


def prior(config: PriorConfig) -> PriorSummary:
    """Counts and writes, or goes on where an earlier run of the same command stopped.

    Raises:
        InputError: an option is wrong, or the score sets do not belong together.
        RhoScoreError: the run failed. What it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    config = replace(
        config,
        scores=absolute(config.scores),
        output=absolute(config.output),
        counted_in=config.counted_in and absolute(config.counted_in),
    )
    _check(config)
    with joined():
        like = ScoreSet.open(config.scores)
        counted = ScoreSet.open(config.counted_in or config.scores)
        if counted.tokenizer_sha256 != like.tokenizer_sha256:
            raise InputError(
                f"{config.counted_in} was made with another tokenizer than {config.scores}. Score it with a model that has the "
                "same one."
            )
        output, manifest = Folder(config.output), _claim(config, like, counted)
        if (written := finished_before(output)) is None:
            with signs_of_life(output, "prior"), cluster_or_threads():
                losses = as_numpy(_prior(config, output, counted)["loss"])
                units = DerivedUnits(
                    like=config.scores, output=config.output, fingerprint=manifest["fingerprint"],
                    precision=manifest["parts"]["precision"],
                )  # fmt: skip
                written = write_all("prior", like, output, partial(_write, units, losses), workers=config.workers)
    counts = as_numpy(_read(output)["count"])
    return PriorSummary(
        output=config.output,
        units=like.n_units,
        computed=written.computed,
        counts=written.counts,
        words=len(counts),
        words_seen=int((counts > 0).sum()),
        tokens_counted=int(counts.sum()),
        wall_s=time.monotonic() - started,
    )


def _check(config: PriorConfig) -> None:
    check_output(config.output, config.workers)
    if not 0 <= config.alpha < math.inf:
        raise InputError(f"--alpha must not be negative, got {config.alpha}.")
    if config.alpha == 0 and config.counted_in is not None:
        raise InputError("--alpha must be above 0 with --counted-in, where tokens may occur that were never counted.")


def _claim(config: PriorConfig, like: ScoreSet, counted: ScoreSet) -> JsonObject:
    derived = {
        "from": "frequencies",
        "alpha": config.alpha,
        "counted_in": counted.manifest["fingerprint"],
        "counted": counted.held,
    }
    places = {"counted_in": config.counted_in} if config.counted_in else {}
    return claim_like(like, config.output, derived, precision=config.precision, places=places)


def _prior(config: PriorConfig, output: Folder, counted: ScoreSet) -> pa.Table:
    """The count and the loss of every word, read from the file of an earlier run or counted and published."""
    if output.exists(PRIOR):
        return _read(output)
    from rho_score.stores.tokenizer import load_store_tokenizer  # transformers is slow to import

    words = max(load_store_tokenizer(counted).get_vocab().values()) + 1
    counts = _counted(counted, words, config.workers)
    counted_loss = losses_of(counts, config.alpha)
    columns = [np.arange(len(counts), dtype=np.int32), counts, counted_loss]
    table = pa.table([pa.array(column) for column in columns], schema=PRIOR_SCHEMA)
    output.publish(PRIOR, parquet_bytes(table, PRIOR_SCHEMA))
    return table


def _read(output: Folder) -> pa.Table:
    return read_table(output.read(PRIOR), PRIOR_SCHEMA, f"{output.url}/{PRIOR}")


def losses_of(counts: np.ndarray, alpha: float) -> np.ndarray:
    """The loss of every word, -log((count + alpha) / (sum of counts + alpha * words)), nats, float64[words].

    With an alpha of 0, a word that never occurs has the loss of one that occurred once: no token
    has it.
    """
    total = float(counts.sum()) + alpha * len(counts)
    shares = (counts if alpha else np.maximum(counts, 1)) + alpha
    losses: np.ndarray = np.log(max(total, 1.0)) - np.log(shares)
    return losses


def _counted(scores: ScoreSet, words: int, workers: int | None) -> np.ndarray:
    """How often each word occurs as a token that has a loss, int64[words or more]."""
    batches = batches_of(scores)
    counts = np.zeros(words, np.int64)
    with Progress("count", n_units=scores.n_units) as progress:
        work: Callable[[Batch], np.ndarray] = partial(_count, scores.folder.url)
        for index, reference in in_tasks(work, batches, workers=workers):
            found: np.ndarray = result(reference)
            counts = np.pad(counts, (0, max(0, len(found) - len(counts))))
            counts[: len(found)] += found
            progress.add(tokens=int(found.sum()), units=len(batches[index].units))
    return counts


def _count(url: str, batch: Batch) -> np.ndarray:
    """The counts of a batch of units, int64[the largest id + 1]."""
    scores, counts = ScoreSet.open(url), np.zeros(0, np.int64)
    for unit in batch.units:
        table = scores.unit_table(unit, ["input_ids", "loss"])
        known = ~np.isnan(as_numpy(flat_values(table["loss"])))
        found = np.bincount(as_numpy(flat_values(table["input_ids"]))[known], minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts


def _write(derived: DerivedUnits, losses: np.ndarray, _: Batch, units: list[str]) -> list[Published]:
    return derived.write(units, lambda unit, tokens: (_values(losses, unit, tokens), {}))


def _values(losses: np.ndarray, unit: str, tokens: Tokens) -> np.ndarray:
    """The loss of each token by its frequency, float64[n_tokens], NaN where it has no loss in the other set."""
    known = ~np.isnan(tokens.loss)
    if (largest := int(tokens.ids[known].max(initial=-1))) >= len(losses):
        raise RhoScoreError(
            f"unit {unit} holds the token id {largest}, but the tokenizer has {len(losses)} words. Leave out --counted-in, "
            "or score with the model's own tokenizer."
        )
    values = np.full(len(known), np.nan)
    values[known] = losses[tokens.ids[known]]
    return values
