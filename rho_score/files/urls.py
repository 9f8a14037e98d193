"""URLs and paths: made absolute, and shown without credentials."""

import os

from rho_score.safe_text import without_secrets


def without_credentials(url: str) -> str:
    """`url` without a user's name, password or query, fit to be stored and shown."""
    scheme, separator, rest = os.fspath(url).partition("://")
    if not separator:
        return scheme
    return without_secrets(f"{scheme}://{rest}").partition("?")[0]


def absolute(url: str) -> str:
    """`url`, a local path from the root on: workers on a cluster that runs have a working directory of their own."""
    url = os.fspath(url)
    return url if "://" in url or "::" in url else os.path.abspath(os.path.expanduser(url))  # noqa: PTH100, PTH111
