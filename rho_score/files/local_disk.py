"""Files on local disks: there whole or not at all."""

import os
import uuid
from pathlib import Path


def publish(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write `path` with this content: a temporary file, fsync and rename.

    Raises:
        FileExistsError: it exists and is not to be replaced. Of two that write at once one succeeds.
        OSError: the disk is full or fails; nothing is left behind.
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
    """Give `temporary` the name `path`; raises FileExistsError if it is taken."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)
    else:
        temporary.unlink()
