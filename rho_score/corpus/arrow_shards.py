"""Arrow IPC shards, files and streams alike: cutting them into units by their record batches, and reading these."""

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from rho_score.config import CorpusConfig
from rho_score.corpus.arrow_messages import MAGIC, Message
from rho_score.corpus.arrow_readers import FileReader, Reader, StreamReader
from rho_score.corpus.columns import Columns, Document, Row
from rho_score.corpus.compression import DAMAGE, is_damage
from rho_score.corpus.content import columns_of
from rho_score.corpus.lines import LARGEST_SHARD
from rho_score.corpus.parquet_columns import Sources, find_sources
from rho_score.corpus.record_batches import BATCH_ROWS, MOST_ROWS, all_lost, documents_up_to, size_of
from rho_score.corpus.units import Unit, new_unit
from rho_score.errors import InputError
from rho_score.files.folder import FileInfo, Folder

FILE, STREAM = ".arrow", ".arrows"
NAMES = ".arrow, .arrows, .ipc or .feather"
ROWS: Final = "tables"
_NAME = re.compile(r"(?i)\.(arrow|arrows|ipc|feather)$")
_OF_CACHES = re.compile(r"(^|/)(cache|indices)-[0-9a-f]{16}[^/]*\.arrow$")  # what `datasets` leaves beside its data
_FEATHER_1 = b"FEA1"
_HOP = 1 << 16  # bytes fetched at a time where most of the file is passed over


def is_name(name: str) -> bool:
    """True if a file with this name is read as an Arrow shard."""
    return _NAME.search(name) is not None and _OF_CACHES.search(name) is None


def may_be_empty(name: str) -> bool:
    """False: an Arrow file without rows has a schema."""
    return False


def holds(unit: Unit) -> bool:
    """True if the unit belongs to an Arrow shard."""
    return unit.format in (FILE, STREAM)


def info(root: Folder, name: str) -> FileInfo:
    """The size and version of a shard."""
    return root.info(name)


def cut(root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
    """The units of a shard, each of whole record batches. Their data are not read.

    Raises:
        InputError: the shard cannot be read, lacks a column, or has record batches that are too large.
    """
    with root.open(name, block=_HOP) as file:
        head = file.read(len(MAGIC))
        if head.startswith(_FEATHER_1):
            raise InputError(
                "it is Feather of version 1. Write it again with pyarrow.feather.write_feather, or as Parquet."
            )
        form = FILE if head == MAGIC else STREAM
        shard = _reader(form, file, info.size)
        find_sources(shard.schema, columns_of(corpus), name)
        batches = list(shard.batches())
    stops = [place for place, _ in batches[1:]] + [len(batches) if form == FILE else info.size]
    units: list[Unit] = []
    begin = row = rows = size = 0
    for i, (_, batch) in enumerate(batches):
        if batch.rows > MOST_ROWS:
            raise InputError(
                f"record batch {i} has {batch.rows:,} rows, more than {MOST_ROWS:,}. Write smaller batches."
            )
        rows, size = rows + batch.rows, size + batch.stop - batch.body
        if size >= corpus.unit_bytes or rows >= MOST_ROWS or i + 1 == len(batches):
            if rows:
                about = {"first_row": row, "rows": rows, "text_bytes": size, "size": info.size, "version": info.version}
                units.append(new_unit(name, batches[begin][0], stops[i], format=form, **about))
            begin, row, rows, size = i + 1, row + rows, 0, 0
    return units


def _reader(form: str, file: Any, size: int) -> Reader:
    return FileReader(file, size) if form == FILE else StreamReader(file, size)


def read(root: Folder, unit: Unit, columns: Columns) -> Iterator[Row]:
    """Yields the rows of a unit in input order. Those that cannot be scored have an error.

    At most `LARGEST_SHARD` characters are read, because a small file can hold much text: a
    dictionary holds one text for all rows.
    """
    assert unit.first_row is not None
    assert unit.rows is not None
    row, size = 0, 0
    with root.open(unit.shard) as file:
        shard = _reader(unit.format, file, unit.size)
        sources = find_sources(shard.schema, columns, unit.shard)
        for place, message in shard.batches(unit.start, unit.stop):
            ids = [f"{unit.shard}#{unit.first_row + row + i}" for i in range(message.rows)]
            found = _batch(shard, place, message, ids, sources, columns, LARGEST_SHARD - size)
            size += sum(map(size_of, found))
            for i, document in enumerate(found):
                yield Row(document, (row + i) / unit.rows)
            row += message.rows


def rows(root: Folder, unit: Unit, keep: np.ndarray) -> Iterator[pa.Table]:
    """The kept rows of a unit with all columns, a table for each record batch that has such rows."""
    row = 0
    with root.open(unit.shard) as file:
        shard = _reader(unit.format, file, unit.size)
        for place, message in shard.batches(unit.start, unit.stop):
            chosen = keep[row : row + message.rows]
            row += message.rows
            if chosen.any():
                yield pa.Table.from_batches([shard.decoded(place, message)]).filter(pa.array(chosen))


def _batch(
    shard: Reader, place: int, message: Message, ids: list[str], sources: Sources, columns: Columns, most: int
) -> list[Document]:
    """The documents of a record batch. If it is damaged, each of them has an error.

    most: the most characters to read. The documents after that have an error.
    """
    named = f"record batch at byte {message.start}"
    reason = (
        f"{named}: its unit has more than {LARGEST_SHARD:,} characters of text, the rest is not read. Write the file "
        "again with smaller batches, or cut it into smaller units (--unit-bytes)."
    )
    try:
        batch = shard.decoded(place, message, list(dict.fromkeys(path.split(".")[0] for path in sources.in_file)))
        pieces = (batch.slice(start, BATCH_ROWS) for start in range(0, len(batch), BATCH_ROWS))
        return documents_up_to(pieces, ids, sources, columns, most, reason)
    except (*DAMAGE, UnicodeDecodeError) as error:
        if not is_damage(error) and not isinstance(error, UnicodeDecodeError):
            raise
        return all_lost(ids, f"{named} is damaged: {error}")
