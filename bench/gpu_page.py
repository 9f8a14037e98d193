"""The results of `make gpu` as a section of docs/benchmarks.md."""

import textwrap
from typing import Any

BEGIN, END = "<!-- begin of what python -m bench.gpu --publish writes -->", "<!-- end -->"


def table(results: dict[str, Any]) -> str:
    """The machine in a paragraph, and a table of all parts, in Markdown."""
    named = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    about = (
        f"{results['gpu']}; {results['cpu']}, {results['memory']['GiB']:.0f} GiB. Python {results['python']}, {named}. "
        f"{results['date']}, commit {results['commit']}, {results['minutes']:g} minutes."
    )
    lines = [*textwrap.wrap(about, 100, break_long_words=False, break_on_hyphens=False), ""]
    lines += ["| part | what | |", "|---|---|---|"]
    for part in results["parts"]:
        rows = [(_cell(row["what"]), _cell(row["shown"])) for row in part["rows"]]
        if part["error"]:
            rows.append(("**not finished**", _cell(part["error"])))
        for i, (what, shown) in enumerate(rows):
            name = f"{part['name']} ({part['seconds']:.0f} s)" if i == 0 else ""
            lines.append(f"| {name} | {what} | {shown} |")
    return "\n".join(lines) + "\n"


def publish(page: str, results: dict[str, Any]) -> str:
    """Returns the page with the table between its two markers.

    Raises:
        ValueError: the page lacks a marker.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the line {BEGIN!r} or, below it, {END!r}")
    return f"{before}{BEGIN}\n\n{table(results)}\n{END}{after}"


def _cell(text: str) -> str:
    """Text that ends no cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
