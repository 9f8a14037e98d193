"""Finds a Parquet shard's texts, ids and groups in its columns, structs and folder names."""

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from rho_score.corpus.columns import Columns, folder_values, splits
from rho_score.corpus.values import SCALARS, is_chat, is_ids, is_numbers, is_scalar, is_text, is_tools
from rho_score.errors import InputError


class Source(NamedTuple):
    """The place of the values of a named column: a path in the file, or a folder's name."""

    name: str
    path: tuple[str, ...] | None
    """The column and the fields of its structs; None if a folder's name holds the value."""
    value: str | None = None
    """The value in the folder's name, for all rows of the shard."""

    @property
    def dotted(self) -> str:
        """The path with dots, as pyarrow expects it."""
        return ".".join(self.path or ())


class Sources(NamedTuple):
    """The places of the text, what comes before it, the id and the group in one shard."""

    text: Source
    context: Source | None
    rejected: Source | None
    id: tuple[Source, ...]
    """Several if the id is joined from columns; none if ids are SHARD#ROW."""
    group: Source | None

    @property
    def contents(self) -> list[str]:
        """The dotted paths to what a document holds: its text, and what belongs to it."""
        return [source.dotted for source in (self.text, self.context, self.rejected) if source is not None]

    @property
    def in_file(self) -> list[str]:
        """The dotted paths to read from the file, each once."""
        sources = (self.text, self.context, self.rejected, *self.id, self.group)
        return list(dict.fromkeys(source.dotted for source in sources if source is not None and source.path))


def find_path(fields: list[pa.Field], name: str) -> tuple[str, ...] | None:
    """The path to a field, from its name or its dotted path into structs; None if there is none.

    Raises:
        InputError: two columns, or two fields of a struct, have the same name on the path.
    """
    names = [field.name for field in fields]
    if (n := names.count(name)) > 1:
        raise InputError(f"{n} columns are called {name!r}. Rename one of them.")
    if n:
        return (name,)
    for first, rest in splits(name):
        if first not in names:
            continue
        (path,) = find_path(fields, first) or ("",)
        kind = fields[names.index(first)].type
        if pa.types.is_struct(kind) and (inner := find_path(list(kind), rest)):
            return (path, *inner)
    return None


def paths_of(fields: list[pa.Field]) -> list[str]:
    """The names that a user can give: columns, and dotted paths to the fields of structs."""
    found = []
    for field in fields:
        inner = paths_of(list(field.type)) if pa.types.is_struct(field.type) else []
        found += [f"{field.name}.{path}" for path in inner] or [field.name]
    return found


def find_sources(schema: pa.Schema, columns: Columns, shard: str) -> Sources:
    """The places of the columns in a shard with this schema and name.

    Raises:
        InputError: a column is missing, or has a type that cannot be used.
    """
    fields, folders = list(schema), folder_values(shard)
    contents = [flag for _, flag in columns.contents]

    def find(name: str, flag: str) -> Source:
        if path := find_path(fields, name):
            _check_type(fields, path, name, flag, columns)
            return Source(name, path)
        if name in folders and flag not in contents:
            return Source(name, None, folders[name])
        there = ", ".join([*paths_of(fields), *(f"{key} (a folder)" for key in folders)])
        folder = "" if flag in contents or "." in name else f", and no folder {name}=… below the input"
        raise InputError(f"no column {name!r}{folder}; there are: {there}. Name the right one with {flag}.")

    ids: list[str] = []
    if columns.id is not None:
        whole = find_path(fields, columns.id) or columns.id in folders
        ids = [columns.id] if whole else columns.id_parts
    return Sources(
        text=find(columns.text, columns.text_flag),
        context=None if columns.context is None else find(columns.context, columns.context_flag),
        rejected=None if columns.rejected is None else find(columns.rejected, "--rejected-column"),
        id=tuple(find(name, "--id-column") for name in ids),
        group=None if columns.group is None else find(columns.group, "--group-column"),
    )


_FITS: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "ids": (is_ids, "a list of integers"),
    "values": (is_numbers, "a number or a list of numbers"),
    "messages": (is_chat, "a list of messages (structs with role and content)"),
    "pair": (is_chat, "string, or a list of messages (structs with role and content)"),
}
"""What the columns of a content must be, if not strings."""


def _check_type(fields: list[pa.Field], path: tuple[str, ...], name: str, flag: str, columns: Columns) -> None:
    for part in path:
        kind = next(field.type for field in fields if field.name == part)
        fields = list(kind) if pa.types.is_struct(kind) else []
    is_content = flag in [of for _, of in columns.contents]
    fits, wanted = _FITS.get(columns.kind, (is_text, "string")) if is_content else (is_scalar, SCALARS)
    if flag == "--tools-column":
        fits, wanted = is_tools, "a list of JSON schemas"
    try:
        if fits(kind):
            return
    except LookupError as error:
        raise InputError(f"column {name!r} has {error}. Name another column with {flag}.") from error
    other = (
        f"one of its fields ({', '.join(f'{name}.{path}' for path in paths_of(fields))})"
        if fields
        else "another column"
    )
    raise InputError(f"column {name!r} has type {kind}, not {wanted}. Name {other} with {flag}.")
