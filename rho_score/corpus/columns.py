"""Where a document's text, id and group are: columns, paths into structs and objects, and folders named KEY=VALUE."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from rho_score.corpus.lines import LONGEST_LINE
from rho_score.corpus.values import Unusable, Value
from rho_score.errors import InputError
from rho_score.safe_text import visible

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
MISSING = object()
"""In place of a value: there is no such column or key."""


class Columns(NamedTuple):
    """Names of the input's columns, as they are given: `text`, `meta.source`; of ids also `lang,id`."""

    text: str
    id: str | None = None
    group: str | None = None

    @property
    def id_parts(self) -> list[str]:
        """The columns whose values make the id, where there is no column with the whole name."""
        return [part.strip() for part in (self.id or "").split(",")]


class Document(NamedTuple):
    """A row on its way to the scorer."""

    doc_id: str
    group: str | None
    text: str | None
    error: str | None


def splits(name: str) -> Iterator[tuple[str, str]]:
    """Ways to take a dotted name for a path: (first, rest), the longest first one before shorter ones."""
    at = name.rfind(".")
    while at > 0:
        if name[at + 1 :]:
            yield name[:at], name[at + 1 :]
        at = name.rfind(".", 0, at)


def value_at(record: Mapping[str, Any], name: str) -> Any:
    """The value of a key, or at a path into objects; None below a null, MISSING where there is none."""
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
    """What can be named in these records, sorted."""
    found: set[str] = set()
    for record in records:
        for key, value in record.items():
            inner = paths_in([value], depth - 1) if isinstance(value, dict) and depth else []
            found.update(f"{key}.{path}" for path in inner)
            if not inner:
                found.add(key)
    return sorted(found)


def folder_values(shard: str) -> dict[str, str | None]:
    """The values that the folders of a shard's name tell, as Hive names them: KEY=VALUE, percent-encoded.

    Raises:
        InputError: one is no text.
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
    """The id that these columns' values make; unusable where one of them is, or is null."""
    for column, value in parts:
        if value is None:
            return Unusable("null", column)
        if isinstance(value, Unusable):
            return Unusable(value.reason, column)
    return "/".join(str(value) for _, value in parts)


def document(default_id: str, text: Any, doc_id: Value, group: Value, columns: Columns, *, place: str = "") -> Document:
    """A document from the values of a row; what is wrong with them becomes its error, which begins with `place`."""
    if not isinstance(doc_id, str):
        wrong = doc_id or Unusable("null")
        return Document(default_id, None, None, f"{place}column {wrong.column or columns.id!r} is {wrong.reason}")
    if isinstance(group, Unusable):
        return Document(doc_id, None, None, f"{place}column {columns.group!r} is {group.reason}")
    if isinstance(text, str) and len(text) <= LONGEST_LINE:
        return Document(doc_id, group, text, None)
    if text is None:
        what = "null"
    elif isinstance(text, str):
        what = f"longer than {LONGEST_LINE:,} characters. Split the document"
    elif isinstance(text, Unusable):
        what = text.reason
    else:
        what = f"{type(text).__name__}, not a string"
    return Document(doc_id, group, None, f"{place}column {columns.text!r} is {what}")
