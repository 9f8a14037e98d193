"""Whether a place can be written to."""

import os
from pathlib import Path

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.urls import absolute


def check_writable(option: str, url: str, *, file: bool = False) -> None:
    """Raise where a local folder (or `file`) at this place could not be written, or there is no driver for the URL.

    Object stores are not asked: only a write tells.

    Raises:
        InputError: names the option and the folder that is in the way.
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
