"""Serves the page and its answers on this machine alone, to whoever knows the token in its URL."""

import asyncio
import hmac
import logging
from importlib.resources import files

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from rho_score.errors import InputError, RhoScoreError
from rho_score.safe_text import visible, without_secrets
from rho_score.viewing.answers import Answers

log = logging.getLogger(__name__)

HOSTS = {"127.0.0.1", "localhost", "[::1]"}
"""The names that a browser on this machine has for it. Another name in a request is a page elsewhere
whose name was bound to this address (DNS rebinding). The port may be that of a tunnel."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_BAD_REQUEST = (InputError, IndexError, KeyError, OverflowError)


def application(answers: Answers, token: str, *, once: str = "") -> web.Application:
    """The pages and answers below the path `/TOKEN/`.

    once: a token that leads there a single time.
    """
    questions, unused = answers.questions, {once} - {""}

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_here(request.headers.get("Host", "")):
            response: web.StreamResponse = web.Response(status=421, text="This page answers to 127.0.0.1 alone.\n")
        elif (given := request.path.strip("/")) in unused:
            unused.remove(given)
            response = web.Response(status=303, headers={"Location": f"/{token}/"})
        elif not hmac.compare_digest(given.split("/")[0].encode(), token.encode()):
            response = web.Response(status=403, text="The URL lacks the token that the command printed.\n")
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.reason}\n")
        response.headers.update(HEADERS)
        return response

    async def asset(request: web.Request) -> web.Response:
        name = request.match_info.get("name") or "index.html"
        kind = _TYPES.get(name.rpartition(".")[2])
        found = files("rho_score.viewing").joinpath("static", name)
        if kind is None or "/" in name or "\\" in name or not found.is_file():
            raise web.HTTPNotFound
        return web.Response(body=found.read_bytes(), content_type=kind, charset="utf-8")

    async def answer(request: web.Request) -> web.Response:
        question = questions.get(request.match_info["question"])
        if question is None:
            raise web.HTTPNotFound
        try:
            return _json(await asyncio.to_thread(question, request.query))
        except _BAD_REQUEST as error:
            return _json({"error": _told(error)}, status=400)
        except (RhoScoreError, OSError) as error:
            return _json({"error": _told(error)}, status=500)
        except Exception as error:  # a bug: told in the page and in the log, and the page goes on
            log.exception("a question of the page failed")
            return _json({"error": f"{type(error).__name__}: {_told(error)}"}, status=500)

    app = web.Application(middlewares=[guard])
    app.router.add_get("/{token}/", asset)
    app.router.add_get("/{token}/{name}", asset)
    app.router.add_get("/{token}/api/{question}", answer)
    return app


def _is_here(host: str) -> bool:
    """True if a Host header names this machine, with any port or none."""
    name, _, port = host.lower().rpartition(":")
    return host.lower() in HOSTS or (name in HOSTS and port.isdecimal())


def _json(found: object, status: int = 200) -> web.Response:
    content = orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=content, status=status, content_type="application/json", charset="utf-8")


def _told(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return visible(without_secrets(str(text)))


async def serve(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    """Begins to serve; returns what ends it, and the port.

    Raises:
        InputError: the port is taken or not allowed.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except (OSError, OverflowError) as error:
        await runner.cleanup()
        raise InputError(
            f"--port {port} cannot be served at: {error}. Choose another port, or 0 for a free one."
        ) from error
    return runner, int(runner.addresses[0][1])
