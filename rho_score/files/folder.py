"""Folders behind any fsspec URL: listing, reading and atomic publishing, with retries.

A published file is always complete: it is one PUT on an object store, and elsewhere a temporary
file that is renamed.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
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


# On these stores, the PUT of a whole object is atomic.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "r2", "memory"}
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)  # no failures
READ_BLOCK = 4 << 20  # bytes fetched at a time; 50 MB by default, too much for a shard's head


@dataclass(frozen=True)
class FileInfo:
    """One file of a listing: its size in bytes, and its ETag or else its time of change."""

    size: int
    version: str
    modified: float | None = field(default=None, compare=False)
    """When it was written by the clock of the storage, in seconds since the epoch; None if the storage does not tell."""


@dataclass(frozen=True)
class Folder:
    """A folder at a path or fsspec URL, cheap to send to a worker. Names are relative to it."""

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", absolute(self.url))

    @cached_property
    def _fs_and_path(self) -> tuple[Any, str]:
        try:
            fs, path = fsspec.core.url_to_fs(self.url, **_driver_options(self.url))
        except (ValueError, ImportError) as error:  # unknown protocol, or its driver is missing
            raise InputError(f"{without_credentials(self.url)} cannot be opened: {error}") from error
        if _is_s3(self.url):
            fs.retries = 1  # one try: s3fs would retry around botocore and inside `with_retries`
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
        """The full path of `name`; raises InputError if it leads out of the folder."""
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise InputError(f"{name!r} leads out of the folder {self.url}.")
        return f"{self.path}/{name}" if name else self.path

    def _try(self, doing: str, name: str, call: Callable[[], T], *, known: bool = False) -> T:
        """The result of `call`, with retries. The errors in `_ABSENT` are raised unchanged.

        known: True if `name` should exist.

        Raises:
            StorageError: the storage refused the call, or failed until the retries ended.
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
        """The error that says that `name` could not be `doing` ("read", "written", "listed")."""
        return storage_error(doing, f"{without_credentials(self.url).rstrip('/')}/{name}".rstrip("/"), error)

    @property
    def _is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def listing(self, under: str = "") -> dict[str, FileInfo]:
        """All files below `under`, by name relative to it; empty if there is no such folder.

        Names with a part that begins with a dot are left out. Temporary files have such names.
        """
        top = self.name(under)
        # by default, a walk of a local disk skips folders that it cannot list
        options = {"on_error": "raise"} if self._is_local else {}

        def find() -> dict[str, Any]:
            self.fs.invalidate_cache()
            try:
                return dict(self.fs.find(top, detail=True, **options))
            except FileNotFoundError:
                if self._is_local and Path(top).exists():  # a file was removed during the walk
                    raise TimeoutError(f"{top} changed while it was being listed") from None
                return {}

        files = {}
        for path, info in sorted(self._try("listed", under, find).items()):
            name = path[len(top) :].lstrip("/")
            if name and not any(part.startswith(".") for part in name.split("/")):
                files[name] = FileInfo(size=info["size"], version=_version(info), modified=_modified(info))
        return files

    def names(self, under: str) -> set[str]:
        """The names directly below `under` that begin with no dot. A million take little memory."""
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
        """The size and version of a file that should exist, without using a cached listing.

        Raises:
            FileNotFoundError: `name` does not exist, or is a folder.
        """

        def ask() -> dict[str, Any]:
            self.fs.invalidate_cache()
            return dict(self.fs.info(self.name(name)))

        found = self._try("read", name, ask, known=True)
        if found["type"] == "directory":
            raise FileNotFoundError(f"{self.url}/{name} is a folder")
        return FileInfo(size=found["size"], version=_version(found), modified=_modified(found))

    def clock(self, name: str) -> float | None:
        """The time by the clock of the storage, in seconds since the epoch, as it answers about a file that exists.

        None unless the storage is S3: other drivers do not tell.
        """
        if not _is_s3(self.url):
            return None
        bucket, key, _ = self.fs.split_path(self.name(name))
        answer = self._try("read", name, lambda: self.fs.call_s3("head_object", Bucket=bucket, Key=key))
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def exists(self, name: str = "") -> bool:
        """True if `name` exists, without using a cached listing."""
        self.fs.invalidate_cache()
        path = self.name(name)

        def ask() -> bool:  # in drivers that are not asynchronous, `exists` is False on every error
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
        """True if this URL is a file."""
        try:
            return str(self._try("read", "", lambda: self.fs.info(self.path))["type"]) == "file"
        except _ABSENT:
            return False

    def read(self, name: str) -> bytes:
        """The whole content of `name`."""
        content: bytes = self._try("read", name, lambda: self.fs.cat_file(self.name(name)))
        return content

    def open(self, name: str, *, block: int = READ_BLOCK) -> Any:
        """Opens a file that should exist, for reading bytes. Each piece is fetched with retries.

        block: the bytes that are fetched at a time, at least.
        """
        path = self.name(name)
        file = self._try("read", name, lambda: self.fs.open(path, "rb", block_size=block), known=True)
        if (cache := getattr(file, "cache", None)) is not None and isinstance(cache.size, int):
            cache.fetcher = partial(self._fetch, name, cache.fetcher, cache.size)
        return file

    def _fetch(self, name: str, fetch: Callable[[int, int], bytes], size: int, start: int, end: int) -> bytes:
        def whole() -> bytes:
            content = fetch(start, end)
            if (missing := min(end, size) - start - len(content)) > 0:
                raise ConnectionError(f"the storage sent {missing} bytes fewer than asked for")
            return content

        return self._try("read", name, whole, known=True)

    def open_mapped(self, name: str) -> Any:
        """Opens a file for reading parts of it. On a local disk, it is mapped into memory."""
        if self._is_local:
            return pa.memory_map(self.name(name))
        return self.open(name)

    def publish(self, name: str, content: bytes) -> None:
        """Writes a file so that it exists whole or not at all. An existing file is replaced."""
        path = self.name(name)
        if self._is_local:
            self._try("written", name, lambda: disk.publish(Path(path), content))
        elif self._is_object_store:
            self._try("written", name, lambda: self.fs.pipe_file(path, content))
        else:
            self._try("written", name, lambda: self._publish_by_rename(path, content))

    def publish_file(self, name: str, source: Path) -> None:
        """Writes a local file of any size so that it exists whole or not at all."""
        path = self.name(name)
        parent, _, last = path.rpartition("/")
        temporary = f"{parent}/.{last[-80:]}.{uuid.uuid4().hex}"

        def copy() -> None:
            if self._is_object_store:
                self.fs.put_file(str(source), path)
                return
            self.fs.makedirs(parent, exist_ok=True)
            self.fs.put_file(str(source), temporary)
            self.fs.mv(temporary, path)

        self._try("written", name, copy)

    def fetch_file(self, name: str, target: Path) -> None:
        """Copies a file of any size, which should exist, to a local one."""
        self._try("read", name, lambda: self.fs.get_file(self.name(name), str(target)), known=True)

    def create(self, name: str, content: bytes) -> bool:
        """Publishes a file unless it exists. Returns True if it was written.

        If two processes create a file at the same time, one succeeds on local disks and on object
        stores with conditional writes. Elsewhere both do, and the last one's file stays.
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
        """Removes a file, if it exists."""
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
    """Options to open a file system with, besides those in fsspec's configuration (`FSSPEC_S3`)."""
    if not _is_s3(url):
        return {}
    theirs = conf.get("s3", {}).get("config_kwargs", {})
    return {
        "config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 30, **theirs}
    }


def _is_s3(url: str) -> bool:
    return url.partition("://")[0] in {"s3", "s3a"}


def file_at(url: str) -> tuple[Folder, str]:
    """The folder of the file at `url`, and the file's name in it."""
    head, _, name = os.fspath(url).rpartition("/")
    return Folder(head or ("/" if url.startswith("/") else ".")), name


def _version(info: dict[str, Any]) -> str:
    value = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
    if isinstance(value, datetime):  # a listing has milliseconds, and an object's header does not
        value = int(value.timestamp())
    return str(value).strip('"')


def _modified(info: dict[str, Any]) -> float | None:
    """The time of change in what a driver says about a file."""
    found = next((info[name] for name in ("mtime", "LastModified", "last_modified", "updated") if info.get(name)), None)
    if isinstance(found, str):
        try:
            found = datetime.fromisoformat(found)
        except ValueError:
            return None
    if isinstance(found, datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else None
