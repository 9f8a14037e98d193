"""`docs/architecture.md` shows the package as it is."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rho_score"


def _block(heading: str) -> str:
    """The ```text block under this heading of the page."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {heading}$.*?^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found, f"docs/architecture.md has no ```text block under {heading}"
    return found[1]


def _modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir() if path.suffix in (".py", ".pyx") and path.stem != "__init__"}


def test_the_tree_is_that_of_the_package() -> None:
    entries = re.findall(r"^ *(\w+)/ +([^/]*?)(?=\n *\w+/|\Z)", _block("The tree"), re.MULTILINE)
    shown = {room: {name.strip() for name in modules.split("·")} for room, modules in entries}
    rooms = [path for path in PACKAGE.iterdir() if path.is_dir() and _modules(path)]
    assert shown == {room.name: _modules(room) for room in [PACKAGE, *rooms]}


def test_the_layers_are_those_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert _block("The layers").splitlines() == next(
        contract["layers"] for contract in contracts if contract["type"] == "layers"
    )
