from pathlib import Path

from tests.links import ROOT, broken_links, check


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    assert check(ROOT, None) == []


def test_what_is_wrong_with_a_link_is_said(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#a-heading) [c](gone.md) [d](there.md#gone) [e](../out.md) [f](https://x.org) [g](#me)\n"
    )
    assert [line.split(": ", 1)[1] for line in broken_links(page, tmp_path)] == [
        "gone.md leads nowhere",
        "there.md#gone has no such anchor",
        f"../out.md leaves {tmp_path}",
        "#me has no such anchor",
    ]


def test_a_page_that_loads_from_another_server_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<link rel="canonical" href="https://x.org/"><script src="https://x.org/a.js"></script>')
    assert [line.split(": ", 1)[1] for line in broken_links(page, tmp_path)] == [
        "loads https://x.org/a.js from another server"
    ]
