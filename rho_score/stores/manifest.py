"""The manifest of a store: the parts that determine its numbers, and their fingerprint."""

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

Kind = Literal["score set", "selection", "export", "training run", "tuning", "deduplicated corpus"]


def new_manifest(kind: Kind, parts: JsonObject, **about: Any) -> JsonObject:
    """A manifest of the parts that determine the numbers, with their SHA-256 as the fingerprint.

    about: further fields, which the fingerprint does not cover.
    """
    parts = orjson.loads(orjson.dumps(parts))
    return {"kind": kind, "fingerprint": fingerprint(parts), "parts": parts, "rho_score": __version__, **about}


def difference(
    left: JsonObject,
    right: JsonObject,
    left_name: str,
    right_name: str,
    keys: Sequence[str] | None = None,
) -> str:
    """The parts in which two manifests differ, one line each; empty if there are none.

    keys: the parts to compare; all of them by default.
    """
    every = keys or sorted({*left, *right})
    return "\n".join(
        f"  {key}: {left_name} {left.get(key)!r}, {right_name} {right.get(key)!r}"
        for key in every
        if left.get(key) != right.get(key)
    )


def read_manifest(folder: Folder) -> JsonObject:
    """The manifest of a store; raises InputError if there is none, or if it was changed."""
    try:
        found = read_json(folder, MANIFEST, Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder.url} is not a rho-score store: it has no {MANIFEST}. Check the path.") from None
    if fingerprint(found["parts"]) != found["fingerprint"]:
        raise InputError(
            f"{folder.url}/{MANIFEST} was changed: its fingerprint does not match its parts. Restore the file."
        )
    return found


def fingerprint(parts: JsonObject) -> str:
    """The SHA-256 of the parts of a manifest, as a hexadecimal string."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def resolve_relative(folder: Folder, place: str) -> str:
    """The URL of a place that `relative_url` noted in the store at `folder`.

    A full URL is returned unchanged.
    """
    if "://" in place:
        return place
    return str(folder.fs.unstrip_protocol(posixpath.normpath(posixpath.join(folder.path, place))))


def relative_url(url: str, start: str) -> str | None:
    """The way in which the store at `start` notes `url`, without credentials.

    This is a relative path if both are on one file system, and a full URL otherwise. It is None
    for a path on this machine if the store is elsewhere, because the path would mean nothing there.
    """
    here, there = Folder(url), Folder(start)
    if here.fs == there.fs:
        return without_secrets(posixpath.relpath(here.path, there.path))
    return without_credentials(url) if "://" in url and not isinstance(here.fs, LocalFileSystem) else None
