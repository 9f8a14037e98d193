"""The report's page and the notebook's heat maps are made of hostile text: no script but ours, no request, whatever it says."""

import asyncio
import base64
import hashlib
import itertools
import json
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from rho_score import reporting
from rho_score.config import CompareConfig, ReportConfig, SelectConfig
from rho_score.reporting.comparison import compare
from rho_score.reporting.heatmap import heat_map
from rho_score.reporting.page import report
from rho_score.reporting.sample import DocumentTokens
from rho_score.selecting.job import select
from tests.security.hostile import EVERY, PAYLOADS, write_hostile
from tests.stores import Doc, write_scores

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "section", "h1", "h2", "h3", "p", "div", "span", "b", "i", "small", "img",
    "table", "thead", "tbody", "tr", "th", "td", "code", "details", "summary", "ul", "li", "bdi", "script",
}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "name", "content", "http-equiv", "class", "src", "alt", "data-tip", "open", "dir"}
SCRIPT = (Path(reporting.__file__).parent / "templates" / "report.js").read_text().rstrip("\n")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Oracle(HTMLParser):
    """Refuses every tag and attribute that is not the template's own."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.images, self.scripts, self.policy = "", list[str](), list[str](), ""
        self._in_script = False
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        if tag == "script":
            assert not attrs
            self.scripts.append("")
            self._in_script = True
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""
        for name, value in attrs:
            assert name in ATTRIBUTES, (tag, name)
            if name == "src":
                assert tag == "img"
                head, _, content = (value or "").partition(",")
                assert head == "data:image/svg+xml;base64"
                self.images.append(base64.b64decode(content).decode())
            elif name == "dir":
                assert value == "auto"
            elif name not in ("data-tip", "alt", "content"):
                assert "javascript" not in (value or "")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")


def assert_harmless(page: str) -> Oracle:
    """The page holds our own elements and script only; its figures are well-formed and hold none that act."""
    found = Oracle(page)
    assert found.scripts == [SCRIPT]
    sha256 = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'sha256-{sha256}';" in found.policy
    assert found.policy.startswith("default-src 'none'; ")
    assert "unsafe" not in found.policy
    for image in found.images:
        for element in ET.fromstring(image).iter():
            assert element.tag.rpartition("}")[2] not in (
                "script",
                "foreignObject",
                "a",
                "image",
                "iframe",
                "animate",
                "set",
            )
            for name, value in element.attrib.items():
                assert not name.lower().startswith("on")
                assert not name.endswith("href") or value.startswith("#")
    return found


@pytest.fixture(scope="module")
def page(
    tokenizer: PreTrainedTokenizerFast, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The page of a selection whose every text, id, group and even folder attacks it."""
    folder = tmp_path_factory.mktemp("page") / "<img src=x onerror=alert(1)>"
    for name, seed in (("ref", 1), ("base", 2)):
        write_hostile(folder / name, EVERY, tokenizer, make_model(1), seed=seed)
    select(
        SelectConfig(output=f"{folder}/sel", ref=(f"{folder}/ref",), base=f"{folder}/base", ratio=0.5, per_group=True)
    )
    report(ReportConfig(store=f"{folder}/sel", output=f"{folder}/page.html", documents=100))
    return folder / "page.html"


def test_known_attacks_stay_text(page: Path) -> None:
    found = assert_harmless(page.read_text())
    for payload in PAYLOADS[:4]:
        assert payload[:200] in found.text
    assert len(found.images) >= 3


