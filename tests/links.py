"""Checks every link of the documentation, without a network: `python -m tests.links [SITE]`.

A relative link must lead to a file that exists, and a fragment to an anchor in it. The Markdown files are rendered by
the library that builds the site, so their anchors are those that readers get. With SITE, the built pages are checked too,
and none may load anything from another server.
"""

import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
AT_ROOT = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
EXTENSIONS = ["toc", "tables", "fenced_code", "attr_list"]
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """The anchors and the links of one page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to, and the anchor that it is."""
        given = {name: value for name, value in attrs if value}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if (name := LOADED.get(tag)) in given and given.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(given[name])


@cache
def page_of(path: Path) -> Page:
    """A Markdown or HTML file as a page."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        from markdown import markdown

        content = markdown(content, extensions=EXTENSIONS)
    return Page(content)


def broken_links(path: Path, root: Path) -> Iterator[str]:
    """What is wrong with the links of one file, a line each. No link may leave the folder `root`."""
    page = page_of(path)
    for link in page.links + page.loaded:
        url = urlsplit(link)
        if url.scheme or url.netloc:
            if link in page.loaded and url.scheme != "data":
                yield f"{path}: loads {link} from another server"
            continue
        target = (path.parent / unquote(url.path)).resolve() if url.path else path
        if not target.is_relative_to(root):
            yield f"{path}: {link} leaves {root}"
        elif not target.exists():
            yield f"{path}: {link} leads nowhere"
        elif url.fragment and target.suffix in (".md", ".html") and not _has_anchor(target, unquote(url.fragment)):
            yield f"{path}: {link} has no such anchor"


def _has_anchor(path: Path, fragment: str) -> bool:
    return fragment in page_of(path).anchors


def check(root: Path, site: Path | None) -> list[str]:
    """Every broken link of the repository's documentation and, if it is given, of the built site."""
    docs = root / "docs"
    found = [line for name in AT_ROOT for line in broken_links(root / name, root)]
    found += [line for path in sorted(docs.rglob("*.md")) for line in broken_links(path, docs)]
    if site is not None:
        pages = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
        found += [line for path in pages for line in broken_links(path, site.resolve())]
    return found


if __name__ == "__main__":
    problems = check(ROOT, Path(sys.argv[1]).resolve() if sys.argv[1:] else None)
    print("\n".join(problems) or "every link leads somewhere")
    raise SystemExit(bool(problems))
