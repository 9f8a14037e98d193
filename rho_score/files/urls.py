"""Makes URLs and paths absolute, and removes their credentials."""

import os

from rho_score.safe_text import without_secrets


def without_credentials(url: str) -> str:
    """`url` without user name, password and query, so that it can be stored and shown."""
    scheme, separator, rest = os.fspath(url).partition("://")
    if not separator:
        return scheme
    return without_secrets(f"{scheme}://{rest}").partition("?")[0]


def absolute(url: str) -> str:
    """`url` unchanged, or a local path as an absolute one.

    Workers on a cluster have another working directory, so a relative path would mislead them.
    """
    url = os.fspath(url)
    return url if "://" in url or "::" in url else os.path.abspath(os.path.expanduser(url))  # noqa: PTH100, PTH111
