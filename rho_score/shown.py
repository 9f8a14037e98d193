"""Text that others wrote, made fit for a terminal, a log or a page. Pure functions.

Documents, ids, groups, file names and errors of other libraries are hostile: a control character moves a terminal's cursor,
and an address may hold a password or a signature.
"""

import re
import unicodedata

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories of characters that act and are not seen: controls, directions, surrogates, line separators."""

_SECRETS = [
    # user:password@ in front of a host, with its scheme or (in the drivers' errors) without; a password may hold a slash
    (re.compile(r"(?<=://)[^\s/@'\"]*@|(?<=://)[^\s/:@'\"]+:(?!\d{1,5}/)[^\s'\"]*@"), ""),
    (re.compile(r"[^\s/:@'\"]+:[^\s/@'\"]+@(?=[\w.-])"), ""),
    # the query of a URL, as it is or quoted
    (re.compile(r"\?[^\s'\"<>]*=[^\s'\"<>]*|%3F[^\s'\"<>]*%3D[^\s'\"<>]*", re.IGNORECASE), ""),
    # what is left of one
    (
        re.compile(
            r"\b(x-amz-[a-z-]+|signature|sig|awsaccesskeyid|[a-z_]*(?:secret|token|password)[a-z_]*)(=|%3D)[^\s&'\"]+",
            re.IGNORECASE,
        ),
        r"\1\2…",
    ),
]


def visible(text: str) -> str:
    """`text` on one line, each control and formatting character as its number: "\\x1b[31m" is "‹001B›[31m"."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"‹{ord(c):04X}›" if unicodedata.category(c) in _UNSEEN else c for c in text)


def visible_lines(text: str) -> str:
    """`text` with its line breaks, all else as `visible` shows it."""
    return "\n".join(map(visible, text.split("\n")))


def without_secrets(text: str) -> str:
    """`text` without the users, passwords and queries (signatures, tokens) of the URLs that it names."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
