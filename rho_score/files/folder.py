"""Folders behind any fsspec URL: listing, reading, atomic publishing, retries.

A published file is complete. On a local disk it is a temporary file, fsync and rename; elsewhere one whole PUT.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
from fsspec.config import conf
from fsspec.implementations.local import LocalFileSystem

from rho_score.errors import InputError, StorageError
from rho_score.files import local_disk as disk
from rho_score.files.retries import is_of_storage, kind_of, storage_error, with_retries
from rho_score.files.urls import absolute, without_credentials

T = TypeVar("T")


# Stores whose PUT of a whole object is atomic; elsewhere a temporary file is renamed.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "r2", "memory"}
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)  # answers, not failures
READ_BLOCK = 4 << 20  # bytes fetched at a time: a peek at a shard's head must not cost fifty megabytes


@dataclass(frozen=True)
class FileInfo:
    """One file of a listing: size in bytes; version is the etag, else the time of the last change."""

    size: int
    version: str


@dataclass(frozen=True)
class Folder:
    """A folder at a path or fsspec URL. Names are relative to it, with forward slashes. Cheap to send to a worker."""

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", absolute(self.url))

    @cached_property
    def _fs_and_path(self) -> tuple[Any, str]:
        try:
            fs, path = fsspec.core.url_to_fs(self.url, **_driver_options(self.url))
        except (ValueError, ImportError) as error:  # an unknown protocol, or its driver is not installed
            raise InputError(f"{without_credentials(self.url)} cannot be opened: {error}") from error
        if _is_s3(self.url):
            fs.retries = 1  # s3fs' own, around botocore's; ours are enough
        return fs, path.rstrip("/")

    @property
    def fs(self) -> Any:
        """The fsspec file system."""
        return self._fs_and_path[0]

    @property
    def path(self) -> str:
        """The folder's path inside the file system."""
        return self._fs_and_path[1]

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def name(self, name: str) -> str:
        """Full path of `name`; refuses one that leads out of the folder."""
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise InputError(f"{name!r} leads out of the folder {self.url}.")
        return f"{self.path}/{name}" if name else self.path

    def _try(self, doing: str, name: str, call: Callable[[], T], *, known: bool = False) -> T:
        """`call()` with retries; `known`: `name` should exist. An answer that it does not, or does, is passed on.

        Raises:
            StorageError: the storage refused, or failed for too long.
        """
        try:
            return with_retries(call, missing_passes=known and not self._is_local)
        except _ABSENT:
            raise
        except Exception as error:
            if not is_of_storage(error):
                raise
            raise self.error(doing, name, error) from error

    def error(self, doing: str, name: str, error: BaseException) -> StorageError:
        """The error that a user sees where `name` could not be `doing` ("read", "written", "listed")."""
        return storage_error(doing, f"{without_credentials(self.url).rstrip('/')}/{name}".rstrip("/"), error)

    @property
    def _is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def listing(self, under: str = "") -> dict[str, FileInfo]:
        """All files below `under`, by name relative to it; empty where there is no such folder.

        Names with a part that begins with a dot are left out: they are unfinished or not ours.
        """
        top = self.name(under)
        # a walk leaves out what it cannot list, unless it is told not to; object stores list without walking
        options = {"on_error": "raise"} if self._is_local else {}

        def find() -> dict[str, Any]:
            self.fs.invalidate_cache()
            try:
                return dict(self.fs.find(top, detail=True, **options))
            except FileNotFoundError:
                if self._is_local and Path(top).exists():  # a file went away under the walk
                    raise TimeoutError(f"{top} changes while it is listed") from None
                return {}

        files = {}
        for path, info in sorted(self._try("listed", under, find).items()):
            name = path[len(top) :].lstrip("/")
            if name and not any(part.startswith(".") for part in name.split("/")):
                files[name] = FileInfo(size=info["size"], version=_version(info))
        return files

    def names(self, under: str) -> set[str]:
        """Names of the files right below `under`, as `listing` gives them; a million of them take little memory."""
        top = self.name(under)

        def scan() -> set[str]:
            if self._is_local:
                with os.scandir(top) as entries:
                    return {entry.name for entry in entries}
            self.fs.invalidate_cache()
            return {path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(top, detail=False)}

        try:
            return {name for name in self._try("listed", under, scan) if not name.startswith(".")}
        except FileNotFoundError:
            return set()

    def info(self, name: str) -> FileInfo:
        """Size and version of a file that should exist, asked of the store.

        Raises:
            FileNotFoundError: it is not there, or is a folder.
        """

        def ask() -> dict[str, Any]:
            self.fs.invalidate_cache()
            return dict(self.fs.info(self.name(name)))

        found = self._try("read", name, ask, known=True)
        if found["type"] == "directory":
            raise FileNotFoundError(f"{self.url}/{name} is a folder")
        return FileInfo(size=found["size"], version=_version(found))

    def exists(self, name: str = "") -> bool:
        """Whether `name` is there, asked of the store and not of a cached listing."""
        self.fs.invalidate_cache()
        path = self.name(name)

        def ask() -> bool:  # `exists` of drivers that are not asynchronous takes every error for an answer
            if self.fs.async_impl:
                return bool(self.fs.exists(path))
            try:
                self.fs.info(path)
            except OSError as error:
                if isinstance(error, _ABSENT) or error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                    return False
                raise
            return True

        return self._try("read", name, ask)

    def is_file(self) -> bool:
        """Whether the folder is none, but a file."""
        try:
            return str(self._try("read", "", lambda: self.fs.info(self.path))["type"]) == "file"
        except _ABSENT:
            return False

    def read(self, name: str) -> bytes:
        """The whole content of `name`."""
        content: bytes = self._try("read", name, lambda: self.fs.cat_file(self.name(name)))
        return content

    def open(self, name: str) -> Any:
        """`name`, which should exist, opened for reading bytes; each piece that is fetched is fetched with retries."""
        path = self.name(name)
        file = self._try("read", name, lambda: self.fs.open(path, "rb", block_size=READ_BLOCK), known=True)
        if (cache := getattr(file, "cache", None)) is not None and isinstance(cache.size, int):
            cache.fetcher = partial(self._fetch, name, cache.fetcher, cache.size)
        return file

    def _fetch(self, name: str, fetch: Callable[[int, int], bytes], size: int, start: int, end: int) -> bytes:
        def whole() -> bytes:
            content = fetch(start, end)
            if (missing := min(end, size) - start - len(content)) > 0:
                raise ConnectionError(f"{missing} bytes fewer than asked for came")
            return content

        return self._try("read", name, whole, known=True)

    def open_mapped(self, name: str) -> Any:
        """`name` opened for reading parts of it: mapped into memory on a local disk, else as `open` does."""
        if self._is_local:
            return pa.memory_map(self.name(name))
        return self.open(name)

    def publish(self, name: str, content: bytes) -> None:
        """Write `name` so that it is there whole or not at all; an existing file is replaced."""
        path = self.name(name)
        if self._is_local:
            self._try("written", name, lambda: disk.publish(Path(path), content))
        elif self._is_object_store:
            self._try("written", name, lambda: self.fs.pipe_file(path, content))
        else:
            self._try("written", name, lambda: self._publish_by_rename(path, content))

    def create(self, name: str, content: bytes) -> bool:
        """Publish `name` unless it exists; whether it did not.

        Of two that create at once one wins on local disks, and on object stores that know conditional writes; on others
        the last one does, see `store.claim`.
        """
        path = self.name(name)
        if self.exists(name):
            return False
        try:
            if self._is_local:
                self._try("written", name, lambda: disk.publish(Path(path), content, replace=False))
            elif self._is_object_store:
                self._try("written", name, lambda: self._create_object(path, content))
            else:
                self.publish(name, content)
        except FileExistsError:
            return False
        return True

    def _create_object(self, path: str, content: bytes) -> None:
        try:
            self.fs.pipe_file(path, content, mode="create")
        except OSError as error:
            if kind_of(error) in ("PreconditionFailed", "412"):
                raise FileExistsError(path) from error
            if kind_of(error) not in ("NotImplemented", "501"):
                raise
            self.fs.pipe_file(path, content)

    def remove(self, name: str) -> None:
        """Remove `name`, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._try("removed", name, lambda: self.fs.rm_file(self.name(name)))

    @property
    def _is_object_store(self) -> bool:
        protocols = [self.fs.protocol] if isinstance(self.fs.protocol, str) else self.fs.protocol
        return bool(_OBJECT_STORES.intersection(protocols))

    def _publish_by_rename(self, path: str, content: bytes) -> None:
        parent, _, name = path.rpartition("/")
        temporary = f"{parent}/.{name[-80:]}.{uuid.uuid4().hex}"
        self.fs.makedirs(parent, exist_ok=True)
        self.fs.pipe_file(temporary, content)
        self.fs.mv(temporary, path)


def _driver_options(url: str) -> dict[str, Any]:
    """Options that a file system is opened with, beside the user's own (`FSSPEC_S3` and fsspec's configuration files)."""
    if not _is_s3(url):
        return {}
    theirs = conf.get("s3", {}).get("config_kwargs", {})
    return {
        "config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 30, **theirs}
    }


def _is_s3(url: str) -> bool:
    return url.partition("://")[0] in {"s3", "s3a"}


def file_at(url: str) -> tuple[Folder, str]:
    """The folder of the file at `url`, and its name there."""
    head, _, name = os.fspath(url).rpartition("/")
    return Folder(head or ("/" if url.startswith("/") else ".")), name


def _version(info: dict[str, Any]) -> str:
    value = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
    if isinstance(value, datetime):  # a listing has milliseconds where a single object's header has none
        value = int(value.timestamp())
    return str(value).strip('"')
