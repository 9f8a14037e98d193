"""Lines of a JSONL shard, compressed or not, in bounded memory; and what tells a broken file from a failing storage."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

DAMAGE = (pa.ArrowException, OSError, EOFError, zlib.error)  # what readers raise on a broken file
BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 64 << 20
"""Bytes of the longest line, and characters of the longest text, that is taken for a document."""
LARGEST_SHARD = 2 << 30
"""Bytes of text that are read of a compressed shard, which is one unit and goes through memory whole."""

# What pyarrow says of a broken file with an error that has no number; one with a number is the storage's.
_DAMAGED = re.compile(r"(?i)corrupt|compress|deserializ|truncated|unexpected end|invalid|checksum|crc|page")
_PIECE = 1 << 20


class Line(NamedTuple):
    """A line that is not blank. `content`: its bytes, None where it cannot be had (`error`). `offset`: of decompressed bytes."""

    offset: int
    place: str
    content: bytes | None
    error: str | None


def is_damage(error: BaseException) -> bool:
    """Whether the file is broken, which quarantines; else it is the storage, which ends the run, to be resumed."""
    if isinstance(error, (gzip.BadGzipFile, zlib.error, EOFError, pa.ArrowInvalid)):
        return True
    return getattr(error, "errno", None) is None and bool(_DAMAGED.search(str(error)))


def decompressed(file: Any, suffix: str) -> Any:
    """A binary stream over the content of a shard with this suffix."""
    if suffix.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if suffix.endswith(".zst"):  # a small buffer: what is decoded before a break in the stream is not lost with it
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"), 4096)
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file, 1 << 20)


def lines_between(file: Any, suffix: str, start: int, stop: int) -> Iterator[Line]:
    """The lines that begin in [start, stop) of a shard, of which `start` is a byte of `file`; blank ones are left out.

    A compressed shard is read from 0 on, `stop` being what may be read of it; where it has more, the last line says so.
    """
    offset, number = start, 0
    try:
        if start:
            file.seek(start - 1)
        stream = decompressed(file, suffix)
        if start:
            offset += _skip_line(stream, stop - start + 1) - 1
        while offset < stop:
            number += 1
            content = stream.readline(LONGEST_LINE + 1)
            if not content:
                return
            if len(content) > LONGEST_LINE:
                yield _lost(start, number, offset, f"longer than {LONGEST_LINE:,} bytes. Split the document.")
                if not content.endswith(b"\n"):
                    offset += _skip_line(stream, stop - offset)
            elif content.removeprefix(BOM).strip():
                yield Line(offset, _place(start, number, offset), content, None)
            offset += len(content)
        if suffix != ".jsonl" and stream.read(1):
            reason = f"the shard has more than {stop:,} bytes of text, the rest is not read. Cut it into smaller ones."
            yield _lost(start, number + 1, offset, reason)
    except DAMAGE as error:
        if not is_damage(error):
            raise
        reason = f"the compressed stream is damaged here, the rest is lost: {error}"
        yield _lost(start, max(number, 1), offset, reason)


def _lost(start: int, number: int, offset: int, reason: str) -> Line:
    place = _place(start, number, offset)
    return Line(offset, place, None, f"{place}: {reason}")


def _place(start: int, number: int, offset: int) -> str:
    """The number of a line is known only where the shard is read from its beginning."""
    return f"byte {offset}" if start else f"line {number}, byte {offset}"


def _skip_line(stream: Any, at_most: int) -> int:
    """Read on to the end of a line, for `at_most` bytes or a little more; returns how many were read."""
    skipped = 0
    while skipped < at_most and (piece := stream.readline(_PIECE)):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
