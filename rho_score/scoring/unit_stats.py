"""How a unit went through a worker: times and counts that its file does not hold. They travel in the table's metadata."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import pyarrow as pa

PASSAGE = b"rho_score.scoring.unit_stats"
RETRIES = b"rho_score.files.retries"


@dataclass(frozen=True, kw_only=True)
class Passage:
    """How a unit went through a worker: what its file does not hold, since it is another each time."""

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
    """What the model does not use of its files, or ties; see `model.load_model`."""


def busy_share(passages: Iterable[Passage]) -> float:
    """Share of the workers' time, from the first unit of each to its last, that the model ran."""
    of: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        of[passage.worker].append(passage)
    spans = [max(p.ended for p in own) - min(p.started for p in own) for own in of.values()]
    model_s = sum(p.model_s for own in of.values() for p in own)
    return model_s / sum(spans) if sum(spans) else float("nan")


def noted(unit: pa.Table, passage: Passage) -> pa.Table:
    """The table with its passage in its metadata."""
    return _with(unit, PASSAGE, asdict(passage))


def read_passage(unit: pa.Table) -> Passage:
    """What a worker noted on a unit's table."""
    return Passage(**orjson.loads((unit.schema.metadata or {}).get(PASSAGE, b"{}")))


def noted_retries(unit: pa.Table, retries: Mapping[str, int]) -> pa.Table:
    """The table with the retries that reading it took, by kind of error, in its metadata."""
    return _with(unit, RETRIES, retries)


def read_retries(unit: pa.Table) -> dict[str, int]:
    """The retries that are noted on a unit's table."""
    return dict(orjson.loads((unit.schema.metadata or {}).get(RETRIES, b"{}")))


def _with(unit: pa.Table, key: bytes, content: Mapping[str, Any]) -> pa.Table:
    return unit.replace_schema_metadata({**(unit.schema.metadata or {}), key: orjson.dumps(content)})
