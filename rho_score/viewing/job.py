"""Serves a page about stores until it is interrupted."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

from rho_score.config import ViewConfig
from rho_score.stores.open import open_store
from rho_score.viewing.answers import Answers
from rho_score.viewing.server import application, serve
from rho_score.viewing.shown_store import ShownStore


def view(config: ViewConfig, tell: Callable[[str], None] = print) -> None:
    """Serves the page until SIGINT, SIGTERM or SIGHUP. tell: is called with the page's URL.

    Raises:
        InputError: a store is not a finished score set or selection, `ref` or `base` is not a score
            set that it was made from, or the port or the folder of indexes cannot be used.
    """
    answers = open_answers(config)
    try:
        asyncio.run(_serve(config, answers, tell))
    finally:
        answers.close()


def open_answers(config: ViewConfig) -> Answers:
    """The stores of a page, whose indexes and tokenizers are begun; errors as in `view`."""
    cache = Path(config.cache) if config.cache else _cache()
    with contextlib.ExitStack() as opened:
        stores: list[ShownStore] = []
        for i, url in enumerate((config.store, *config.beside)):
            given = {"ref": config.ref, "base": config.base} if i == 0 else {}
            stores.append(ShownStore(open_store(url), given=given, cache=cache))
            opened.callback(stores[-1].close)
        opened.pop_all()
    for shown in stores:
        shown.start()
    return Answers(stores)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rho-score" / "view"


async def _serve(config: ViewConfig, answers: Answers, tell: Callable[[str], None]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    token = secrets.token_urlsafe(24)
    once = secrets.token_urlsafe(24)
    runner, port = await serve(application(answers, token, once=once), config.port)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal is closed
            with contextlib.suppress(NotImplementedError, RuntimeError):  # not on the main thread
                loop.add_signal_handler(number, stop.set)
        url = f"http://127.0.0.1:{port}/{token}/"
        tell(url)
        if config.browser and _has_screen():
            webbrowser.open(f"http://127.0.0.1:{port}/{once}/")  # others on this machine see a browser's arguments
        await stop.wait()
    finally:
        await runner.cleanup()


def _has_screen() -> bool:
    """True if a browser can open a window here; without one, some would take over the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
