"""Lets a run go on when the reader of its output goes away, as in `rho-score … | head -1`."""

import os
import sys
from typing import Any, TextIO, cast


def outlive_readers() -> None:
    """From now on, drops silently what this process prints after its reader has gone away.

    A reader that has seen enough neither ends a run nor changes its exit code: the result of a run
    is what it stores, not what it prints.
    """
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:
            setattr(sys, name, cast("TextIO", _Patient(stream)))


class _Patient:
    """A text stream that drops what is written to it once its pipe is broken."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        """Sends everything to the null device, so that Python can flush the buffer when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
