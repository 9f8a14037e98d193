"""The runs of a tuning: their table, and what they say about the candidates."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from rho_score.files.parquet import parquet_bytes
from rho_score.tuning.candidates import Candidate

TRIALS_SCHEMA = pa.schema(
    [
        ("rung", pa.int64()),
        ("rule", pa.string()),
        ("learning_rate", pa.float64()),
        ("steps", pa.int64()),
        ("seed", pa.int64()),
        ("tokens_seen", pa.int64()),
        ("tokens_trained", pa.int64()),
        ("loss", pa.float64()),
        ("losses", pa.map_(pa.string(), pa.float64())),
        ("run", pa.string()),
    ]
)
"""loss: of the first held-out set at the end, nats a token. losses: of every held-out set. run: the
training run, relative to the folder."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training run of a candidate, see `TRIALS_SCHEMA`."""

    rung: int
    candidate: Candidate
    steps: int
    seed: int
    tokens_seen: int
    tokens_trained: int
    loss: float
    losses: dict[str, float]
    run: str


def trials_file(trials: Sequence[Trial]) -> bytes:
    """The content of `trials.parquet`."""
    rows = [
        {
            **{name: getattr(trial, name) for name in TRIALS_SCHEMA.names if hasattr(trial, name)},
            "rule": trial.candidate.rule,
            "learning_rate": trial.candidate.learning_rate,
            "losses": list(trial.losses.items()),
        }
        for trial in trials
    ]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=TRIALS_SCHEMA), TRIALS_SCHEMA)


def mean_loss(trials: Sequence[Trial]) -> float:
    """The mean of the trials' losses, nats a token."""
    return statistics.fmean(trial.loss for trial in trials)


def ranked(trials: Sequence[Trial]) -> list[Candidate]:
    """The candidates of a rung by their mean loss, the lowest first."""
    by: dict[Candidate, list[Trial]] = {}
    for trial in trials:
        by.setdefault(trial.candidate, []).append(trial)
    return sorted(by, key=lambda candidate: mean_loss(by[candidate]))


def last_trials(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The trials of each candidate in the last rung that it was in: the last rung first, then by mean loss."""
    by: dict[Candidate, list[Trial]] = {}
    for trial in trials:
        mine = by.setdefault(trial.candidate, [])
        if mine and mine[0].rung != trial.rung:
            mine.clear()
        mine.append(trial)
    return sorted(by.values(), key=lambda mine: (-mine[0].rung, mean_loss(mine)))


def gains_of(last: Sequence[Trial]) -> dict[str, list[float]]:
    """How much lower each candidate's losses are than those of the best control with the same seed."""
    control = next(candidate for candidate in ranked(last) if candidate.is_control)
    own = {trial.seed: trial.loss for trial in last if trial.candidate == control}
    found: dict[str, list[float]] = {}
    for trial in last:
        if trial.candidate != control:
            found.setdefault(trial.candidate.name, []).append(own[trial.seed] - trial.loss)
    return found


def best_of(last: Sequence[Trial], gains: dict[str, list[float]]) -> Candidate:
    """The candidate with the lowest mean loss that beats the control with every seed, or the control."""
    by_loss = ranked(last)
    control = next(candidate for candidate in by_loss if candidate.is_control)
    beating = [c for c in by_loss if c.name in gains and min(gains[c.name]) > 0]
    return beating[0] if beating else control
