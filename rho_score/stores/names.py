"""Parses options of the form NAME=STORE."""

import re
from collections.abc import Sequence

from rho_score.errors import InputError
from rho_score.files.urls import absolute

_NAMED = re.compile(r"([A-Za-z0-9_.-]+)=(.+)")


def parse_named(given: Sequence[str], option: str, *, default: str = "ref") -> dict[str, str]:
    """The values of a repeated option by name. A value without a name is called `default`.

    Raises InputError, naming `option`, if a name is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        named = _NAMED.match(text)
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


def named_or_told_apart(given: Sequence[str]) -> dict[str, str]:
    """Absolute paths or URLs by name, from arguments of the form [NAME=]STORE.

    Those without a name are called by the shortest ends of their URLs that tell them apart. Raises
    InputError if a store or a name is given twice.
    """
    matches = [_NAMED.match(text) for text in given]
    urls = [absolute(named[2] if named else text) for text, named in zip(given, matches, strict=True)]
    ends = told_apart(urls)
    if ends is None:
        raise InputError(f"a store is given twice: {max(urls, key=urls.count)}. Name each once.")
    names = [named[1] if named else end for named, end in zip(matches, ends, strict=True)]
    if len(set(names)) < len(names):
        raise InputError(
            f"two stores are called {max(names, key=names.count)!r}. Give each another name, as in NAME=STORE."
        )
    return dict(zip(names, urls, strict=True))


def told_apart(urls: Sequence[str]) -> list[str] | None:
    """The shortest ends of URLs, in whole parts, that tell them apart; None if two are the same."""
    for n_parts in range(1, 32):
        names = ["/".join(url.rstrip("/").split("/")[-n_parts:]) for url in urls]
        if len(set(names)) == len(names):
            return names
    return None
