"""The messages of an Arrow IPC file or stream: where each is, and how many rows it has, without its data.

A stream is its messages one after the other: the schema, then dictionaries and record batches. In a
file, a footer tells where they are.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from rho_score.corpus.lines import LARGEST_SHARD
from rho_score.errors import InputError

MAGIC = b"ARROW1"
SCHEMA, DICTIONARY, BATCH = 1, 2, 3  # the kinds of messages
_CONTINUES = 0xFFFFFFFF  # before the length of the metadata; files of before 2019 lack it
_MOST_METADATA = 256 << 20
_ROWS_WITHOUT_DATA = 1 << 16  # nulls need none; of every other type, a row needs a bit


class Message(NamedTuple):
    """A message of a shard."""

    kind: int
    start: int
    """Its first byte in the shard."""
    body: int
    """The first byte of its data."""
    stop: int
    """The byte after its data."""
    rows: int
    """The rows of a record batch."""
    buffers: list[tuple[int, int]]
    """Each buffer's place in the body, and its length in bytes; empty unless buffers are compressed."""


def messages(file: Any, size: int, start: int = 0) -> Iterator[Message]:
    """Yields the messages of an open stream of `size` bytes, from the one that begins at `start`.

    Raises:
        InputError: a message is larger than what is read at a time.
        pyarrow.ArrowInvalid: a message is damaged, or the shard ends inside it.
    """
    while start < size and (found := message_at(file, start, size)):
        yield found
        start = found.stop


def message_at(file: Any, at: int, size: int) -> Message | None:
    """The message that begins at a byte of an open shard of `size` bytes; None for the mark of the end.

    Raises:
        InputError: it is larger than what is read at a time.
        pyarrow.ArrowInvalid: it is damaged, or the shard ends inside it.
    """
    file.seek(at)
    (length,), n_before = struct.unpack("<I", _exactly(file, 4)), 4
    if length == _CONTINUES:
        (length,), n_before = struct.unpack("<I", _exactly(file, 4)), 8
    if not length:
        return None
    if length > min(size - at, _MOST_METADATA):
        raise pa.ArrowInvalid(f"truncated, or damaged at byte {at}: a message of {length:,} bytes")
    found = _parsed(_exactly(file, length), at, at + n_before + length)
    if found.stop > size:
        raise pa.ArrowInvalid(f"truncated: it has {size:,} bytes, but its message at byte {at} ends at {found.stop:,}")
    if found.stop - found.start > LARGEST_SHARD:
        raise InputError(
            f"the record batch at byte {at} has {found.stop - at:,} bytes, more than {LARGEST_SHARD:,}. Write smaller batches."
        )
    return found


def footer(file: Any, size: int) -> tuple[list[Message], list[Message]]:
    """The dictionaries and the record batches that the footer of an open file names.

    Raises:
        InputError: a message is larger than what is read at a time.
        pyarrow.ArrowInvalid: the footer or a message is damaged.
    """
    end = size - len(MAGIC) - 4
    file.seek(max(0, end))
    length, magic = struct.unpack("<i6s", _exactly(file, 10))
    if magic != MAGIC or not 0 < length <= min(end, _MOST_METADATA):
        raise pa.ArrowInvalid("truncated: it has no footer")
    file.seek(end - length)
    content = _exactly(file, length)
    table = _Table(content, *_numbers(content, 0, "<I"))
    found: tuple[list[Message], list[Message]] = ([], [])
    for of, kind in zip(found, (DICTIONARY, BATCH), strict=True):
        for at, *_ in table.structs(kind, "<qi4xq"):  # the fields 2 and 3 are numbered as the kinds are
            message = message_at(file, at, size) if 0 <= at < size else None
            if message is None or message.kind != kind:
                raise pa.ArrowInvalid(f"damaged: its footer names byte {at}, where no such message is")
            of.append(message)
    return found


