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
    (r"(?<=://)[^\s/@'\"]*@|(?<=://)[^\s/:@'\"]{1,256}:(?!\d{1,5}/)[^\s'\"]{0,256}@", ""),
    (r"(?<![^\s/'\"])[^\s/:@'\"]{1,256}:[^\s/@'\"]{1,256}@(?=[\w.-])", ""),
    # the query of a URL, as it is or quoted
    (r"\?[^\s'\"<>?=]*=[^\s'\"<>]*|%3F(?:(?!%3F|%3D)[^\s'\"<>])*%3D[^\s'\"<>]*", ""),
    # what is left of one
    (
        r"\b(x-amz-[a-z-]{1,40}|signature|sig|awsaccesskeyid|[a-z_]{0,40}(?:secret|token|password)[a-z_]{0,40})(=|%3D)[^\s&'\"]+",
        r"\1\2…",
    ),
]
"""What is looked for, and what stands there instead. Lengths are bounded, so that a megabyte of anything takes no time."""
_PATTERNS = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in _SECRETS]


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
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
