"""JSON Lines shards, plain or compressed: cutting them into units, and reading them line by line.

The first bytes of a shard tell how it is compressed, whatever its name says.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import orjson

from rho_score.config import CorpusConfig
from rho_score.corpus.columns import Columns, Document, Row, folder_values, value_at
from rho_score.corpus.compression import DAMAGE, MAGIC_BYTES, compression_named, compression_of, decompressed
from rho_score.corpus.json_heads import refuse_one_value
from rho_score.corpus.lines import BOM, LARGEST_SHARD, Line, lines_between
from rho_score.corpus.records import check_columns, record_document
from rho_score.corpus.units import Unit, new_unit
from rho_score.corpus.values import Unusable
from rho_score.errors import InputError
from rho_score.files.folder import FileInfo, Folder

NAMES = ".json, .jsonl, .jsonlines or .ndjson (plain or followed by .gz, .zst, .lz4, .bz2 or .xz)"
_NAME = re.compile(r"(?i)\.(json|jsonl|jsonlines|ndjson)(\.(gz|gzip|zst|zstd|lz4|bz2|xz))?$")
ROWS: Final = "lines"
PLAIN = ".jsonl"
EXPANSION = 4  # typical bytes of text per compressed byte; only for estimates
PEEK_BYTES = 1 << 18


def is_name(name: str) -> bool:
    """True if a file with this name is read as JSON Lines."""
    return _NAME.search(name) is not None


def may_be_empty(name: str) -> bool:
    """True if a file of 0 bytes with this name is a shard without documents, not a broken one."""
    return is_name(name) and not compression_named(name)


def holds(unit: Unit) -> bool:
    """True if the unit belongs to a JSON Lines shard."""
    return unit.format.startswith(PLAIN)


def info(root: Folder, name: str) -> FileInfo:
    """The size and version of a shard."""
    return root.info(name)


def cut(root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
    """The units of a shard: byte ranges of a plain shard, or a compressed shard as a whole.

    Raises:
        InputError: the shard cannot be read, is one JSON value and not one per line, or lacks a
            column in its first records.
    """
    compression = _compression(root, name)
    head, whole = _head(root, name, compression)
    if twice := compression_of(head):
        raise InputError(f"it is compressed twice ({compression} around {twice}). Decompress it once.")
    refuse_one_value(head, compression, whole=whole)
    _check_columns(head, name, corpus, whole=whole)
    common = {"format": PLAIN + compression, "size": info.size, "version": info.version, "rows": None}
    if compression:
        return [new_unit(name, 0, info.size, first_row=0, text_bytes=info.size * EXPANSION, **common)]
    starts = range(0, info.size, corpus.unit_bytes)
    stops = [min(start + corpus.unit_bytes, info.size) for start in starts]
    return [
        new_unit(name, start, stop, first_row=0 if start == 0 else None, text_bytes=stop - start, **common)
        for start, stop in zip(starts, stops, strict=True)
    ]


def _compression(root: Folder, name: str) -> str:
    """The compression of a shard, by its first bytes.

    If these are neither a compressed stream nor JSON, it is the compression in the shard's name.
    """
    with root.open(name) as file:
        head = file.read(MAGIC_BYTES)
        if found := compression_of(head):
            return found
        named = compression_named(name)
        if not named:
            return ""
        head += file.read(PEEK_BYTES)
    return "" if head.removeprefix(BOM).lstrip()[:1] in (b"{", b"[") else named


def _head(root: Folder, name: str, compression: str) -> tuple[bytes, bool]:
    """The first bytes of the decompressed shard, and True if these are all of its bytes.

    There are fewer if the stream breaks off early. The documents before the break can be scored.
    """
    head = b""
    with root.open(name) as file:
        stream = decompressed(file, compression)
        try:
            while len(head) < PEEK_BYTES and (more := stream.read1(4096)):
                head += more
        except DAMAGE:
            if not head:
                raise
            return head, False
    return head, len(head) < PEEK_BYTES


def _check_columns(head: bytes, name: str, corpus: CorpusConfig, *, whole: bool) -> None:
    """Refuses a shard that has a named column neither in its first records nor in its folders."""
    lines = head.removeprefix(BOM).split(b"\n")
    records = []
    for line in lines if whole else lines[:-1]:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # a broken line is quarantined when it is read
        if isinstance(record, dict) and record:
            records.append(record)
    check_columns(records, name, corpus)


def read(root: Folder, unit: Unit, columns: Columns) -> Iterator[Row]:
    """Yields the rows of a unit in input order. Those that cannot be scored have an error.

    A compressed file is read ahead of its lines. Just before more of it is fetched, the lines so
    far come from all that was fetched.
    """
    folders, fetched = folder_values(unit.shard), 0
    with root.open(unit.shard) as file:
        for line in _lines_in(file, unit):
            before = (line.offset - unit.start) / (unit.stop - unit.start) if unit.format == PLAIN else None
            if unit.format != PLAIN and file.tell() > fetched:
                before, fetched = fetched / unit.stop, file.tell()
            yield Row(document_of(line, unit, columns, folders), before)


def rows(root: Folder, unit: Unit, keep: np.ndarray) -> Iterator[bytes]:
    """The kept rows of a unit, as the lines that they are."""
    with root.open(unit.shard) as file:
        for line, chosen in zip(_lines_in(file, unit), keep, strict=True):
            if chosen:
                assert line.content is not None  # a damaged line is quarantined
                yield line.content.removeprefix(BOM).rstrip(b"\n") + b"\n"


def document_of(line: Line, unit: Unit, columns: Columns, folders: dict[str, str | None]) -> Document:
    """The document in a line of a unit.

    folders: the values of `folder_values`, used for keys that the record does not have.
    """
    default_id = f"{unit.shard}@{line.offset}"
    if line.content is None:
        return Document(default_id, None, None, line.error)
    return _line_document(line.content, default_id, line.place, columns, folders)


def _lines_in(file: Any, unit: Unit) -> Iterator[Line]:
    """Yields the lines of a unit that are not blank, from its open shard."""
    stop = unit.stop if unit.format == PLAIN else LARGEST_SHARD
    yield from lines_between(file, unit.format, unit.start, stop)


def _line_document(
    line: bytes, default_id: str, place: str, columns: Columns, folders: dict[str, str | None]
) -> Document:
    try:
        record = orjson.loads(line.removeprefix(BOM).rstrip(b"\r\n"))
    except orjson.JSONDecodeError as error:
        return Document(default_id, None, None, f"{place}: not valid JSON: {error}")
    if not isinstance(record, dict):
        return Document(default_id, None, None, f"{place}: a JSON {type(record).__name__}, not an object")

    return record_document(record, default_id, place, columns, folders, lambda *of: _exact(line, *of))


def _exact(line: bytes, column: str, found: float) -> Any:
    """The exact value of a number in a line.

    orjson reads integers beyond 64 bits as floats, so that different integers become equal.
    """
    try:
        return value_at(json.loads(line.removeprefix(BOM)), column)
    except (ValueError, RecursionError):
        return Unusable(f"an integer that cannot be told from {found!r}")
