"""Text as Markdown that says the same."""

import re


def code(text: str) -> str:
    """Text as code, also inside a table."""
    return f"`{text}`".replace("|", "\\|")


def cell(text: str) -> str:
    """A paragraph of a docstring as the cell of a table: options become code, nothing else becomes a tag or a column."""
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return re.sub(r"(?<![\w`-])--[a-z][a-z-]*[a-z]", lambda match: f"`{match[0]}`", text)
