"""Makes text from outside safe to show on a terminal, in a log or on a page. Pure functions.

Documents, ids, groups, file names and the errors of other libraries cannot be trusted: a control
character can move a terminal's cursor, and a URL can hold a password or a signature.
"""

import re
import unicodedata

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories of invisible characters: controls, formats, surrogates, line separators."""

_SECRETS = [
    # user:password@ before a host, with the scheme or, as in the errors of drivers, without it.
    # A password may hold a slash.
    (r"(?<=://)[^\s/@'\"]*@|(?<=://)[^\s/:@'\"]{1,256}:(?!\d{1,5}/)[^\s'\"]{0,256}@", ""),
    (r"(?<![^\s/'\"])[^\s/:@'\"]{1,256}:[^\s/@'\"]{1,256}@(?=[\w.-])", ""),
    # the query of a URL, percent-encoded or not
    (r"\?[^\s'\"<>?=]*=[^\s'\"<>]*|%3F(?:(?!%3F|%3D)[^\s'\"<>])*%3D[^\s'\"<>]*", ""),
    # single parameters of a query that was cut up
    (
        r"\b(x-amz-[a-z-]{1,40}|signature|sig|awsaccesskeyid|[a-z_]{0,40}(?:secret|token|password)[a-z_]{0,40})(=|%3D)[^\s&'\"]+",
        r"\1\2…",
    ),
]
"""Patterns of secrets, each with its replacement.

Lengths are bounded, so that matching stays fast on a megabyte of any text.
"""
_PATTERNS = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in _SECRETS]


def visible(text: str) -> str:
    """`text` on one line, with invisible characters as numbers: "\\x1b[31m" is "‹001B›[31m"."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"‹{ord(c):04X}›" if unicodedata.category(c) in _UNSEEN else c for c in text)


LONGEST_NAME = 200


def shown_name(text: str | None, missing: str = "(none)") -> str:
    """An id or a group as a page shows it: on one line, shortened, all characters visible."""
    if text is None:
        return missing
    return visible(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…")


def spreadsheet_cell(text: str) -> str:
    """`text` with a ' in front if a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def visible_lines(text: str) -> str:
    """`text` with its line breaks, and each line as `visible` shows it."""
    return "\n".join(map(visible, text.split("\n")))


def without_secrets(text: str) -> str:
    """`text` with the user names, passwords and queries of its URLs removed."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
