"""The page in a real browser: clicks, keys, the slider, searches, heat maps, links, and text that attacks."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from bench.browser import CHROMIUM, Tab, chromium, tab
from rho_score.config import ViewConfig
from rho_score.stores.open import open_store
from rho_score.viewing.answers import Answers
from rho_score.viewing.job import open_answers
from rho_score.viewing.server import application, serve
from tests.security.hostile import EVERY, write_hostile
from tests.stores import Doc, write_scores
from tests.unit.viewing.conftest import Stores, tables

TEXT = "[...document.querySelectorAll('.panel:first-child .doc span')].map(e => e.textContent).join('')"
LISTED = "[...document.querySelectorAll('#documents .id')].map(e => e.textContent)"
CHOSEN = "document.querySelector('#documents li.chosen .id')?.textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a headless Chromium's DevTools."""
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium here, and `make system` installs it for root alone: install your system's package `chromium`"
        )
    with chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@asynccontextmanager
async def _served(answers: Answers) -> AsyncIterator[str]:
    runner, port = await serve(application(answers, "token"), 0)
    yield f"http://127.0.0.1:{port}/token/"
    await runner.cleanup()


async def _ready(page: Tab) -> None:
    await page.until("document.body?.dataset.ready === 'yes' && document.getElementById('progress').hidden")


async def _opened(page: Tab, doc_id: str) -> None:
    await page.until(
        f"{CHOSEN} === {json.dumps(doc_id)} && document.querySelector('.panel h3 bdi')?.textContent === {json.dumps(doc_id)}"
    )
    await page.until("!document.querySelector('.panel .doc span:not([class])')")


def _explore(
    browser: str, answers: Answers, visit: Callable[[str, Tab], Awaitable[None]], *, dark: bool = False, at: str = ""
) -> None:
    """Visits a page about some stores; it must ask for nothing of others and log no error."""

    async def run() -> None:
        async with _served(answers) as url, tab(browser, url + at, dark=dark) as page:
            await _ready(page)
            await visit(url, page)
            assert page.complaints == []
            assert [asked for asked in page.requests if not asked.startswith((url, "data:"))] == []

    asyncio.run(run())


def test_the_slider_counts(browser: str, stores: Stores, opened: Callable[..., Answers]) -> None:
    values = np.array([x for _, _, row in tables(stores.url("selection")) for x in row["excess"] if x is not None])  # type: ignore[attr-defined]

    async def visit(url: str, page: Tab) -> None:
        for place in (100, 500, 900):
            await page.value(
                f"(e => {{ e.value = {place}; e.dispatchEvent(new Event('input')) }})(document.getElementById('slider'))"
            )
            await page.until(f"document.getElementById('slider').value === '{place}' && location.hash.includes('t=')")
            await _kept(page, values)
        before = float(await page.value("document.getElementById('threshold').value"))
        await page.key("ArrowRight")
        await page.until(f"Number(document.getElementById('threshold').value) > {before}")
        await _kept(page, values)
        await page.value(
            "(e => { e.value = '25'; e.dispatchEvent(new Event('change')) })(document.getElementById('share'))"
        )
        wanted = np.sort(values)[-round(0.25 * len(values))]
        await page.until(f"Math.abs(Number(document.getElementById('threshold').value) - {wanted}) < 1e-4")
        share = "(e => {{ e.value = '{}'; e.dispatchEvent(new Event('change')) }})(document.getElementById('share'))"
        await page.value(share.format(""))  # an empty field asks nothing
        await _kept(page, values)
        await page.value(share.format("0"))
        await page.until(f"document.getElementById('kept').textContent.startsWith('0 of {len(values):,} scored')")
        assert await page.value("document.getElementById('slider').value") == "1000"

    _explore(browser, opened("selection"), visit)


def test_what_other_rules_keep_is_shown_as_it_is_stored(
    browser: str, stores: Stores, opened: Callable[..., Answers]
) -> None:
    kept = sum(sum(row["mask"]) for _, _, row in tables(stores.url("drop-top")))  # type: ignore[call-overload]
    about = open_store(stores.url("drop-top")).summary["thresholds"][0]["threshold"]
    scores = [x for _, _, row in tables(stores.url("drop-top")) for x in row["excess"] if x is not None]  # type: ignore[attr-defined]
    alone = int((np.array(scores) >= about).sum())
    assert alone > kept

    async def visit(url: str, page: Tab) -> None:
        text = await page.value("document.getElementById('kept').textContent")
        assert text.startswith(f"{kept:,} of ")
        assert text.endswith(f"as it is stored; its threshold alone would keep {alone:,}")
        assert float(await page.value("document.getElementById('threshold').value")) == pytest.approx(about, abs=1e-4)
        await page.key("ArrowRight")
        await page.until("document.getElementById('kept').textContent.includes('scored tokens kept')")

    _explore(browser, opened("drop-top"), visit)