def test_known_attacks_stay_text_on_the_page_of_a_comparison(
    tokenizer: PreTrainedTokenizerFast, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    for name, seed in (("mine", 1), ("<img src=x onerror=alert(1)>", 2)):
        write_hostile(tmp_path / name, EVERY, tokenizer, make_model(1), seed=seed)
    stores = (f"{tmp_path}/mine", f"{tmp_path}/<img src=x onerror=alert(1)>")
    compare(CompareConfig(scores=stores, per_group=True, page=f"{tmp_path}/page.html", documents=100, min_tokens=1))
    found = assert_harmless((tmp_path / "page.html").read_text())
    for payload in PAYLOADS[:4]:
        assert payload[:200] in found.text
    assert len(found.images) == 4


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(max_size=60) | st.sampled_from(EVERY), min_size=1, max_size=5),
    payload=st.sampled_from(PAYLOADS),
)
def test_any_text_stays_text(
    texts: list[str], payload: str, tokenizer: PreTrainedTokenizerFast, make_model: Callable[[int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("any")
    texts = [text.encode("utf-8", "replace").decode() for text in (*texts, payload)]
    store = write_hostile(folder / "scores", texts, tokenizer, make_model(1))
    report(ReportConfig(store=str(store), output=f"{folder}/page.html"))
    assert_harmless((folder / "page.html").read_text())
    shutil.rmtree(folder)


@given(text=st.text(min_size=1, max_size=60) | st.sampled_from(PAYLOADS))
def test_a_notebooks_heat_map_is_spans_alone(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    text = text.encode("utf-8", "replace").decode()
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    document = DocumentTokens(text, text, ids, np.linspace(0, 3, len(ids)), ids % 2 == 0)
    html = heat_map(document, tokenizer, score_name="loss", middle=1, spread=1)
    found = Oracle(str(html))
    assert not found.images
    assert not found.scripts


# in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a headless Chromium's DevTools."""
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here, and `make system` installs it for root alone: install your system's package `chromium`"
        )
    folder = tmp_path_factory.mktemp("chromium")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--disable-extensions", "--no-proxy-server", f"--user-data-dir={folder}", "--remote-debugging-port=0",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([CHROMIUM, *flags, "about:blank"], stdout=log, stderr=log)
    try:
        port, end = folder / "DevToolsActivePort", time.monotonic() + 90
        while not (port.exists() and port.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()  # noqa: PT018
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
    finally:
        process.terminate()
        process.wait(30)


async def _open(address: str, page: Path, questions: list[str]) -> tuple[list[str], list[Any]]:
    """URLs that the page asks for, but for its own and for data: ones; and the values of expressions evaluated in it.

    A request that the page's policy stopped is told as "stopped", with its URL.
    """
    asked: dict[str, str] = {}
    numbers = itertools.count(1)
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{address}/json/new?about:blank") as response:
            target = await response.json(content_type=None)
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:

            async def call(method: str, wait_for: str | None = None, **params: Any) -> dict[str, Any]:
                number = next(numbers)
                await socket.send_json({"id": number, "method": method, "params": params})
                answer: dict[str, Any] = {}
                while True:
                    message = json.loads((await asyncio.wait_for(socket.receive(), 60)).data)
                    if message.get("method") == "Network.requestWillBeSent":
                        asked[message["params"]["requestId"]] = message["params"]["request"]["url"]
                    if message.get("params", {}).get("blockedReason") == "csp":
                        asked[message["params"]["requestId"]] = f"stopped {asked[message['params']['requestId']]}"
                    if message.get("id") == number:
                        answer = message
                    if answer and (wait_for is None or message.get("method") == wait_for):
                        return answer

            for domain in ("Network", "Page", "Runtime"):
                await call(f"{domain}.enable")
            await call("Page.navigate", wait_for="Page.loadEventFired", url=page.as_uri())
            wait = "new Promise(done => setTimeout(done, 500))"
            await call("Runtime.evaluate", expression=wait, awaitPromise=True)
            values = [
                (await call("Runtime.evaluate", expression=question, returnByValue=True))["result"]["result"].get(
                    "value"
                )
                for question in questions
            ]
    return [url for url in asked.values() if url != page.as_uri() and not url.startswith("data:")], values


def test_the_browser_would_tell(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<title>mine</title>{PAYLOADS[3][2:]}{PAYLOADS[17]}")
    asked, (title, pwned) = asyncio.run(_open(browser, page, ["document.title", "!!document.getElementById('pwned')"]))
    assert title == "pwned"
    assert pwned
    assert "http://127.0.0.1:9/i.png" in asked


def test_no_script_but_ours_runs_and_nothing_is_asked_for(browser: str, page: Path) -> None:
    questions = [
        "document.title", "!!document.getElementById('pwned')", "document.scripts.length", "document.images.length",
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)",
        "getComputedStyle(document.querySelector('.card')).borderRadius", "document.querySelectorAll('.doc span').length",
        "document.querySelectorAll('th button').length", "document.querySelector('input[type=search]').placeholder",
    ]  # fmt: skip
    asked, values = asyncio.run(_open(browser, page, questions))
    title, pwned, scripts, images, drawn, radius, spans, buttons, search = values
    assert asked == []
    assert title.startswith("selection ")
    assert not pwned
    assert scripts == 1
    assert images >= 3
    assert drawn
    assert radius == "8px"  # the style is the one that the policy names
    assert spans > 1000
    assert buttons >= 6  # the script is the one that the policy names
    assert search == f"search {len(EVERY)} rows"


def test_what_slipped_through_would_be_stopped_by_the_policy(browser: str, page: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.html"
    attack = f"<body>{PAYLOADS[0]}{PAYLOADS[3][2:]}{PAYLOADS[15]}{PAYLOADS[17]}<base href=http://127.0.0.1:9/>"
    spoilt.write_text(page.read_text().replace("<body>", attack, 1))
    asked, (title, pwned) = asyncio.run(
        _open(browser, spoilt, ["document.title", "!!document.getElementById('pwned')"])
    )
    assert asked
    assert all(url.startswith("stopped ") for url in asked)
    assert title.startswith("selection ")
    assert not pwned


ARABIC = "السلام عليكم ورحمة الله"


@pytest.fixture(scope="module")
def many_groups(
    tokenizer: PreTrainedTokenizerFast, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The page of a selection of a hundred groups of Arabic text, and their names from the least to the most kept."""
    folder = tmp_path_factory.mktemp("groups")
    ids = tokenizer(ARABIC, add_special_tokens=False)["input_ids"]
    order = np.random.default_rng(0).permutation(100)
    docs = [
        Doc(f"d{i}", f"g{i:02d}", ids * 3, [0.0 if j <= place else 1.0 for j in range(len(ids) * 3)])
        for i, place in enumerate(order.tolist())
    ]
    assert len(ids) * 3 > 100
    write_scores(folder / "ref", [[docs]], tokenizer=make_model(1))
    select(SelectConfig(output=f"{folder}/sel", ref=(f"{folder}/ref",), threshold=0.5))
    report(ReportConfig(store=f"{folder}/sel", output=f"{folder}/page.html"))
    return folder / "page.html", [f"g{i:02d}" for i in np.argsort(order).tolist()]


def test_the_page_of_many_groups_is_whole_without_its_script(many_groups: tuple[Path, list[str]]) -> None:
    page, names = many_groups
    found = assert_harmless(page.read_text())
    for name in names:
        assert found.text.count(name) >= 1
    assert "The 12 largest of 100 groups; the others together hold 88.0% of the tokens" in found.text
    assert ARABIC in found.text


def test_the_table_of_groups_is_sorted_and_searched(browser: str, many_groups: tuple[Path, list[str]]) -> None:
    page, names = many_groups
    table = "[...document.querySelectorAll('table.sortable')].find(t => t.rows.length === 101)"
    shown = f"[...({table}).tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[0].textContent)"
    share = f"({table}).tHead.rows[0].cells[4].querySelector('button').click()"
    by_name = f"({table}).tHead.rows[0].cells[0].querySelector('button').click()"
    search = (
        "{const field = document.querySelector('input[type=search]');"
        "field.value = 'G1'; field.dispatchEvent(new Event('input'));}"
    )
    questions = [
        shown,
        share,
        shown,
        share,
        shown,
        by_name,
        shown,
        search,
        shown,
        "document.querySelector('.search').textContent",
    ]
    asked, values = asyncio.run(_open(browser, page, questions))
    assert asked == []
    assert sorted(values[0]) == sorted(names)
    most_first, least_first = values[2], values[4]
    assert {*most_first[:1], *least_first[-1:]} <= {names[0], names[-1]}
    assert sorted([most_first, least_first]) == sorted([names, names[::-1]])
    assert values[6] == sorted(names)
    assert values[8] == [f"g{i}" for i in range(10, 20)]
    assert values[9] == "10 found"


def test_joined_scripts_stay_joined_in_the_browser(browser: str, many_groups: tuple[Path, list[str]]) -> None:
    """Letters in spans of their own are as wide as in one text, and run from right to left."""
    page, _ = many_groups
    doc = "document.querySelector('details[open] .doc[dir]')"
    width = f"""(() => {{
        const doc = {doc}, plain = document.createElement("div"), range = document.createRange();
        plain.className = "doc"; plain.dir = "auto"; plain.textContent = doc.textContent;
        doc.after(plain);
        range.selectNodeContents(plain);
        const boxes = [[...doc.children].flatMap(span => [...span.getClientRects()]), [...range.getClientRects()]];
        const widths = boxes.map(of => of.reduce((sum, box) => sum + box.width, 0));
        widths.push(doc.offsetHeight, plain.offsetHeight);
        plain.remove();
        return widths;
    }})()"""
    questions = [f"getComputedStyle({doc}).direction", f"{doc}.children.length", f"{doc}.textContent", width]
    _, (direction, spans, text, (apart, whole, height, plain)) = asyncio.run(_open(browser, page, questions))
    assert direction == "rtl"
    assert spans == len(ARABIC) * 3
    assert text == ARABIC * 3
    assert height == plain
    assert abs(apart - whole) < 0.02 * whole
