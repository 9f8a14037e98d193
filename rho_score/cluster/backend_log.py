"""Keeps the C++ part of Ray from printing to the user's screen."""

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_LEVEL = "RAY_BACKEND_LOG_LEVEL"


@contextmanager
def quiet_backend() -> Iterator[None]:
    """Around `ray.init`: this process prints only fatal errors of Ray's C++ part, unless the user chose a level.

    In every run that part reports the way in which Ray Data makes its workers as an error
    (ray-project/ray issue 57733). What ends a run comes as an exception.

    The level is set in the C environment alone, which the processes of a cluster do not inherit, so
    their log files are as detailed as ever. Ray tells that it took the level; that line is left out
    of what is printed meanwhile, and the rest is printed afterwards.
    """
    if _LEVEL in os.environ:
        yield
        return
    libc = ctypes.CDLL(None)
    libc.setenv(_LEVEL.encode(), b"fatal", 1)
    try:
        with _standard_error_without(_LEVEL.encode()):
            yield
    finally:
        libc.unsetenv(_LEVEL.encode())


@contextmanager
def _standard_error_without(word: bytes) -> Iterator[None]:
    """Prints what is written to standard error meanwhile at the end, without the lines that hold `word`."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            for line in kept:
                if word not in line:
                    os.write(2, line)
