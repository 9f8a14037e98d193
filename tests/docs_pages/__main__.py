"""Writes the generated pages of the reference: `python -m tests.docs_pages`."""

from tests.docs_pages import PAGES, ROOT

for name, page in PAGES.items():
    (ROOT / name).write_text(page(), encoding="utf-8")
    print(f"wrote {name}")