def content_of(file: Any, message: Message) -> bytes:
    """A whole message."""
    file.seek(message.start)
    return _exactly(file, message.stop - message.start)


def check_size(message: Message, content: bytes) -> None:
    """Raises ArrowInvalid if the data of a whole message would take too much memory."""
    if (size := _unpacked_size(message, content)) > LARGEST_SHARD:
        raise pa.ArrowInvalid(f"{size:,} bytes uncompressed, more than {LARGEST_SHARD:,}. Write smaller batches")


def _unpacked_size(message: Message, content: bytes) -> int:
    size = message.stop - message.body
    for place, length in message.buffers:
        at = message.body - message.start + place
        if length >= 8 and 0 <= at <= len(content) - 8:
            size += max(0, struct.unpack_from("<q", content, at)[0])  # -1: this one is not compressed
    return size


def _exactly(file: Any, n: int) -> bytes:
    content: bytes = file.read(n)
    if len(content) < n:
        raise pa.ArrowInvalid("truncated: it ends inside a message")
    return content


def _parsed(metadata: bytes, start: int, body: int) -> Message:
    """The message with this metadata, a flatbuffer of the type Message of Arrow's format."""
    table = _Table(metadata, *_numbers(metadata, 0, "<I"))
    kind = table.number(1, "<B")
    rows, buffers = 0, []
    if kind in (DICTIONARY, BATCH) and (batch := table.child(2)) and (kind == BATCH or (batch := batch.child(1))):
        rows = batch.number(0, "<q") if kind == BATCH else 0
        if batch.child(3):
            buffers = batch.structs(2, "<qq")
    n_bytes = table.number(3, "<q")
    if kind not in (SCHEMA, DICTIONARY, BATCH) or rows < 0 or n_bytes < 0:
        raise pa.ArrowInvalid(f"damaged at byte {start}: a message of kind {kind} with {rows} rows and {n_bytes} bytes")
    if rows > max(_ROWS_WITHOUT_DATA, 8 * n_bytes) and not buffers:
        raise pa.ArrowInvalid(f"damaged at byte {start}: {rows:,} rows in {n_bytes:,} bytes")
    return Message(kind, start, body, body + n_bytes, rows, buffers)


class _Table(NamedTuple):
    """A table of a flatbuffer."""

    content: bytes
    at: int

    def _place(self, i: int) -> int | None:
        """The place of field i; None if the table lacks it."""
        fields = self.at - _numbers(self.content, self.at, "<i")[0]
        (size,) = _numbers(self.content, fields, "<H")
        (offset,) = _numbers(self.content, fields + 4 + 2 * i, "<H") if 6 + 2 * i <= size else (0,)
        return self.at + offset if offset else None

    def number(self, i: int, form: str) -> int:
        """The number in field i; 0 if the table lacks it."""
        place = self._place(i)
        return 0 if place is None else int(_numbers(self.content, place, form)[0])

    def child(self, i: int) -> "_Table | None":
        """The table in field i; None if the table lacks it."""
        place = self._place(i)
        return None if place is None else _Table(self.content, place + _numbers(self.content, place, "<I")[0])

    def structs(self, i: int, form: str) -> list[Any]:
        """The list of structs of this form in field i."""
        if not (vector := self.child(i)):
            return []
        (n,), size = _numbers(self.content, vector.at, "<I"), struct.calcsize(form)
        if vector.at + 4 + n * size > len(self.content):
            raise pa.ArrowInvalid(f"damaged: a list of {n:,} places")
        return list(struct.iter_unpack(form, self.content[vector.at + 4 : vector.at + 4 + n * size]))


def _numbers(content: bytes, at: int, form: str) -> tuple[int, ...]:
    if not 0 <= at <= len(content) - struct.calcsize(form):
        raise pa.ArrowInvalid(f"damaged: its metadata points {at:,} bytes into {len(content):,}")
    return struct.unpack_from(form, content, at)
