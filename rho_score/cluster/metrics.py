"""Prometheus metrics of a run, which Ray exports on each node of the cluster.

Without a cluster nothing is counted, and nothing of Ray is imported. A metric that cannot be
recorded never fails a run. What a unit took is counted by the driver when the unit is published, so
that a unit that was tried again counts once.
"""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from rho_score.cluster.ray_cluster import connected

log = logging.getLogger(__name__)

PREFIX = "rho_score_"
COMMANDS = {
    "score set": "score",
    "selection": "select",
    "export": "export",
    "training run": "train",
    "tuning": "tune",
    "deduplicated corpus": "dedup",
}
"""The value of the label `command`, by the kind of the store that is written."""
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0)
"""Upper bounds of the buckets of a histogram of seconds."""


@dataclass(frozen=True)
class Metric:
    """A metric of the table. Ray puts `ray_` before its name."""

    name: str
    """Without `rho_score_`."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    """Besides `run` and `command`."""
    of: str = "every job"
    """Which commands have it."""


TABLE = (
    Metric("units_total", "counter", "Units that are done, or steps while training.", ("phase",)),
    Metric("tokens_total", "counter", "Tokens of units that are done, or of steps while training.", ("phase",)),
    Metric("done_ratio", "gauge", "Share of the phase that is done, of units in hand too, 0 to 1.", ("phase",)),
    Metric("remaining_seconds", "gauge", "Seconds until the phase ends, as the progress line tells.", ("phase",)),
    Metric("tokens_per_second", "gauge", "Tokens a second, as the progress line tells.", ("phase",)),
    Metric(
        "storage_retries_total", "counter", "Storage calls made again: the driver's and published units'.", ("kind",)
    ),
    Metric("documents_total", "counter", "Documents of published units, quarantined ones too.", of="score"),
    Metric("quarantined_documents_total", "counter", "Quarantined documents of published units.", ("reason",), "score"),
    Metric(
        "server_retries_total", "counter", "Requests to a server made again for published units.", ("kind",), "score"
    ),
    Metric("positions_total", "counter", "Positions that went through the model, padding too.", of="score"),
    Metric("padding_positions_total", "counter", "Positions through the model that were padding.", of="score"),
    Metric(
        "model_busy_ratio", "gauge", "Share of the workers' time in which the model ran so far, 0 to 1.", of="score"
    ),
    Metric("stage_seconds", "histogram", "Seconds that a published unit took in a stage.", ("stage",), "score"),
    Metric("units_waiting", "gauge", "Units that are tokenized and not begun by a worker.", of="score"),
    Metric("units_in_hand", "gauge", "Units that workers have in hand.", of="score"),
    Metric("kept_ratio", "gauge", "Share of the scored tokens that is kept, so far, 0 to 1.", of="select"),
    Metric("train_loss", "gauge", "Mean loss of the tokens since the last row of the log, nats.", of="train"),
    Metric("train_tokens_per_second", "gauge", "Tokens a second since the last row of the log.", of="train"),
    Metric("train_learning_rate", "gauge", "Learning rate of the last row of the log.", of="train"),
)
BY_NAME = {metric.name: metric for metric in TABLE}


class Run(NamedTuple):
    """What every sample is labelled with."""

    run: str
    command: str


UNNAMED = Run("unnamed", "other")
"""The run of a command that begins no store."""
_RUN: ContextVar[Run] = ContextVar("run", default=UNNAMED)


def begin(output: str, fingerprint: str, command: str) -> None:
    """Names the run of this thread: the last name of its output and the first 8 digits of its fingerprint."""
    _RUN.set(Run(f"{output.rstrip('/').rpartition('/')[2]}-{fingerprint[:8]}", command))


def current() -> Run:
    """The run of this thread."""
    return _RUN.get()


def record(name: str, value: float | None, run: Run, **labels: str) -> None:
    """Adds to a counter, sets a gauge or observes in a histogram, by the table; None and nothing to add are left out."""
    metric = BY_NAME[name]
    if not connected() or value is None or value != value or (metric.kind == "counter" and value <= 0):
        return
    try:
        made = _made(name)
        act = {"counter": "inc", "gauge": "set", "histogram": "observe"}[metric.kind]
        getattr(made, act)(float(value), tags={**run._asdict(), **labels})
    except Exception as error:  # Ray's own errors are many, and none may end a run
        log.debug("metric %s is not recorded: %s", name, error)


def record_each(name: str, values: Mapping[str, float], run: Run, label: str) -> None:
    """The same for several values by the value of a label."""
    for value_of, value in values.items():
        record(name, value, run, **{label: value_of})


@cache
def _made(name: str) -> Any:
    from ray.util.metrics import Counter, Gauge, Histogram

    metric = BY_NAME[name]
    about: dict[str, Any] = {"description": metric.help, "tag_keys": (*Run._fields, *metric.labels)}
    if metric.kind == "histogram":
        return Histogram(PREFIX + name, boundaries=list(SECONDS), **about)
    return (Counter if metric.kind == "counter" else Gauge)(PREFIX + name, **about)
