"""Parses options of the form NAME=STORE."""

import re
from collections.abc import Sequence

from rho_score.errors import InputError
from rho_score.files.urls import absolute


def parse_named(given: Sequence[str], option: str, *, default: str = "ref") -> dict[str, str]:
    """The values of a repeated option by name. A value without a name is called `default`.

    Raises InputError, naming `option`, if a name is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        named = re.match(r"([A-Za-z0-9_.-]+)=(.+)", text)
        name, value = (named[1], named[2]) if named else (default, text)
        if name in found:
            again = f"{option} " if option.startswith("--") else ""
            raise InputError(
                f"{option}: two values are called {name!r}. Name each, as in {again}math=scores/math {again}code=scores/code."
            )
        found[name] = value
    return found


def absolute_named(given: Sequence[str], option: str, *, default: str = "ref") -> dict[str, str]:
    """What `parse_named` returns, with absolute paths or URLs."""
    return {name: absolute(url) for name, url in parse_named(given, option, default=default).items()}
