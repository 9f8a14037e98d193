"""Output whose reader goes away, as that of `rho-score … | head -1` does."""

import os
import sys
from typing import Any, TextIO, cast


def outlive_readers() -> None:
    """From here on, what this process prints after the reader of its output went away is lost without a word.

    A run is not ended, nor its exit code changed, by a reader that has seen enough: the work is in its output.
    """
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:
            setattr(sys, name, cast("TextIO", _Patient(stream)))


class _Patient:
    """A text stream that writes into nothing once its pipe is broken."""

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
        """What is buffered goes nowhere too, so that Python can flush it when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
