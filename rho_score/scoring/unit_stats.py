"""Times and counts of a unit's way through a worker. They travel in the metadata of its table."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import orjson
import pyarrow as pa

from rho_score.files.json import JsonObject

STATS = b"rho_score.stats"
RETRIES = b"rho_score.retries"
SECONDS = b"rho_score.seconds"


@dataclass(frozen=True, kw_only=True)
class UnitStats:
    """What a worker measured while it had a unit. It differs from run to run; no file holds it."""

    rescored: int = 0
    copied: int = 0
    """Documents with the losses of another one, which has the same tokens."""
    reused: int = 0
    """Documents with losses from another score set."""
    positions: int = 0
    """Positions that went through the model, padding included."""
    padding: int = 0
    worker: str = ""
    """Name of the worker."""
    started: float = 0.0
    """When the worker took the unit, in seconds since the epoch."""
    ended: float = 0.0
    """When it passed the unit on, in seconds since the epoch."""
    model_s: float = 0.0
    """Seconds in the scorer."""
    paid: bool = True
    """False if the unit was not scored, because there is no money left for it."""
    done: int = 0
    """Tokens of a unit that is not paid which were scored before it was given up."""
    stages: str = "{}"
    """Seconds by stage (read, tokenize, score, publish), as JSON."""
    reasons: str = "{}"
    """Quarantined documents by `reason_of`, as JSON."""
    server_retries: str = "{}"
    """Requests to a server that were made again, by kind of failure, as JSON."""
    note: str = ""
    """Weights that the model ties or does not use, see `rho_score.models.load.load_model`."""


def busy_share(units: Iterable[UnitStats]) -> float:
    """Returns the share of the workers' time in which the model ran.

    The time of a worker goes from its first unit to its last.
    """
    of: dict[str, list[UnitStats]] = defaultdict(list)
    for stats in units:
        of[stats.worker].append(stats)
    spans = [max(p.ended for p in own) - min(p.started for p in own) for own in of.values()]
    model_s = sum(p.model_s for own in of.values() for p in own)
    return model_s / sum(spans) if sum(spans) else float("nan")


class Busy:
    """The same of units that are added one by one."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[float, float]] = {}
        self._of_workers = self._model_s = 0.0

    def add(self, stats: UnitStats) -> float:
        """Adds a unit; returns the share so far."""
        start, end = self._spans.get(stats.worker, (stats.started, stats.started))
        wider = min(start, stats.started), max(end, stats.ended)
        self._spans[stats.worker] = wider
        self._of_workers += wider[1] - wider[0] - (end - start)
        self._model_s += stats.model_s
        return self._model_s / self._of_workers if self._of_workers > 0 else float("nan")


def reason_of(error: str) -> str:
    """The kind of a reason why a document is quarantined: one of a few words, as a label of a metric."""
    for part, kind in (
        ("(--unit-timeout)", "timeout"),
        ("killed its worker", "killed"),
        ("are not finite", "not-finite"),
    ):
        if part in error:
            return kind
    return "failed" if re.match(r"\w+(Error|Exception): ", error) else "input"


def server_retries(units: Iterable[UnitStats]) -> dict[str, int]:
    """Returns the requests to a server that were made again for these units, by kind of failure."""
    return dict(sum((Counter(orjson.loads(stats.server_retries)) for stats in units), Counter[str]()))


def attach_stats(unit: pa.Table, stats: UnitStats) -> pa.Table:
    """Returns the table with the worker's statistics in its metadata."""
    return _with(unit, STATS, asdict(stats))


def read_stats(unit: pa.Table) -> UnitStats:
    """Returns the statistics that a worker attached to a unit's table."""
    return UnitStats(**orjson.loads((unit.schema.metadata or {}).get(STATS, b"{}")))


def add_seconds(unit: pa.Table, stage: str, seconds: float) -> pa.Table:
    """Returns the table with the seconds of one more stage in its metadata."""
    return _with(unit, SECONDS, {**read_seconds(unit), stage: seconds})


def read_seconds(unit: pa.Table) -> dict[str, float]:
    """Returns the seconds by stage that are attached to a unit's table."""
    return dict(orjson.loads((unit.schema.metadata or {}).get(SECONDS, b"{}")))


def attach_retries(unit: pa.Table, retries: Mapping[str, int]) -> pa.Table:
    """Returns the table with its retries in its metadata.

    retries: number of storage calls that reading it made again, by kind of error.
    """
    return _with(unit, RETRIES, dict(retries))


def read_retries(unit: pa.Table) -> dict[str, int]:
    """Returns the retries that are attached to a unit's table."""
    return dict(orjson.loads((unit.schema.metadata or {}).get(RETRIES, b"{}")))


def _with(unit: pa.Table, key: bytes, content: JsonObject) -> pa.Table:
    return unit.replace_schema_metadata({**(unit.schema.metadata or {}), key: orjson.dumps(content)})
