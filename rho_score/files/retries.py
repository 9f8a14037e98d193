"""Storage calls that fail as a network or a busy store does are made again; what is left becomes one clear error.

The drivers of object stores have retries of their own. Where we can, we switch them off (`storage.Folder.fs`): nested retries
multiply, wait without a word, and cannot be counted.
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
"""Seconds after its first failure that a storage call is not made again."""
MISSING_S = 3.0
"""The same for an object that should be there and is not: a listing or a cache may be ahead of the store."""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_PERMANENT_ERRNO = {
    errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOSYS, errno.EMSGSIZE, errno.EPERM,
    errno.ENOTSUP, errno.EFBIG, getattr(errno, "EREMCHG", errno.EINVAL),
}  # fmt: skip
_PASSING_STATUS = {408, 409, 425, 429}  # and all from 500 on
_PASSING_CODES = {"RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"}  # sent with status 400
_DRIVERS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "httpx", "requests", "urllib3"}
_NETWORK_MODULES = {"aiohttp", "httpx", "requests", "urllib3"}
_BOTOCORE_NETWORK = {
    "AioReadTimeoutError", "ConnectionClosedError", "ConnectionError", "ConnectTimeoutError", "EndpointConnectionError",
    "HTTPClientError", "IncompleteReadError", "ProxyConnectionError", "ReadTimeoutError", "ResponseParserError",
    "ResponseStreamingError",
}  # fmt: skip

_made: Counter[str] = Counter()
_lock = threading.Lock()


def with_retries(
    call: Callable[[], T],
    *,
    patience_s: float | None = None,
    longest_wait_s: float = 30,
    missing_passes: bool = False,
) -> T:
    """`call()`, again with exponential backoff and jitter while it fails as a network or a busy store does.

    missing_passes: what is called is known to exist, so that "not found" is asked again too, for `MISSING_S`.
    The last error is raised, with a note of how often and how long it was tried.
    """
    started, failing_since = time.monotonic(), math.inf
    patience = PATIENCE_S if patience_s is None else patience_s

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


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    add_retries({kind_of(error): 1})
    log.info("storage: %s; again in %.1f s", without_secrets(f"{kind_of(error)}: {error}"), state.upcoming_sleep)


def add_retries(counts: Mapping[str, int]) -> None:
    """Add retries that were counted elsewhere, in a task of this process's run, to those of this process."""
    with _lock:
        _made.update(counts)


def retries_made() -> Counter[str]:
    """How many storage calls this process, and the tasks whose results it has taken, made again, by kind of error."""
    with _lock:
        return _made.copy()


@contextmanager
def retries_counted() -> Iterator[Counter[str]]:
    """A counter that holds, after the block, the retries made while it ran; of all threads of this process."""
    before, counted = retries_made(), Counter[str]()
    yield counted
    counted.update(retries_made() - before)


def kind_of(error: BaseException) -> str:
    """What an error is called where retries are counted: the store's own code, else the system's, else its type's name."""
    code = _response(error).get("Error", {}).get("Code")
    if code:
        return str(code)
    number = getattr(error, "errno", None)
    return errno.errorcode.get(number, type(error).__name__) if isinstance(number, int) else type(error).__name__


def _response(error: BaseException) -> Mapping[str, Any]:
    """The store's answer that an error of botocore was made from; s3fs has it as the cause of its own."""
    for one in (error, error.__cause__, error.__context__):
        if isinstance(found := getattr(one, "response", None), Mapping):
            return found
    return {}


def _status(error: BaseException) -> int | None:
    """The HTTP status of the answer, where there was one."""
    found = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    for value in (found, *(getattr(error, name, None) for name in ("status", "status_code", "code"))):
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _is_transient(error: BaseException) -> bool:
    if type(error).__name__ == "FileExpired":  # s3fs: the object is another than the one that was opened
        return False
    if (status := _status(error)) is not None:
        return (status >= 500 and status != 501) or status in _PASSING_STATUS or kind_of(error) in _PASSING_CODES
    if isinstance(error, OSError):
        return not isinstance(error, _PERMANENT) and error.errno not in _PERMANENT_ERRNO
    module, name = type(error).__module__.split(".")[0], type(error).__name__
    return module in _NETWORK_MODULES or (module in {"aiobotocore", "botocore"} and name in _BOTOCORE_NETWORK)


def is_of_storage(error: BaseException) -> bool:
    """Whether the error is the system's or a storage driver's own, and no mistake of ours."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _DRIVERS


def storage_error(doing: str, place: str, error: BaseException) -> StorageError:
    """The error that a user sees: `place` could not be `doing` ("read", "written", "listed"), what was said, the remedy."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    tried = "".join(f", {note}" for note in getattr(error, "__notes__", []))
    return StorageError(f"{place} could not be {doing}: {kind_of(error)}: {said}{tried}. {_remedy(error)}")


_AGAIN = "run the same command again to resume."
_REMEDIES = {
    "ENOSPC": f"Free space on that disk, then {_AGAIN}",
    "EDQUOT": f"Raise the quota or free space in it, then {_AGAIN}",
    "EROFS": "Mount that disk for writing, or choose another output.",
    "EIO": f"The disk or the server behind it fails: check it (the system's log says more), then {_AGAIN}",
    "ESTALE": f"The file server was restarted or the folder replaced: mount it again, then {_AGAIN}",
    "RequestTimeTooSkewed": f"Set this machine's clock (NTP), then {_AGAIN}",
    "NoCredentialsError": "Give the process credentials for that store.",
    "FileExpired": f"It was replaced while it was read. Restore it, then {_AGAIN}",
}


def _remedy(error: BaseException) -> str:
    if found := _REMEDIES.get(kind_of(error)) or _REMEDIES.get(type(error).__name__):
        return found
    if isinstance(error, PermissionError) or _status(error) in (401, 403):
        return f"Renew the credentials or the permissions for it, then {_AGAIN}"
    if _is_transient(error):
        return f"The storage is away or too busy. When it is back, {_AGAIN}"
    return f"What it said is not a passing fault: mend that, then {_AGAIN}"
