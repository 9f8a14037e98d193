"""Asks a server many things at a time, and again where it fails for a while."""

import asyncio
import atexit
import contextlib
import json
import logging
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import aiohttp
import orjson

from rho_score.errors import RhoScoreError, ServerError
from rho_score.files.json import JsonObject
from rho_score.safe_text import without_secrets
from rho_score.servers import faults
from rho_score.servers.endpoint import KEY_VARIABLE, Endpoint
from rho_score.servers.faults import PassingError
from rho_score.servers.protocol import WrongAnswerError
from rho_score.servers.purse import FreePurse, Purse

log = logging.getLogger(__name__)
T = TypeVar("T")
S = TypeVar("S")

MOST_TRIES = 12
"""Tries of a request. The random waits between them add up to about three minutes."""
MOST_WRONG = 4
"""Tries of a request that is answered, but with something that is no answer to it."""
CONNECT_S, ANSWER_S = 10.0, 600.0


class RefusedError(Exception):
    """The server has no answer to this request, and would have none to the same one again."""


class DeniedError(ServerError):
    """The server answers no request of this kind: the key, the model or the address is wrong."""


class Client:
    """Connections to one server. They are used from a thread of their own, which ends with `close`
    or with the process.

    Args:
        requests: the most requests in flight.
        purse: pays for each try.
        tries: the most tries of a request.
    """

    def __init__(
        self, endpoint: Endpoint, *, requests: int, purse: Purse | None = None, tries: int = MOST_TRIES
    ) -> None:
        self._endpoint, self._requests, self._tries = endpoint, requests, tries
        self.purse: Purse = purse or FreePurse()
        self.retries: Counter[str] = Counter()
        """Requests that were made again, by the kind of failure."""
        self._draw = random.Random()
        self._not_before = 0.0
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server-client", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Closes the connections, and ends the thread."""
        atexit.unregister(self.close)
        if self._session is not None:
            self.run(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, which runs in the thread of the connections."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def each(self, work: Callable[[S], Awaitable[None]], items: Iterable[S]) -> None:
        """Does `work` for each item, as many at a time as requests may be in flight.

        Raises:
            RhoScoreError: the first that was raised; what else is under way is cancelled.
        """
        left = iter(items)

        async def one_after_another() -> None:
            for item in left:
                await work(item)

        async def together() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._requests):
                    group.create_task(one_after_another())

        try:
            self.run(together())
        except BaseExceptionGroup as errors:
            raise next((e for e in errors.exceptions if isinstance(e, RhoScoreError)), errors.exceptions[0]) from None

    async def get(self, path: str) -> Any:
        """The JSON that the server has at `path`.

        Raises:
            RefusedError: there is no JSON at that path.
            ServerError: the server denies it, or fails until the tries end.
        """
        return await self._again_and_again(
            lambda: self._try("GET", path, None), path, tokens=0, read=lambda found: found
        )

    async def ask(self, path: str, body: JsonObject, read: Callable[[Any], T], *, tokens: int) -> T:
        """What `read` makes of the server's answer to a request of so many tokens.

        Raises:
            RefusedError: the server refuses the request, or `read` raises WrongAnswerError each time.
            ServerError: the server denies every request, or fails until the tries end.
        """
        content = orjson.dumps(body)
        return await self._again_and_again(lambda: self._try("POST", path, content), path, tokens=tokens, read=read)

    async def _again_and_again(
        self, call: Callable[[], Awaitable[Any]], path: str, *, tokens: int, read: Callable[[Any], T]
    ) -> T:
        wrong = 0
        for tries in range(1, self._tries + 1):
            await self._hold()
            self.purse.take(tokens)
            try:
                return read(await call())
            except WrongAnswerError as error:
                wrong += 1
                if wrong == MOST_WRONG:
                    raise RefusedError(str(error)) from None
                failure = PassingError("wrong answer", str(error), billed=True)
            except (RefusedError, DeniedError):
                self.purse.give_back(tokens)
                raise
            except PassingError as error:
                failure = error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = faults.of_the_network(error)
            if not failure.billed:
                self.purse.give_back(tokens)
            if tries < self._tries:
                await self._wait(tries, failure)
        raise ServerError(
            f"{self._endpoint.url}{path} failed {self._tries} times, the last time with {failure.kind}: "
            f"{self._safe(str(failure))}. When the server is back, run the same command again to resume."
        )

    async def _hold(self) -> None:
        """Waits as long as the server asked everybody to wait."""
        while (left := self._not_before - self._loop.time()) > 0:
            await asyncio.sleep(left)

    async def _wait(self, tries: int, failure: PassingError) -> None:
        self.retries[failure.kind] += 1
        if failure.wait_s:
            self._not_before = max(self._not_before, self._loop.time() + failure.wait_s)
        seconds = faults.wait_s(tries, failure.wait_s, self._draw)
        log.info("server: %s: %s; trying again in %.1f s", failure.kind, self._safe(str(failure)), seconds)
        await asyncio.sleep(seconds)

    async def _try(self, method: str, path: str, content: bytes | None) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Content-Type": "application/json", **self._endpoint.key.headers()},
                timeout=aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S),
                connector=aiohttp.TCPConnector(limit=self._requests),
            )
        url = self._endpoint.url + path
        async with self._session.request(method, url, data=content, allow_redirects=False) as response:
            answer = await response.read()
            if response.status != 200:
                raise self._failure(response, path, answer)
        return _parsed(answer)

    def _failure(self, response: aiohttp.ClientResponse, path: str, answer: bytes) -> Exception:
        status, said = response.status, self._safe(_message(answer))
        if faults.passes(status):
            wait_s = faults.retry_after(response.headers)
            return PassingError(f"HTTP {status}", said, billed=faults.billed(status), wait_s=wait_s)
        if faults.of_the_document(status) or (response.method == "GET" and status in (404, 405)):
            return RefusedError(f"HTTP {status}: {said}")
        remedy = {
            401: f"Give its API key as the environment variable {KEY_VARIABLE}.",
            403: f"Give an API key that may use this model as the environment variable {KEY_VARIABLE}.",
            404: "Check --server, --server-kind and --server-model.",
        }.get(status, "Check --server and --server-kind.")
        return DeniedError(f"{self._endpoint.url}{path} answers HTTP {status}: {said}. {remedy}")

    def _safe(self, text: str) -> str:
        return without_secrets(self._endpoint.key.hidden_in(text))


def _parsed(answer: bytes) -> Any:
    """The JSON of an answer. Python's own literals for values that JSON lacks are read too.

    Raises:
        PassingError: it is no JSON; it may have been cut off.
    """
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(answer)
    try:
        return json.loads(answer)  # NaN, Infinity and -Infinity
    except ValueError as error:
        raise PassingError("invalid JSON", str(error), billed=True) from None


def _message(answer: bytes) -> str:
    """What an answer that is not 200 says, on one line."""
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:
        found = answer.decode(errors="replace")
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return " ".join(str(found).split())[:300].rstrip(" .")
