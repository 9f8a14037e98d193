"""The report, which needs only the stores and shows hostile text as text, and the notebooks."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nbclient
import nbformat
import pytest

from rho_score.config import DynamicsConfig, ReportConfig, SelectConfig
from rho_score.errors import InputError
from rho_score.reporting.page import report
from rho_score.selecting.dynamics import dynamics
from rho_score.selecting.job import select
from rho_score.stores.selection import Selection
from tests.ray.conftest import score_into

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></span></div><svg onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %} $x_{",
    "\u202eright to left\u202c \x07 bell \u2028 line\nnew",
    "<|im_end|><s></s>",
]


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def _assert_harmless(page: Page) -> None:
    assert not page.tags & {"iframe", "object", "embed", "link", "form", "svg"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    places = [value for name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert all(place.startswith("data:image/svg+xml;base64,") for place in places)
    assert ("http-equiv", "Content-Security-Policy") in page.attributes


@pytest.fixture(scope="module")
def hostile(ray_cluster: str, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Score sets and a selection of a corpus whose texts, ids and groups attack the page."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "corpus").mkdir()
    rows = [{"id": f"{i}{text}", "source": HOSTILE[i % 3], "text": text * 5} for i, text in enumerate(HOSTILE)]
    (folder / "corpus" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, seed in (("ref", 1), ("base", 2)):
        score_into(folder / "corpus", folder / name, make_model(seed))
    select(SelectConfig(output=f"{folder}/selection", ref=f"{folder}/ref", base=f"{folder}/base", ratio=0.6))
    return folder


@pytest.mark.parametrize("store", ["selection", "ref"])
def test_hostile_text_stays_text(hostile: Path, store: str, tmp_path: Path) -> None:
    report(ReportConfig(store=f"{hostile}/{store}", output=f"{tmp_path}/page.html", documents=20))
    page = Page(tmp_path / "page.html")
    _assert_harmless(page)
    for text in HOSTILE[:2]:
        assert text in page.text  # as the name of a document or a group
    assert "\u202e" not in "".join(page.text.split("page.html")).replace(HOSTILE[4], "")


def test_the_page_needs_the_store_only(hostile: Path, tmp_path: Path) -> None:
    shutil.copytree(hostile / "selection", tmp_path / "moved")
    report(ReportConfig(store=f"{tmp_path}/moved", output=f"{tmp_path}/page.html"))
    page = Page(tmp_path / "page.html")
    _assert_harmless(page)
    assert "The score sets behind this selection were not found" in page.text
    summary = Selection.open(f"{tmp_path}/moved").summary
    assert f"{sum(row['tokens_kept'] for row in summary['groups']):,}" in page.text
    report(
        ReportConfig(
            store=f"{tmp_path}/moved",
            output=f"{tmp_path}/page.html",
            ref=f"{hostile}/ref",
            base=f"{hostile}/base",
        )
    )
    tips = [value for name, value in Page(tmp_path / "page.html").attributes if name == "data-tip"]
    assert tips
    assert all("reference loss" in tip and "base loss" in tip and "excess loss" in tip for tip in tips)
    with pytest.raises(InputError, match="not the score set that"):
        report(ReportConfig(store=f"{tmp_path}/moved", output=f"{tmp_path}/x.html", ref=f"{hostile}/base"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_on_stores_alone(
    name: str, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RHO_SCORES", f"{hostile}/ref")
    monkeypatch.setenv("RHO_BASE", f"{hostile}/base")
    monkeypatch.setenv("RHO_SELECTION", f"{hostile}/selection")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    done = nbclient.NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html", "image/svg+xml"} <= kinds
    shown = [output.get("data", {}) for output in outputs]
    pages = "".join(data.get("text/html", "") + data.get("image/svg+xml", "") for data in shown)
    assert not re.search("<script|<img src=x|<svg onload", pages)
    assert not set(re.findall("&lt;(div|span|style|h4)", pages))
    assert name != "scores" or '<div class="doc" dir="auto"><span class="' in pages


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_with_its_outputs(name: str) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code[1:]), "run python -m demo.notebooks"
    assert {output.output_type for cell in code for output in cell.outputs} <= {
        "stream",
        "execute_result",
        "display_data",
    }
    text = json.dumps(notebook)
    assert not re.search(r"/home/|/root/|/tmp/|/work/|Warning", text)
    assert len(text) < 400_000


def test_every_kind_of_selection_has_a_page(scores: dict[str, Path], tmp_path: Path) -> None:
    ref, base = str(scores["ref"]), str(scores["base"])
    two = (f"one={ref}", f"two={base}")
    kinds = {
        "sample": {"ref": ref, "base": base, "ratio": 0.3, "sample": "gumbel"},
        "union": {"ref": two, "base": base, "ratio": 0.3, "combine": "union", "expert_masks": True},
        "document": {"ref": ref, "base": base, "ratio": 0.3, "scope": "document"},
        "per-byte": {"ref": ref, "ratio": 0.3, "level": "document", "document_score": "per-byte"},
        "nothing": {"ref": ref, "base": base, "ratio": 0.0},
    }
    for name, options in kinds.items():
        select(SelectConfig(output=f"{tmp_path}/{name}", **options))  # type: ignore[arg-type]
    dynamics(DynamicsConfig(output=f"{tmp_path}/dynamics", scores=(base, ref)))
    for name in (*kinds, "dynamics"):
        report(ReportConfig(store=f"{tmp_path}/{name}", output=f"{tmp_path}/{name}.html"))
        page = Page(tmp_path / f"{name}.html")
        assert "img" in page.tags
        assert "share kept" in page.text
