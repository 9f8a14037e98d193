"""The unit of work, and its name, which never changes."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One piece of work: a part of a shard, or a whole shard."""

    unit: str
    """The unit's name."""
    shard: str
    """The shard's name, relative to the corpus."""
    format: str
    """The format of the shard's content, whatever its name says.

    It is `.parquet` or `.jsonl`, the latter followed by its compression: `.jsonl.gz`, `.jsonl.zst`,
    `.jsonl.bz2` or `.jsonl.xz`.
    """
    size: int
    """The shard's size in bytes."""
    version: str
    """The shard's ETag, or else the time of its last change."""
    start: int
    """The first row group of a Parquet shard, or the first byte of a JSON Lines shard."""
    stop: int
    """The row group or the byte after the last one."""
    first_row: int | None
    """The place of the first row in the shard; None if it is not known."""
    rows: int | None
    """The number of rows; None in JSON Lines."""
    text_bytes: int
    """The approximate bytes of text: the size of the text column, or of the lines of JSON."""


def new_unit(shard: str, start: int, stop: int, **rest: Any) -> Unit:
    """A unit whose name is made from its shard, `start` and `stop`."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", shard)[-80:].lstrip(".-_")
    place = hashlib.sha256(f"{shard}\0{start}\0{stop}".encode()).hexdigest()[:12]
    return Unit(unit=f"{slug}_{start}-{stop}_{place}", shard=shard, start=start, stop=stop, **rest)
