"""`~` and `$VARIABLE` in options that are paths or URLs, and whether a path can be written at all."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rho_score.errors import InputError
from rho_score.storage import Folder, absolute

PATHS = frozenset({"input", "output", "model", "scores", "ref", "base", "selection", "store", "plot", "csv"})
"""Names of the options that are paths or URLs."""

C = TypeVar("C")
_NAMED = re.compile(r"([A-Za-z0-9_.-]+=)(~.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})")


def with_home(config: C) -> C:
    """A command's configuration whose paths (NAME=PATH too) have the home folder for a `~` that the shell left."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in PATHS}  # type: ignore[arg-type]
    changed = {name: _each(value, home) for name, value in values.items()}
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def home(path: str) -> str:
    """`path`, or NAME=PATH, with the home folder for `~`."""
    named = _NAMED.fullmatch(path)
    return named[1] + os.path.expanduser(named[2]) if named else os.path.expanduser(path)  # noqa: PTH111


def with_variables(option: str, value: Any) -> Any:
    """The value of a path option as a file has it, text or a list, with the values of environment variables; $$ is a dollar.

    Raises:
        InputError: names the option and the variable that is not set.
    """

    def found(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name = match[2] or match[3]
        if name not in os.environ:
            raise InputError(
                f"{option}: the environment variable {name!r} is not set. Set it; a plain dollar is written $$."
            )
        return os.environ[name]

    return _each(value, lambda path: _VARIABLE.sub(found, path))


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_each(one, change) for one in value)
    return value


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
