"""Retries storage calls that fail temporarily, and turns lasting failures into one clear error.

The drivers of object stores have retries of their own. `files.folder.Folder` switches them off
where possible, because nested retries multiply, wait silently, and cannot be counted.
"""

import errno
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from rho_score.errors import StorageError
from rho_score.safe_text import without_secrets

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE_S = float(os.environ.get("RHO_SCORE_STORAGE_PATIENCE_S", 300))
"""Seconds from the first failure of a storage call until it is no longer retried."""
MISSING_S = 3.0
"""The same for an object that should exist but is not found.

A listing or a cache may be ahead of the store.
"""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_PERMANENT_ERRNO = {
    errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOSYS, errno.EMSGSIZE, errno.EPERM,
    errno.ENOTSUP, errno.EFBIG, getattr(errno, "EREMCHG", errno.EINVAL),
}  # fmt: skip
_PASSING_STATUS = {408, 409, 425, 429}  # besides those from 500 on, except 501
# Error codes that are sent with status 400.
_PASSING_CODES = {"RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"}
_DRIVERS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "httpx", "requests", "urllib3"}
_NETWORK_MODULES = {"aiohttp", "httpx", "requests", "urllib3"}
_BOTOCORE_NETWORK = {
    "AioReadTimeoutError", "ConnectionClosedError", "ConnectionError", "ConnectTimeoutError", "EndpointConnectionError",
    "HTTPClientError", "IncompleteReadError", "ProxyConnectionError", "ReadTimeoutError", "ResponseParserError",
    "ResponseStreamingError",
}  # fmt: skip

_made: Counter[str] = Counter()
_lock = threading.Lock()
_HERE = threading.local()


def with_retries(
    call: Callable[[], T],
    *,
    patience_s: float | None = None,
    longest_wait_s: float = 30,
    missing_passes: bool = False,
) -> T:
    """The result of `call`, which is retried with exponential backoff and jitter.

    Only errors of a network or a busy store are retried. The last error is raised, with a note of
    how often and for how long the call was tried.

    patience_s: seconds from the first failure until the call is no longer retried; by default
    `PATIENCE_S`. longest_wait_s: the longest wait between two tries. missing_passes: True if the
    object is known to exist, so that "not found" is retried too, for `MISSING_S`.
    """
    started, failing_since = time.monotonic(), math.inf
    patience = PATIENCE_S if patience_s is None else patience_s
    if getattr(_HERE, "once", False):
        patience = 0.0

    def passes(error: BaseException) -> bool:
        nonlocal failing_since
        failing_since = min(failing_since, time.monotonic())
        if isinstance(error, FileNotFoundError):
            return missing_passes and time.monotonic() - failing_since < min(MISSING_S, patience)
        return _is_transient(error)

    retrying = Retrying(
        stop=lambda _: time.monotonic() - failing_since >= patience,
        wait=wait_random_exponential(multiplier=0.2, max=longest_wait_s),
        retry=retry_if_exception(passes),
        before_sleep=_note_retry,
        reraise=True,
    )
    try:
        return retrying(call)
    except Exception as error:
        tries = retrying.statistics.get("attempt_number", 1)
        if tries > 1:
            error.add_note(f"tried {tries} times in {time.monotonic() - started:.0f} s")
        raise


@contextmanager
def tried_once() -> Iterator[None]:
    """Within the block, storage calls of this thread are not retried."""
    _HERE.once = True
    try:
        yield
    finally:
        _HERE.once = False


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    add_retries({kind_of(error): 1})
    log.info("storage: %s; trying again in %.1f s", without_secrets(f"{kind_of(error)}: {error}"), state.upcoming_sleep)


def add_retries(counts: Mapping[str, int]) -> None:
    """Adds retries that a task in another process counted to those of this process."""
    with _lock:
        _made.update(counts)


def retries_made() -> Counter[str]:
    """The number of retries, by kind of error, in this process and in the tasks added to it."""
    with _lock:
        return _made.copy()


@contextmanager
def retries_counted() -> Iterator[Counter[str]]:
    """Yields a counter that, after the block, holds the retries made during the block.

    It counts the retries of all threads of this process.
    """
    before, counted = retries_made(), Counter[str]()
    yield counted
    counted.update(retries_made() - before)


def kind_of(error: BaseException) -> str:
    """The name under which an error is counted.

    This is the store's error code, or else the name of the system's error number (such as EIO), or
    else the name of the error's type.
    """
    code = _response(error).get("Error", {}).get("Code")
    if code:
        return str(code)
    number = getattr(error, "errno", None)
    return errno.errorcode.get(number, type(error).__name__) if isinstance(number, int) else type(error).__name__


def _response(error: BaseException) -> Mapping[str, Any]:
    """The store's response behind an error; empty if there is none.

    botocore's error has it. s3fs raises its own error, with botocore's as the cause.
    """
    for one in (error, error.__cause__, error.__context__):
        if isinstance(found := getattr(one, "response", None), Mapping):
            return found
    return {}


def _status(error: BaseException) -> int | None:
    """The HTTP status of the response; None if there was no response."""
    found = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    for value in (found, *(getattr(error, name, None) for name in ("status", "status_code", "code"))):
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _is_transient(error: BaseException) -> bool:
    if type(error).__name__ == "FileExpired":  # s3fs: the object was replaced after it was opened
        return False
    if (status := _status(error)) is not None:
        return (status >= 500 and status != 501) or status in _PASSING_STATUS or kind_of(error) in _PASSING_CODES
    if isinstance(error, OSError):
        return not isinstance(error, _PERMANENT) and error.errno not in _PERMANENT_ERRNO
    module, name = type(error).__module__.split(".")[0], type(error).__name__
    return module in _NETWORK_MODULES or (module in {"aiobotocore", "botocore"} and name in _BOTOCORE_NETWORK)


def is_of_storage(error: BaseException) -> bool:
    """True if the error comes from the operating system or a storage driver, not from a bug."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _DRIVERS


def storage_error(doing: str, place: str, error: BaseException) -> StorageError:
    """The error that a user sees: what could not be done, what the storage said, and the remedy.

    doing: "read", "written" or "listed". place: the URL of the file.
    """
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    tried = "".join(f", {note}" for note in getattr(error, "__notes__", []))
    return StorageError(f"{place} could not be {doing}: {kind_of(error)}: {said}{tried}. {_remedy(error)}")


_AGAIN = "run the same command again to resume."
_REMEDIES = {
    "ENOSPC": f"Free space on that disk, then {_AGAIN}",
    "EDQUOT": f"Raise the quota or free space in it, then {_AGAIN}",
    "EROFS": "Mount that disk for writing, or choose another output.",
    "EIO": f"The disk or the server behind it fails. Check it (the system's log says more), then {_AGAIN}",
    "ESTALE": f"The file server was restarted, or the folder was replaced. Mount it again, then {_AGAIN}",
    "RequestTimeTooSkewed": f"Set this machine's clock (NTP), then {_AGAIN}",
    "NoCredentialsError": "Give the process credentials for that store.",
    "FileExpired": f"The file was replaced while it was being read. Restore it, then {_AGAIN}",
}


def _remedy(error: BaseException) -> str:
    if found := _REMEDIES.get(kind_of(error)) or _REMEDIES.get(type(error).__name__):
        return found
    if isinstance(error, PermissionError) or _status(error) in (401, 403):
        return f"Renew the credentials or the permissions for it, then {_AGAIN}"
    if _is_transient(error):
        return f"The storage is unreachable or too busy. When it is back, {_AGAIN}"
    return f"This is not a passing fault. Mend it, then {_AGAIN}"
