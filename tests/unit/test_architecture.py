"""`docs/architecture.md` shows the package as it is."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rho_score"


def _block(name: str) -> list[str]:
    """The lines of the page's ```text block of this name."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = re.search(rf"^```text {name}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found, f"docs/architecture.md has no block ```text {name}"
    return found[1].splitlines()


def _modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir() if path.suffix in (".py", ".pyx") and path.stem != "__init__"}


def test_the_tree_is_that_of_the_package() -> None:
    shown = {}
    for line in _block("tree"):
        room, _, modules = line.strip().partition("/")
        shown[room] = {name.strip() for name in modules.split("·")}
    rooms = [path for path in PACKAGE.iterdir() if path.is_dir() and _modules(path)]
    assert shown == {room.name: _modules(room) for room in [PACKAGE, *rooms]}


def test_the_layers_are_those_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert _block("layers") == next(contract["layers"] for contract in contracts if contract["type"] == "layers")
