"""The files of the page make nothing of text but text, ask for nothing elsewhere, and are in the package."""

import re
import tomllib
from pathlib import Path

import pytest

from rho_score.reporting.heatmap import COLOURS

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "rho_score/viewing/static"
FILES = sorted(STATIC.iterdir())
SINKS = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|\beval\b|Function\(|setHTML|srcdoc|https?:"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_text_becomes_markup_and_nothing_is_asked_for_elsewhere(path: Path) -> None:
    assert not re.search(SINKS, path.read_text())
    assert (
        not re.search(r"\son[a-z]+=|style=|javascript:|<script(?! type=\"module\" src)", path.read_text())
        or path.suffix == ".js"
    )


def test_every_import_and_every_id_is_there() -> None:
    names, page = {path.name for path in FILES}, (STATIC / "index.html").read_text()
    ids = set(re.findall(r'id="([^"]+)"', page))
    for path in FILES:
        if path.suffix == ".js":
            text = path.read_text()
            assert set(re.findall(r'from "\./([^"]+)"', text)) <= names
            assert set(re.findall(r'\$\("([^"]+)"\)', text)) - {"fade"} <= ids  # "fade" is made by panel.js
    assert set(re.findall(r'(?:href|src)="([^"]+)"', page)) <= {*names, "data:,"}


def test_the_light_colours_are_those_of_the_report() -> None:
    css = (STATIC / "heat.css").read_text()
    for level, colour in enumerate(COLOURS):
        assert f"--h{level}: {colour};" in css.partition(".dark-colours")[0]


def test_the_files_are_in_the_package() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["rho_score"]
    assert "viewing/static/*" in data
