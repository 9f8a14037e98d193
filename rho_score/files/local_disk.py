"""Writes files on local disks so that they exist whole or not at all."""

import os
import uuid
from pathlib import Path


def publish(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Writes a file: writes a temporary file, syncs it and renames it.

    replace: False keeps a file that exists. If two processes then write at the same time, exactly
    one succeeds.

    Raises:
        FileExistsError: the file exists and `replace` is False.
        OSError: the disk is full or fails. No temporary file is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[-80:]}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            _link(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _link(temporary: Path, path: Path) -> None:
    """Renames `temporary` to `path`; raises FileExistsError if that exists."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)
    else:
        temporary.unlink()
