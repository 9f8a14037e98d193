"""Folders behind any fsspec URL: listing, reading, atomic publishing, retries.

A published file is complete. On a local disk it is a temporary file, fsync and rename; elsewhere one whole PUT.
"""

import errno
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from rho_score.errors import InputError
from rho_score.shown import without_secrets

T = TypeVar("T")

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_PERMANENT_ERRNO = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG, errno.EINVAL}
_NETWORK_MODULES = {"aiohttp", "urllib3", "requests", "httpx"}
_BOTOCORE_NETWORK = {
    "ConnectionClosedError", "ConnectionError", "ConnectTimeoutError", "EndpointConnectionError", "HTTPClientError",
    "IncompleteReadError", "ProxyConnectionError", "ReadTimeoutError", "ResponseStreamingError",
}  # fmt: skip
# Stores whose PUT of a whole object is atomic; elsewhere a temporary file is renamed.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "r2", "memory"}
READ_BLOCK = 4 << 20  # bytes fetched at a time: a peek at a shard's head must not cost fifty megabytes


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return not isinstance(error, _PERMANENT) and error.errno not in _PERMANENT_ERRNO
    module, name = type(error).__module__.split(".")[0], type(error).__name__
    return module in _NETWORK_MODULES or (module == "botocore" and name in _BOTOCORE_NETWORK)


def with_retries(call: Callable[[], T], *, attempts: int = 8, longest_wait_s: float = 30) -> T:
    """`call()`, again with exponential backoff and jitter while it fails as a network or a busy store does.

    Raises:
        OSError: it still fails, or the store refuses; without the credentials of the address.
    """
    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.2, max=longest_wait_s),
        retry=retry_if_exception(_is_transient),
        reraise=True,
    )
    try:
        return retrying(call)
    except OSError as error:
        error.args = tuple(without_secrets(value) if isinstance(value, str) else value for value in error.args)
        raise
    except Exception as error:  # a driver's own kind, whose text may hold the address that it was called with
        if type(error).__module__.split(".")[0] not in {*_NETWORK_MODULES, "botocore"}:
            raise
        raise OSError(without_secrets(f"{type(error).__name__}: {error}")) from None


@dataclass(frozen=True)
class FileInfo:
    """One file of a listing: size in bytes; version is the etag, else the time of the last change."""

    size: int
    version: str


@dataclass(frozen=True)
class Folder:
    """A folder at a path or fsspec URL. Names are relative to it, with forward slashes. Cheap to send to a worker."""

    url: str

    @cached_property
    def _fs_and_path(self) -> tuple[Any, str]:
        try:
            fs, path = fsspec.core.url_to_fs(os.fspath(self.url))
        except (ValueError, ImportError) as error:  # an unknown protocol, or its driver is not installed
            raise InputError(f"{without_credentials(self.url)} cannot be opened: {error}") from error
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

    def listing(self, under: str = "") -> dict[str, FileInfo]:
        """All files below `under`, by name relative to it; empty where there is no such folder.

        Names with a part that begins with a dot are left out: they are unfinished or not ours.
        """
        top = self.name(under)
        self.fs.invalidate_cache()
        found = with_retries(lambda: self.fs.find(top, detail=True))
        files = {}
        for path, info in sorted(found.items()):
            name = path[len(top) :].lstrip("/")
            if name and not any(part.startswith(".") for part in name.split("/")):
                files[name] = FileInfo(size=info["size"], version=_version(info))
        return files

    def names(self, under: str) -> set[str]:
        """Names of the files right below `under`, as `listing` gives them; a million of them take little memory."""
        top = self.name(under)
        if isinstance(self.fs, LocalFileSystem):
            try:
                with os.scandir(top) as entries:
                    return {entry.name for entry in entries if not entry.name.startswith(".")}
            except FileNotFoundError:
                return set()
        self.fs.invalidate_cache()
        found = with_retries(lambda: self.fs.find(top, maxdepth=1, detail=False))
        cut = len(top) + 1
        return {path[cut:] for path in found if not path.startswith(".", cut)}

    def info(self, name: str) -> FileInfo:
        """Size and version of `name`, asked of the store."""
        self.fs.invalidate_cache()
        found = with_retries(lambda: self.fs.info(self.name(name)))
        return FileInfo(size=found["size"], version=_version(found))

    def exists(self, name: str = "") -> bool:
        """Whether `name` is there, asked of the store and not of a cached listing."""
        self.fs.invalidate_cache()
        return bool(with_retries(lambda: self.fs.exists(self.name(name))))

    def read(self, name: str) -> bytes:
        """The whole content of `name`."""
        content: bytes = with_retries(lambda: self.fs.cat_file(self.name(name)))
        return content

    def open(self, name: str) -> Any:
        """`name` opened for reading bytes."""
        return with_retries(lambda: self.fs.open(self.name(name), "rb", block_size=READ_BLOCK))

    def open_mapped(self, name: str) -> Any:
        """`name` opened for reading parts of it: mapped into memory on a local disk, else as `open` does."""
        if isinstance(self.fs, LocalFileSystem):
            return pa.memory_map(self.name(name))
        return self.open(name)

    def publish(self, name: str, content: bytes) -> None:
        """Write `name` so that it is there whole or not at all; an existing file is replaced."""
        path = self.name(name)
        if isinstance(self.fs, LocalFileSystem):
            _publish_local(Path(path), content)
        elif _OBJECT_STORES.intersection([self.fs.protocol] if isinstance(self.fs.protocol, str) else self.fs.protocol):
            with_retries(lambda: self.fs.pipe_file(path, content))
        else:
            with_retries(lambda: self._publish_by_rename(path, content))

    def _publish_by_rename(self, path: str, content: bytes) -> None:
        parent, _, name = path.rpartition("/")
        temporary = f"{parent}/.{name[-80:]}.{uuid.uuid4().hex}"
        self.fs.makedirs(parent, exist_ok=True)
        self.fs.pipe_file(temporary, content)
        self.fs.mv(temporary, path)


def without_credentials(url: str) -> str:
    """`url` without a user's name, password or query, fit to be stored and shown."""
    scheme, separator, rest = os.fspath(url).partition("://")
    if not separator:
        return scheme
    return without_secrets(f"{scheme}://{rest}").partition("?")[0]


def file_at(url: str) -> tuple[Folder, str]:
    """The folder of the file at `url`, and its name there."""
    head, _, name = os.fspath(url).rpartition("/")
    return Folder(head or ("/" if url.startswith("/") else ".")), name


def _version(info: dict[str, Any]) -> str:
    value = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
    if isinstance(value, datetime):  # a listing has milliseconds where a single object's header has none
        value = int(value.timestamp())
    return str(value).strip('"')


def _publish_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[-80:]}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
