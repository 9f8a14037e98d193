"""Times and counts of a unit's way through a worker. They travel in the metadata of its table."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import orjson
import pyarrow as pa

from rho_score.files.json import JsonObject

STATS = b"rho_score.stats"
RETRIES = b"rho_score.retries"


@dataclass(frozen=True, kw_only=True)
class UnitStats:
    """What a worker measured while it had a unit. It differs from run to run, and no file holds it."""

    rescored: int = 0
    positions: int = 0
    """Positions that went through the model, padding included."""
    padding: int = 0
    worker: str = ""
    """Which worker."""
    started: float = 0.0
    """When it took the unit, seconds since the epoch."""
    ended: float = 0.0
    """When it gave the unit on."""
    model_s: float = 0.0
    """Seconds in the scorer."""
    note: str = ""
    """What the model does not use of its files, or ties; see `models.load.load_model`."""


def busy_share(units: Iterable[UnitStats]) -> float:
    """Share of the workers' time, from the first unit of each to its last, that the model ran."""
    of: dict[str, list[UnitStats]] = defaultdict(list)
    for stats in units:
        of[stats.worker].append(stats)
    spans = [max(p.ended for p in own) - min(p.started for p in own) for own in of.values()]
    model_s = sum(p.model_s for own in of.values() for p in own)
    return model_s / sum(spans) if sum(spans) else float("nan")


def attach_stats(unit: pa.Table, stats: UnitStats) -> pa.Table:
    """The table with the worker's statistics in its metadata."""
    return _with(unit, STATS, asdict(stats))


def read_stats(unit: pa.Table) -> UnitStats:
    """The statistics that a worker attached to a unit's table."""
    return UnitStats(**orjson.loads((unit.schema.metadata or {}).get(STATS, b"{}")))


def attach_retries(unit: pa.Table, retries: Mapping[str, int]) -> pa.Table:
    """The table with the storage calls that reading it made again, by kind of error, in its metadata."""
    return _with(unit, RETRIES, dict(retries))


def read_retries(unit: pa.Table) -> dict[str, int]:
    """The retries that are attached to a unit's table."""
    return dict(orjson.loads((unit.schema.metadata or {}).get(RETRIES, b"{}")))


def _with(unit: pa.Table, key: bytes, content: JsonObject) -> pa.Table:
    return unit.replace_schema_metadata({**(unit.schema.metadata or {}), key: orjson.dumps(content)})
