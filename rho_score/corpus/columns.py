"""Finds a document's text, id and group in columns, in structs and objects, and in folder names."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from rho_score.config.corpus import ContentKind
from rho_score.corpus.lines import LONGEST_LINE
from rho_score.corpus.values import Unusable, Value
from rho_score.errors import InputError
from rho_score.safe_text import visible

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
MISSING = object()
"""Used in place of a value if there is no such column or key."""


class Columns(NamedTuple):
    """The names of the input's columns as the user gives them.

    A name may be a path (`meta.source`). The name for ids may list several columns (`lang,id`).
    """

    text: str
    """What counts: the text, the response, or the chat."""
    id: str | None = None
    group: str | None = None
    context: str | None = None
    """What comes before the text and does not count: a prompt, a prefix, or the tools of a chat."""
    kind: ContentKind = "text"
    rejected: str | None = None
    """In pairs, of which `text` is the chosen response: the rejected one."""
    split_at: int | None = None
    """In files of token ids: the id that ends a document, see `rho_score.corpus.token_shards`."""

    @property
    def documents_per_row(self) -> int:
        """How many documents a row of the input is."""
        return 2 if self.kind == "pair" else 1

    @property
    def contents(self) -> list[tuple[str, str]]:
        """The columns of a document's content, each with the option that names it. They are in the shard itself."""
        named = [(self.text, self.text_flag), (self.context, self.context_flag), (self.rejected, "--rejected-column")]
        return [(column, flag) for column, flag in named if column is not None]

    @property
    def text_flag(self) -> str:
        """The option that names the column of the text."""
        flags = {
            "ids": "--ids-column",
            "messages": "--messages-column",
            "response": "--response-column",
            "pair": "--chosen-column",
            "values": "--values-column",
        }
        return flags.get(self.kind, "--text-column")

    @property
    def context_flag(self) -> str:
        """The option that names the column of what comes before the text."""
        flags = {"prefixed": "--prefix-column", "messages": "--tools-column", "values": "--ids-column"}
        return flags.get(self.kind, "--prompt-column")

    @property
    def id_parts(self) -> list[str]:
        """The columns whose values make the id, if no column has the full name."""
        return [part.strip() for part in (self.id or "").split(",")]


class Document(NamedTuple):
    """A document of the input."""

    doc_id: str
    group: str | None
    text: str | None
    """What `rho_score.models.content` makes tokens of; None if the document cannot be scored."""
    error: str | None
    """The reason why the document cannot be scored."""


class Row(NamedTuple):
    """A row of a shard as its format reads it."""

    document: Document
    before: float | None
    """The share of the unit that the rows before this one are in, 0 to 1; None if it is not known."""


def splits(name: str) -> Iterator[tuple[str, str]]:
    """Yields the ways to split a dotted name into (first, rest), the longest first part first."""
    at = name.rfind(".")
    while at > 0:
        if name[at + 1 :]:
            yield name[:at], name[at + 1 :]
        at = name.rfind(".", 0, at)


def value_at(record: Mapping[str, Any], name: str) -> Any:
    """The value of a key, or at a path into objects.

    It is None if the path leads through a null, and MISSING if there is no such key or path.
    """
    if name in record:
        return record[name]
    for first, rest in splits(name):
        child = record.get(first, MISSING)
        if child is None:
            return None
        if isinstance(child, dict) and (found := value_at(child, rest)) is not MISSING:
            return found
    return MISSING


def paths_in(records: Iterable[Mapping[str, Any]], depth: int = 8) -> list[str]:
    """The keys of these records, and the paths into their objects, sorted.

    depth: how many levels of objects are looked into.
    """
    found: set[str] = set()
    for record in records:
        for key, value in record.items():
            inner = paths_in([value], depth - 1) if isinstance(value, dict) and depth else []
            found.update(f"{key}.{path}" for path in inner)
            if not inner:
                found.add(key)
    return sorted(found)


def folder_values(shard: str) -> dict[str, str | None]:
    """The values in a shard's folder names. These are KEY=VALUE, percent-encoded as in Hive.

    Raises:
        InputError: a key or a value is not UTF-8.
    """
    values: dict[str, str | None] = {}
    for part in shard.split("/")[:-1]:
        key, equals, value = part.partition("=")
        if not (key and equals):
            continue
        try:
            values[unquote(key, errors="strict")] = None if value == _HIVE_NULL else unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise InputError(f"the name of its folder {visible(part)} is not UTF-8. Rename it.") from None
    return values


def joined_id(parts: list[tuple[str, Value]]) -> Value:
    """The id that these columns' values make; unusable if one of them is unusable or null."""
    for column, value in parts:
        if value is None:
            return Unusable("null", column)
        if isinstance(value, Unusable):
            return Unusable(value.reason, column)
    return "/".join(str(value) for _, value in parts)


def document(default_id: str, text: Any, doc_id: Value, group: Value, columns: Columns, *, place: str = "") -> Document:
    """The document of a row. If one of the values is unusable, the document has an error instead.

    default_id: the id of the document if its own is unusable. place: what the error begins with.
    """
    if not isinstance(doc_id, str):
        wrong = doc_id or Unusable("null")
        return Document(default_id, None, None, f"{place}column {wrong.column or columns.id!r} is {wrong.reason}")
    if isinstance(group, Unusable):
        return Document(doc_id, None, None, f"{place}column {columns.group!r} is {group.reason}")
    if isinstance(text, str) and len(text) <= LONGEST_LINE:
        return Document(doc_id, group, text, None)
    column = columns.text
    if text is None:
        what = "null"
    elif isinstance(text, str):
        what = f"longer than {LONGEST_LINE:,} characters. Split the document"
    elif isinstance(text, Unusable):
        what, column = text.reason, text.column or columns.text
    else:
        what = f"{type(text).__name__}, not a string"
    return Document(doc_id, group, None, f"{place}column {column!r} is {what}")