async def _kept(page: Tab, values: np.ndarray) -> None:
    """What the page says is kept is what a comparison keeps."""
    at = "Number(new URLSearchParams(location.hash.slice(1)).get('t'))"
    await asyncio.sleep(0.4)  # the address follows
    kept = int((values >= await page.value(at)).sum())
    await page.until(
        f"document.getElementById('kept').textContent.startsWith('{kept:,} of {len(values):,} scored tokens kept')"
    )


def test_keys_lists_links_and_heat_maps(browser: str, stores: Stores, opened: Callable[..., Answers]) -> None:
    async def visit(url: str, page: Tab) -> None:
        assert await page.value("document.getElementById('count').textContent") == "60"
        for doc_id, key in (("Doc-0", "j"), ("Doc-1", "j"), ("Doc-2", "j"), ("Doc-1", "k")):
            await page.key(key)
            await _opened(page, doc_id)
        await page.value(
            "(e => { e.value = 'tokens'; e.dispatchEvent(new Event('change')) })(document.getElementById('sort'))"
        )
        longest = max(range(60), key=lambda i: (len(stores.documents[i][0].ids), -i))
        await page.until(f"{LISTED}[0] === 'Doc-{longest}'")
        await page.point("#documents li button", click=True)
        await _opened(page, f"Doc-{longest}")
        shown = str(await page.value(TEXT)).replace("↵\n", "\n").replace("⇥\t", "\t")
        assert shown == stores.texts[longest]
        await page.point(".doc span")
        tip = await page.until("!document.getElementById('tip').hidden && document.getElementById('tip').textContent")
        ref, base = stores.documents[longest]
        assert f"token {ref.ids[0]}, position 0" in tip
        for name, value in (("ref loss", ref.loss[0]), ("base loss", base.loss[0])):
            assert name in tip
            assert value is None or f"{name} {float(f'{value:.4g}'):g}" in tip
        await page.key("4")
        await page.until(
            "document.querySelector('.layer').value === 'ref.loss' && location.hash.includes('layer=ref.loss')"
        )
        link = await page.value("location.href")
        async with tab(browser, link) as other:
            await _ready(other)
            await _opened(other, f"Doc-{longest}")
            assert await other.value("document.querySelector('.layer').value") == "ref.loss"

    _explore(browser, opened("selection"), visit)


def test_search_and_filters(browser: str, stores: Stores, opened: Callable[..., Answers]) -> None:
    async def visit(url: str, page: Tab) -> None:
        await page.key("/")
        assert await page.value("document.activeElement.id") == "text"
        await page.write("needle")
        await page.key("Enter")
        await page.value("document.getElementById('filters').requestSubmit()")
        expected = [f"Doc-{i}" for i, text in enumerate(stores.texts) if "needle" in text]
        await page.until(f"JSON.stringify({LISTED}) === JSON.stringify({expected})")
        assert "All 60 documents were searched" in await page.value(
            "document.getElementById('search-note').textContent"
        )
        await page.value("document.activeElement.blur()")
        await page.key("j")
        await _opened(page, expected[0])
        marked = await page.until("[...document.querySelectorAll('.doc .hit')].map(e => e.textContent).join('')")
        assert "needle" in marked
        await page.value(
            "document.getElementById('text').value = ''; document.getElementById('filters').requestSubmit()"
        )
        await page.until("document.getElementById('count').textContent === '60'")
        await page.value("[...document.querySelectorAll('#groups td button')].find(b => b.textContent === 'b').click()")
        await page.until(f"JSON.stringify({LISTED}) === JSON.stringify({[f'Doc-{i}' for i in range(1, 60, 4)]})")
        assert await page.value("document.querySelector('#groups tr.chosen').textContent.startsWith('b')")

    _explore(browser, opened("selection"), visit)


@pytest.mark.parametrize("dark", [False, True])
def test_dark_and_help(browser: str, opened: Callable[..., Answers], dark: bool) -> None:
    async def visit(url: str, page: Tab) -> None:
        colour = "getComputedStyle(document.body).backgroundColor"
        shades = [await page.value(colour)]
        await page.key("t")
        shades.append(await page.value(colour))
        assert shades == ["rgb(19, 23, 28)", "rgb(246, 248, 250)"][:: 1 if dark else -1]
        await page.key("?")
        await page.until("document.getElementById('help').open")
        await page.key("Escape")
        await page.until("!document.getElementById('help').open")

    _explore(browser, opened("selection"), visit, dark=dark)


