"""Reads the lines of a JSON Lines shard, compressed or not, in bounded memory."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rho_score.corpus.compression import DAMAGE, decompressed, is_damage

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 64 << 20
"""The most bytes of a line, and the most characters of a text, that a document may have."""
LARGEST_SHARD = 2 << 30
"""The most bytes of text that are read from a compressed shard.

A compressed shard is one unit, and all of a unit's text is in memory at the same time.
"""

_PIECE = 1 << 20


class Line(NamedTuple):
    """A line that is not blank."""

    offset: int
    """The position of its first byte in the decompressed shard."""
    place: str
    """Its position, as text to show."""
    content: bytes | None
    """Its bytes; None if it cannot be read."""
    error: str | None
    """The reason why it cannot be read."""


def lines_between(file: Any, suffix: str, start: int, stop: int) -> Iterator[Line]:
    """Yields the lines that begin in the bytes [start, stop) of a shard, without blank lines.

    file: the open shard. suffix: its format, such as `.jsonl` or `.jsonl.gz`.

    For a compressed shard, `start` is 0 and `stop` is the most bytes of text to read. If the shard
    has more, the last line is an error that says so. A damaged stream also ends with such a line.
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
    """A line's position as text. Its number is known only if the shard is read from its start."""
    return f"byte {offset}" if start else f"line {number}, byte {offset}"


def _skip_line(stream: Any, at_most: int) -> int:
    """Reads to the end of a line, or a little over `at_most` bytes; returns how many it read."""
    skipped = 0
    while skipped < at_most and (piece := stream.readline(_PIECE)):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
