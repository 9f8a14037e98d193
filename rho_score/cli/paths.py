"""Expands `~` and `$VARIABLE` in options that are paths or URLs."""

import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from rho_score.errors import InputError

C = TypeVar("C")
PATHS = frozenset(
    {
        "input",
        "output",
        "values",
        "like",
        "counted_in",
        "model",
        "scores",
        "reuse",
        "ref",
        "base",
        "selection",
        "store",
        "plot",
        "csv",
        "page",
        "beside",
        "cache",
    }
)
"""Names of the options that are paths or URLs."""


_NAMED = re.compile(r"([A-Za-z0-9_.-]+=)(~.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})")


def with_home(config: C) -> C:
    """The configuration with the home folder for each `~` that the shell left in its paths.

    In NAME=PATH, `~` is expanded too.
    """
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in PATHS}  # type: ignore[arg-type]
    changed = {name: _each(value, home) for name, value in values.items()}
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def home(path: str) -> str:
    """`path`, or NAME=PATH, with the home folder for `~`."""
    named = _NAMED.fullmatch(path)
    return named[1] + os.path.expanduser(named[2]) if named else os.path.expanduser(path)  # noqa: PTH111


def with_variables(option: str, value: Any) -> Any:
    """The value of a path option in a file, text or a list, with environment variables expanded.

    `$$` is a dollar sign.

    Raises:
        InputError: a variable is not set. The message names it and the option.
    """

    def found(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name = match[2] or match[3]
        if name not in os.environ:
            raise InputError(
                f"{option}: the environment variable {name!r} is not set. Set it, or write $$ for a dollar sign."
            )
        return os.environ[name]

    return _each(value, lambda path: _VARIABLE.sub(found, path))


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_each(one, change) for one in value)
    return value
