"""Every command that the documentation shows is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

from rho_score.cli.entry import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _commands(page: Path) -> list[str]:
    """The `rho-score` commands in the code blocks of a page, without those that leave something out."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [match[1] for line in lines if (match := re.match(r"\s*(?:\$ |\w+=\S+ )*rho-score (.*)", line))]
    return [command for command in found if not re.search(r"[…\[]", command)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_taken(page: Path) -> None:
    for command in _commands(page):
        assert parse(shlex.split(command, comments=True)) is not None, command


def test_there_are_commands_to_try() -> None:
    assert sum(len(_commands(page)) for page in PAGES) > 20
