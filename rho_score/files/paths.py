"""Checks before a run whether its output can be written."""

import os
from pathlib import Path

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.urls import absolute


def check_writable(option: str, url: str, *, file: bool = False) -> None:
    """Checks that a folder (or a file, if `file` is True) can be written at `url`.

    For a URL, only its driver is checked, because only a write shows whether a storage accepts it.

    option: the name of the option, for the message.

    Raises:
        InputError: the local path cannot be written, or the URL has no driver. The message names
            the option and the path or file that is in the way.
    """
    if "://" in url or "::" in url:
        _ = Folder(url).fs
        return
    path = Path(absolute(url))
    existing = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if file and path.is_dir():
        raise InputError(f"{option} {url} is a folder. Name a file in it.")
    if existing.is_dir():
        if not os.access(existing, os.W_OK | os.X_OK):
            if os.statvfs(existing).f_flag & os.ST_RDONLY:
                why, remedy = "is on a read-only file system", "Mount that disk for writing"
            else:
                why, remedy = "cannot be written to", "Change its permissions"
            raise InputError(f"{option} {url}: {existing} {why}. {remedy}, or choose another place.")
    elif existing != path or not file:
        raise InputError(f"{option} {url}: {existing} is not a folder. Choose another place.")
