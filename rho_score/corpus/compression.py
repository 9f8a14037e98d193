"""Compressed files: which compression they have, and their content in bounded memory.

Also tells errors that come from a broken file from errors that come from the storage.
"""

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

# Errors that readers raise on a broken file.
DAMAGE = (pa.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError)

_MAGIC = {
    ".gz": re.compile(rb"\x1f\x8b"),
    ".lz4": re.compile(rb"\x04\x22\x4d\x18"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # a frame, or a skippable one
    ".bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),  # a block, or the end of an empty stream
    ".xz": re.compile(rb"\xfd7zXZ\x00"),
}
MAGIC_BYTES = 10  # the length of the longest of these patterns
_NAMES = {"gz": ".gz", "gzip": ".gz", "zst": ".zst", "zstd": ".zst", "lz4": ".lz4", "bz2": ".bz2", "xz": ".xz"}
TOOLS = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4", ".bz2": "bzip2", ".xz": "xz"}

# pyarrow and bz2 use these words in errors about a broken file. Such errors have no errno; errors
# of the storage have one.
_DAMAGED = re.compile(r"(?i)corrupt|compress|deserializ|truncated|unexpected end|invalid|checksum|crc|page")
_PIECE = 1 << 16
_MOST_XZ_MEMORY = 256 << 20  # four times what the largest preset of xz needs


def is_damage(error: BaseException) -> bool:
    """True if an error means that the file is broken, False if it means that the storage failed.

    Documents in a broken file are quarantined. A failing storage ends the run, which can resume.
    """
    if isinstance(error, (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, pa.ArrowInvalid)):
        return True
    return getattr(error, "errno", None) is None and bool(_DAMAGED.search(str(error)))


def compression_of(head: bytes) -> str:
    """The compression of a file with these first bytes: `.gz`, `.zst`, `.lz4`, `.bz2`, `.xz` or ""."""
    return next((suffix for suffix, magic in _MAGIC.items() if magic.match(head)), "")


def compression_named(name: str) -> str:
    """The compression that a file's name states, in the same form as `compression_of`."""
    return _NAMES.get(name.lower().rpartition(".")[2], "")


def decompressed(file: Any, suffix: str) -> Any:
    """A binary stream of the decompressed content of a file.

    suffix: a format that ends with the compression, such as `.jsonl.gz` or `.gz`.
    """
    if suffix.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    # With a small buffer, little of what was decoded before a break in the stream is lost.
    for ending, codec in ((".zst", "zstd"), (".lz4", "lz4")):
        if suffix.endswith(ending):
            return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), codec), 4096)
    if suffix.endswith(".bz2"):
        return io.BufferedReader(_Streams(file, bz2.BZ2Decompressor), 4096)
    if suffix.endswith(".xz"):
        limited = partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=_MOST_XZ_MEMORY)
        return io.BufferedReader(_Streams(file, limited), 4096)
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file, 1 << 20)


class _Streams(io.RawIOBase):
    """The content of the streams in a file, with zeros allowed between and after them.

    If the bytes after a stream are not another stream, the standard library's readers stop without
    an error. Here, such bytes are damage.
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
        """The next bytes, at most `at_most`; empty at the end of the file."""
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
        """The first bytes after the stream, without leading zeros; empty at the end of the file."""
        found = self._decoder.unused_data.lstrip(b"\0")
        while not found and (more := self._file.read(_PIECE)):
            found = more.lstrip(b"\0")
        return bytes(found)
