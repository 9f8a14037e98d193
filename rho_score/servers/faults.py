"""Which failures of a request pass, what they are called, and how long to wait for them. Pure functions."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 60.0
"""Bounds of the random wait before a request is made again."""
LONGEST_RETRY_AFTER_S = 600.0
"""The longest wait that a server may ask for."""

_PASSING = {408, 409, 425, 429}
"""Statuses below 500 of failures that pass; of those from 500 on, only 501 and 505 do not."""
_OF_THE_DOCUMENT = {400, 413, 422}
"""Statuses that refuse a request for what is in it."""
_NOT_BILLED = {429, 503, 529}


class PassingError(Exception):
    """A failure of one request that may heal when it is made again.

    kind: the name that it is counted under. billed: True if the server may have done the work.
    wait_s: what the server asks to wait; None if it asks nothing.
    """

    def __init__(self, kind: str, message: str = "", *, billed: bool, wait_s: float | None = None) -> None:
        super().__init__(message or kind)
        self.kind, self.billed, self.wait_s = kind, billed, wait_s


def passes(status: int) -> bool:
    """True if a request with this answer is worth making again."""
    return status in _PASSING or (status >= 500 and status not in (501, 505))


def of_the_document(status: int) -> bool:
    """True if this answer refuses one document, and not every request."""
    return status in _OF_THE_DOCUMENT


def billed(status: int) -> bool:
    """True if the server may have done some work before it answered with this status, 500 or above."""
    return status >= 500 and status not in _NOT_BILLED


def of_the_network(error: BaseException) -> PassingError:
    """The failure behind an error of the network."""
    if isinstance(error, (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError)):
        return PassingError("no connection", str(error), billed=False)
    if isinstance(error, TimeoutError):
        return PassingError("timeout", "no answer in time", billed=True)
    if isinstance(error, aiohttp.ClientPayloadError):
        return PassingError("truncated answer", str(error), billed=True)
    return PassingError("broken connection", f"{type(error).__name__}: {error}".strip(" :"), billed=True)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks to wait, given as a number or as a date; None if it asks nothing."""
    value = headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else None


def wait_s(tries: int, asked: float | None, draw: random.Random) -> float:
    """Seconds to wait after `tries` tries: exponential with full jitter, and at least what was asked."""
    most = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**tries)
    return (asked or 0.0) + draw.uniform(0, most)
