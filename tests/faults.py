"""A proxy between S3 clients and a real S3 server that fails as networks and object stores do, by rule and by seed.

Requests are passed on byte for byte, Host and signature with them, so that the server checks what the client signed.
"""

import asyncio
import random
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from aiohttp import ClientSession, web
from yarl import URL

from tests.served import Served, cut_off

Kind = Literal["error", "reset", "reset amid", "truncated", "lost answer", "stall", "drip", "unlisted"]
_PASSED_ON_ANEW = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}


@dataclass
class Rule:
    """Which requests fail, how, and how often.

    kind: "error" answers with `status` and `code`; "reset" cuts the connection before the answer, "reset amid" in the middle
    of its body; "truncated" ends the body early and closes in peace; "lost answer" does what was asked, then cuts; "stall"
    waits `seconds` first; "drip" sends the body in pieces, `seconds` in all; "unlisted" leaves the keys that match `hides`
    out of a listing.
    """

    kind: Kind
    method: str = ""
    """Empty: any."""
    key: str = ""
    """Regular expression, searched in the path and query."""
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 0.0
    hides: str = ""
    share: float = 1.0
    """Of the requests that match."""
    times: int = 1_000_000
    """At most so many."""
    seed: int = 0
    fired: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def fires(self, request: web.Request) -> bool:
        """Whether this request is one to fail; counted if so."""
        matches = self.method in ("", request.method) and re.search(self.key, unquote(request.raw_path))
        if not matches or self.fired >= self.times or self._random.random() >= self.share:
            return False
        self.fired += 1
        return True


class FaultyProxy(Served):
    """The proxy, in a thread of its own. Without rules it passes everything on."""

    name = "faulty-proxy"

    def __init__(self, server_port: int) -> None:
        self._server = f"http://127.0.0.1:{server_port}"
        self._rules: list[Rule] = []
        super().__init__()

    @contextmanager
    def failing(self, *rules: Rule) -> Iterator[None]:
        """The rules hold within the block."""
        self._rules = list(rules)
        try:
            yield
        finally:
            self._rules = []

    async def opened(self, stack: AsyncExitStack) -> web.Application:
        self._client = await stack.enter_async_context(ClientSession(auto_decompress=False))
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        rule = next((rule for rule in self._rules if rule.fires(request)), None)
        kind = rule.kind if rule else None
        if rule and kind == "error":
            return _error(request, rule)
        if kind == "reset":
            return cut_off(request)
        if rule and kind == "stall":
            await asyncio.sleep(rule.seconds)
        status, headers, content = await self._passed_on(request, body)
        if kind == "lost answer":
            return cut_off(request)
        if rule and kind == "unlisted":
            content = _without(content, rule.hides)
        return await _send(request, status, headers, content, rule)

    async def _passed_on(self, request: web.Request, body: bytes) -> tuple[int, Any, bytes]:
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _PASSED_ON_ANEW]
        url = URL(self._server + request.raw_path, encoded=True)
        skip = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
        async with self._client.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False, skip_auto_headers=skip
        ) as found:
            return found.status, found.headers, await found.read()


def _error(request: web.Request, rule: Rule) -> web.Response:
    said = f"<Error><Code>{rule.code}</Code><Message>A fault made by the tests.</Message></Error>"
    body = "" if request.method == "HEAD" else f'<?xml version="1.0" encoding="UTF-8"?>{said}'
    return web.Response(status=rule.status, text=body, content_type="application/xml")


def _without(listing: bytes, keys: str) -> bytes:
    def kept(found: re.Match[str]) -> str:
        key = re.search(r"<Key>(.*?)</Key>", found[0])
        return "" if key and re.search(keys, unquote(key[1])) else found[0]

    return re.sub(r"<Contents>.*?</Contents>", kept, listing.decode(), flags=re.DOTALL).encode()


async def _send(
    request: web.Request, status: int, headers: Any, content: bytes, rule: Rule | None
) -> web.StreamResponse:
    answer = web.StreamResponse(status=status)
    for name, value in headers.items():
        if name.lower() not in _PASSED_ON_ANEW:
            answer.headers.add(name, value)
    length = headers.get("Content-Length") if request.method == "HEAD" else str(len(content))
    if length is not None and status != 204:
        answer.headers["Content-Length"] = length
    await answer.prepare(request)
    kind = rule.kind if rule else None
    if kind in ("reset amid", "truncated"):
        await answer.write(content[: len(content) // 2])
        await asyncio.sleep(0.05)
        if kind == "reset amid":
            return cut_off(request)
        assert request.transport is not None
        request.transport.close()
        return answer
    if rule and kind == "drip":
        size = max(1, len(content) // 10)
        for i in range(0, len(content), size):
            await answer.write(content[i : i + size])
            await asyncio.sleep(rule.seconds / 10)
    elif request.method != "HEAD":
        await answer.write(content)
    await answer.write_eof()
    return answer
