"""Compressed streams: told by their first bytes, decoded in bounded memory; and what tells a broken file from a failing storage."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

DAMAGE = (pa.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError)  # what readers raise on a broken file

_MAGIC = {
    ".gz": re.compile(rb"\x1f\x8b"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # a frame, or one to skip
    ".bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),  # a block, or the end of nothing
    ".xz": re.compile(rb"\xfd7zXZ\x00"),
}
MAGIC_BYTES = 10  # so many bytes are enough to tell
_NAMES = {"gz": ".gz", "gzip": ".gz", "zst": ".zst", "zstd": ".zst", "bz2": ".bz2", "xz": ".xz"}
TOOLS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}

# What pyarrow and bz2 say of a broken file with an error that has no number; one with a number is the storage's.
_DAMAGED = re.compile(r"(?i)corrupt|compress|deserializ|truncated|unexpected end|invalid|checksum|crc|page")
_PIECE = 1 << 16
_MOST_XZ_MEMORY = 256 << 20  # the largest preset of xz needs a quarter of it


def is_damage(error: BaseException) -> bool:
    """Whether the file is broken, which quarantines; else it is the storage, which ends the run, to be resumed."""
    if isinstance(error, (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, pa.ArrowInvalid)):
        return True
    return getattr(error, "errno", None) is None and bool(_DAMAGED.search(str(error)))


def compression_of(head: bytes) -> str:
    """What these first bytes of a file are compressed with: `.gz`, `.zst`, `.bz2`, `.xz`, or "" for none of them."""
    return next((suffix for suffix, magic in _MAGIC.items() if magic.match(head)), "")


def compression_named(name: str) -> str:
    """What a file's name says that it is compressed with, as `compression_of` tells it."""
    return _NAMES.get(name.lower().rpartition(".")[2], "")


def decompressed(file: Any, suffix: str) -> Any:
    """A binary stream over the content of a file whose format ends with this suffix."""
    if suffix.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    # a small buffer: what is decoded before a break in the stream is not lost with it
    if suffix.endswith(".zst"):
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"), 4096)
    if suffix.endswith(".bz2"):
        return io.BufferedReader(_Streams(file, bz2.BZ2Decompressor), 4096)
    if suffix.endswith(".xz"):
        limited = partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=_MOST_XZ_MEMORY)
        return io.BufferedReader(_Streams(file, limited), 4096)
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file, 1 << 20)


class _Streams(io.RawIOBase):
    """The content of streams that follow each other in a file, with zeros between them or behind.

    The standard library's own readers take what is no stream behind another for the file's end: here it is damage.
    """

    def __init__(self, file: Any, start: Callable[[], Any]) -> None:
        super().__init__()
        self._file, self._start = file, start
        self._decoder = start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._next(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _next(self, at_most: int) -> bytes:
        """Some bytes, none at the end of the file."""
        while True:
            given = b""
            if self._decoder.eof:
                given = self._behind()
                if not given:
                    return b""
                self._decoder = self._start()
            elif self._decoder.needs_input:
                given = self._file.read(_PIECE)
                if not given:
                    raise EOFError("the file ends before its compressed stream does")
            if piece := self._decoder.decompress(given, at_most):
                return bytes(piece)

    def _behind(self) -> bytes:
        """What follows a stream that has ended, but for zeros."""
        found = self._decoder.unused_data.lstrip(b"\0")
        while not found and (more := self._file.read(_PIECE)):
            found = more.lstrip(b"\0")
        return bytes(found)
