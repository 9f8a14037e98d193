"""Lines of a JSON-lines shard, compressed or not, in bounded memory."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rho_score.corpus.compression import DAMAGE, decompressed, is_damage

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 64 << 20
"""Bytes of the longest line, and characters of the longest text, that is taken for a document."""
LARGEST_SHARD = 2 << 30
"""Bytes of text that are read of a compressed shard, which is one unit and goes through memory whole."""

_PIECE = 1 << 20


class Line(NamedTuple):
    """A line that is not blank. `content`: its bytes, None where it cannot be had (`error`). `offset`: of decompressed bytes."""

    offset: int
    place: str
    content: bytes | None
    error: str | None


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
