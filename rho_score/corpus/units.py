"""The unit of work, and the name that it has for ever."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One piece of work. `start`, `stop`: row groups of a Parquet shard, bytes of a JSON-lines shard.

    `format` is `.parquet`, `.jsonl` or, with its compression, `.jsonl.gz`, `.jsonl.zst`, `.jsonl.bz2`, `.jsonl.xz`: what
    the shard's content is, whatever its name says.
    """

    unit: str
    shard: str
    format: str
    size: int
    version: str
    start: int
    stop: int
    first_row: int | None
    rows: int | None
    text_bytes: int


def new_unit(shard: str, start: int, stop: int, **rest: Any) -> Unit:
    """A unit with the name that its place gives it."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", shard)[-80:].lstrip(".-_")
    place = hashlib.sha256(f"{shard}\0{start}\0{stop}".encode()).hexdigest()[:12]
    return Unit(unit=f"{slug}_{start}-{stop}_{place}", shard=shard, start=start, stop=stop, **rest)