def test_side_by_side(browser: str, stores: Stores, opened: Callable[..., Answers]) -> None:
    async def visit(url: str, page: Tab) -> None:
        await page.key("j")
        await page.until("document.querySelectorAll('.panel').length === 3")
        texts = await page.value("[...document.querySelectorAll('.panel .doc')].map(e => e.innerText)")
        assert len(set(texts)) == 1
        assert await page.value("[...document.querySelectorAll('.from')].length") == 3
        await page.point(".panel .doc span")
        await page.until("document.querySelectorAll('.doc span.pointed').length === 2")

    _explore(browser, opened("selection", "ref", "documents"), visit)


@pytest.fixture(scope="module")
def large(
    tokenizer: PreTrainedTokenizerFast, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Answers]:
    """A score set of a hundred groups, with a document of 20,000 tokens and one of Arabic."""
    folder = tmp_path_factory.mktemp("large")
    words = tokenizer("the model learns a token of text from its loss 東京\n" * 3000, add_special_tokens=False)[
        "input_ids"
    ]
    arabic = tokenizer("مرحبا بالعالم، هذا نص عربي 123 abc", add_special_tokens=False)["input_ids"]
    docs = [Doc("long", "group-000", words[:20_000], [float(i % 7) for i in range(20_000)])]
    docs.append(Doc("arabic", "group-001", arabic, [1.0] * len(arabic)))
    docs += [Doc(f"d{i}", f"group-{i:03d}", words[:5], [0.5] * 5) for i in range(2, 100)]
    write_scores(folder / "scores", [[docs]], tokenizer=make_model(1))
    answers = open_answers(ViewConfig(store=f"{folder}/scores", cache=f"{folder}/cache"))
    answers.stores[0].index.wait()
    yield answers
    answers.close()


def test_long_documents_and_many_groups(browser: str, large: Answers, tokenizer: PreTrainedTokenizerFast) -> None:
    async def visit(url: str, page: Tab) -> None:
        await page.key("j")
        await _opened(page, "long")
        pieces = await page.until("document.querySelectorAll('.doc span').length")
        ids = large.document({"unit": "0", "row": "0"})["ids"]
        assert len(ids) == 20_000
        assert 5_000 < pieces <= 20_000
        await page.until(
            f"document.querySelectorAll('.doc span').length === {len(large.document({'unit': '0', 'row': '0'})['text'])}"
        )
        shown = str(await page.value(TEXT)).replace("↵\n", "\n")
        assert shown[:-10] == tokenizer.decode(ids)[: len(shown) - 10]  # the last character may be torn
        assert "�" not in await page.value(TEXT)
        assert await page.value("document.querySelectorAll('#groups tbody tr').length") == 100
        await page.value(
            "(e => { e.value = 'group-04'; e.dispatchEvent(new Event('input')) })(document.getElementById('group-search'))"
        )
        await page.until("document.querySelectorAll('#groups tbody tr').length === 10")
        await page.key("j")
        await _opened(page, "arabic")
        line = "getComputedStyle(document.querySelector('.doc .line')).direction"
        assert await page.value(line) == "rtl"
        assert "مرحبا" in await page.value("document.querySelector('.doc .line').textContent")

    _explore(browser, large, visit)


def test_text_that_attacks_stays_text(
    browser: str, tokenizer: PreTrainedTokenizerFast, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    store = write_hostile(tmp_path / "<img src=x onerror=alert(1)>", EVERY, tokenizer, make_model(1))
    answers = open_answers(ViewConfig(store=str(store), cache=f"{tmp_path}/cache"))
    answers.stores[0].index.wait()

    async def visit(url: str, page: Tab) -> None:
        for i in range(len(EVERY)):
            await page.key("j")
            await page.until(f"document.querySelector('#documents li:nth-child({i + 1})')?.className === 'chosen'")
            await page.until("document.querySelectorAll('.doc span[class]').length > 0")
            await page.point(".doc span")
        assert not await page.value("!!document.getElementById('pwned') || document.title.startsWith('pwned')")
        assert await page.value("document.scripts.length") == 1
        assert await page.value("document.querySelectorAll('img, iframe, svg, a, form form, base, object').length") == 0

    try:
        _explore(browser, answers, visit)
    finally:
        answers.close()
