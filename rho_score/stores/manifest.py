"""The manifest of a store: what determines its numbers, its fingerprint, and how two manifests differ."""

import hashlib
import posixpath
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from fsspec.implementations.local import LocalFileSystem

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.urls import without_credentials
from rho_score.safe_text import without_secrets
from rho_score.stores.layout import MANIFEST
from rho_score.stores.shapes import (
    Manifest,
    read_json,
)
from rho_score.version import __version__

Kind = Literal["score set", "selection", "export"]


def new_manifest(kind: Kind, parts: JsonObject, **about: Any) -> JsonObject:
    """A manifest: the parts that determine the numbers, their SHA-256 as the fingerprint, and `about` beside them."""
    parts = orjson.loads(orjson.dumps(parts))
    return {"kind": kind, "fingerprint": _fingerprint(parts), "parts": parts, "rho_score": __version__, **about}


def difference(
    left: JsonObject,
    right: JsonObject,
    left_name: str,
    right_name: str,
    keys: Sequence[str] | None = None,
) -> str:
    """The parts of two fingerprints that differ, a line each; empty if none does."""
    every = keys or sorted({*left, *right})
    return "\n".join(
        f"  {key}: {left_name} {left.get(key)!r}, {right_name} {right.get(key)!r}"
        for key in every
        if left.get(key) != right.get(key)
    )


def read_manifest(folder: Folder) -> JsonObject:
    """The manifest of a store; raises InputError if there is none, or it is not one."""
    try:
        found = read_json(folder, MANIFEST, Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder.url} is no store of ours: it has no {MANIFEST}. Check the path.") from None
    if _fingerprint(found["parts"]) != found["fingerprint"]:
        raise InputError(f"{folder.url}/{MANIFEST} was changed: its fingerprint is not that of its parts.")
    return found


def _fingerprint(parts: JsonObject) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def resolve_relative(folder: Folder, place: str) -> str:
    """A place noted relative to the store at `folder` (by `relative_url`), as a URL; a whole URL as it is."""
    if "://" in place:
        return place
    return str(folder.fs.unstrip_protocol(posixpath.normpath(posixpath.join(folder.path, place))))


def relative_url(url: str, start: str) -> str | None:
    """`url` as seen from the store at `start`, where both are on one file system; else as it is, without credentials.

    None for a place on this machine as seen from a store elsewhere: it would say nothing there.
    """
    here, there = Folder(url), Folder(start)
    if here.fs == there.fs:
        return without_secrets(posixpath.relpath(here.path, there.path))
    return without_credentials(url) if "://" in url and not isinstance(here.fs, LocalFileSystem) else None
