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
    `.jsonl.lz4`, `.jsonl.bz2` or `.jsonl.xz`, or
    `.arrow` and `.arrows` for Arrow files and streams, or `.tar` with its compression. Files of token ids have `tokens:TYPE@PLACE`, their numpy type and the
    byte where they begin, or `megatron:TYPE@0`.
    """
    size: int
    """The shard's size in bytes."""
    version: str
    """The shard's ETag, or else the time of its last change, followed by that of its index, if any."""
    start: int
    """The first row group of a Parquet shard, the first byte of a JSON Lines shard or an Arrow
    stream, the first record batch of an Arrow file, the first token of a flat file of ids, or the first document of a Megatron-LM dataset."""
    stop: int
    """What comes after the last one."""
    first_row: int | None
    """The place of the first row in the shard; None if it is not known."""
    rows: int | None
    """The number of rows; None if they are not known before they are read."""
    text_bytes: int
    """The approximate bytes of text: the size of the text column, of the lines of JSON, of the record
    batches of Arrow, or four for each token id."""


def new_unit(shard: str, start: int, stop: int, **rest: Any) -> Unit:
    """A unit whose name is made from its shard, `start` and `stop`."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", shard)[-80:].lstrip(".-_")
    place = hashlib.sha256(f"{shard}\0{start}\0{stop}".encode()).hexdigest()[:12]
    return Unit(unit=f"{slug}_{start}-{stop}_{place}", shard=shard, start=start, stop=stop, **rest)
