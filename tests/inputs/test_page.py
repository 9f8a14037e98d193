from pathlib import Path

from tests.inputs.page import page


def test_the_page_says_what_the_tables_say() -> None:
    written = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m tests.inputs.page > docs/inputs.md"
