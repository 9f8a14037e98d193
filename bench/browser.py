"""A headless Chromium, driven by its DevTools protocol: for benchmarks and tests of pages."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--no-proxy-server", "--remote-debugging-port=0", "--hide-scrollbars",
]  # fmt: skip
_CODES = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}


@contextmanager
def chromium(folder: Path) -> Iterator[str]:
    """The address of the DevTools of a browser that keeps its files in a folder."""
    assert CHROMIUM is not None, "install Chromium"
    folder.mkdir(parents=True, exist_ok=True)
    port, end = folder / "DevToolsActivePort", time.monotonic() + 90
    port.unlink(missing_ok=True)  # of an earlier browser
    with (folder / "log").open("wb") as log:
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not (port.exists() and port.read_text().count("\n")):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
    finally:
        process.terminate()
        process.wait(30)


class Tab:
    """A page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requests: list[str] = []
        """Every URL that the page asked for."""
        self.complaints: list[str] = []
        """What the page logged as errors, and exceptions that nobody caught."""

    async def listen(self) -> None:
        """Takes messages until the page is closed."""
        async for message in self._socket:
            found = json.loads(message.data)
            method, fields = found.get("method"), found.get("params", {})
            if method == "Network.requestWillBeSent":
                self.requests.append(fields["request"]["url"])
            elif method == "Runtime.exceptionThrown":
                self.complaints.append(str(fields["exceptionDetails"]))
            elif method == "Log.entryAdded" and fields["entry"]["level"] == "error":
                self.complaints.append(f"{fields['entry']['text']} {fields['entry'].get('url', '')}")
            elif found.get("id") in self._answers:
                self._answers.pop(found["id"]).set_result(found)

    async def call(self, method: str, **fields: Any) -> dict[str, Any]:
        """Calls a method of the DevTools protocol; returns its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": fields})
        found = await asyncio.wait_for(answer, 60)
        assert "error" not in found, found
        return dict(found["result"])

    async def value(self, expression: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    async def until(self, expression: str, seconds: float = 30) -> Any:
        """The value of an expression, as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := await self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}; {self.complaints}"
            await asyncio.sleep(0.03)
        return found

    async def key(self, key: str, modifiers: int = 0) -> None:
        """Presses a key. modifiers: 8 for Shift."""
        about = {
            "key": key,
            "code": key,
            "modifiers": modifiers,
            "windowsVirtualKeyCode": _CODES.get(key, ord(key[0].upper())),
        }
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    async def point(self, selector: str, *, click: bool = False) -> None:
        """Moves the mouse to the first line of an element, and clicks it."""
        place = (
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getClientRects()[0]; "
            f"return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        x, y = await self.value(place)
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def write(self, text: str) -> None:
        """Writes into the field that has the focus."""
        await self.call("Input.insertText", text=text)

    async def picture(self, path: Path) -> None:
        """Saves what the page shows as a PNG file."""
        found = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def tab(
    address: str, url: str, *, width: int = 1500, height: int = 950, dark: bool = False
) -> AsyncIterator[Tab]:
    """A page at a URL. dark: True if the system wants dark pages."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{address}/json/new?about:blank") as response:
            target = await response.json(content_type=None)
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Tab(socket)
            listening = asyncio.create_task(page.listen())
            for domain in ("Network", "Page", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            await page.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            wanted = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            await page.call("Emulation.setEmulatedMedia", features=wanted)
            await page.call("Page.navigate", url=url)
            try:
                yield page
            finally:
                listening.cancel()
        async with session.get(f"{address}/json/close/{target['id']}"):
            pass
