from types import ModuleType

import pytest

from rho_score.cli.commands import COMMANDS
from rho_score.config.describe import describe
from tests.docs_pages import PAGES, ROOT
from tests.docs_pages.api import api_page
from tests.docs_pages.commands import cli_page


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_says_what_the_code_says(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name](), "run: python -m tests.docs_pages"


def test_every_option_of_every_command_is_on_the_page() -> None:
    page = cli_page()
    for command in COMMANDS.values():
        for option in (option for group in describe(command.config) for option in group.options):
            for name in option.flags or (option.metavar,):
                assert f"`{name}" in page


def test_public_names_are_described_by_kind() -> None:
    from rho_score.config import ScoreConfig
    from rho_score.errors import InputError
    from rho_score.stores.open import open_store
    from rho_score.stores.score_set import ScoreSet

    module = ModuleType("example")
    module.__dict__.update(
        __all__=["ScoreConfig", "InputError", "open_store", "ScoreSet"],
        ScoreConfig=ScoreConfig, InputError=InputError, open_store=open_store, ScoreSet=ScoreSet,
    )  # fmt: skip
    page = api_page(module)
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == [
        "Functions",
        "Classes",
        "Configurations",
        "Errors",
    ]
    assert "open_store(url: str) -> ScoreSet | Selection" in page
    assert "| `units` | All units, in corpus order. |" in page
    assert "| `held` |" in page
