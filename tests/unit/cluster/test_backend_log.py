"""What Ray's C++ part is told, and what of standard error is shown."""

import ctypes
import os

import pytest

from rho_score.cluster.backend_log import quiet_backend

LEVEL = "RAY_BACKEND_LOG_LEVEL"


def _level() -> bytes | None:
    """The variable as C code of this process reads it."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    found: bytes | None = getenv(LEVEL.encode())
    return found


def test_only_this_process_is_told_and_only_meanwhile(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(LEVEL, raising=False)
    with quiet_backend():
        assert _level() == b"fatal"
        assert LEVEL not in os.environ  # which is what processes that Ray starts inherit
        os.write(2, f"[logging.cc] Set ray log level from {LEVEL}\nanother line\n".encode())
    assert _level() is None
    assert capfd.readouterr().err == "another line\n"


def test_what_was_printed_is_shown_after_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(LEVEL, raising=False)

    def fail() -> None:
        os.write(2, b"the reason\n")
        raise RuntimeError("no cluster")

    with pytest.raises(RuntimeError, match="no cluster"), quiet_backend():
        fail()
    assert capfd.readouterr().err == "the reason\n"


def test_the_level_that_the_user_chose_stays(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LEVEL, "info")
    with quiet_backend():
        assert _level() == b"info"
        os.write(2, f"{LEVEL}\n".encode())
    assert capfd.readouterr().err == f"{LEVEL}\n"
