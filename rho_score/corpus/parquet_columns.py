"""Where a Parquet shard has the text, the ids and the groups: columns, paths into structs, folders of its name."""

from typing import NamedTuple

import pyarrow as pa

from rho_score.corpus.columns import Columns, folder_values, splits
from rho_score.corpus.values import SCALARS, is_scalar, is_text
from rho_score.errors import InputError


class Source(NamedTuple):
    """Where the values of a named column are: at a path in the file, or one for all its rows in a folder's name."""

    name: str
    path: tuple[str, ...] | None
    value: str | None = None

    @property
    def dotted(self) -> str:
        """The path as pyarrow takes it."""
        return ".".join(self.path or ())


class Sources(NamedTuple):
    """Where the columns of one shard are. `id` has several where it is put together, none where it is SHARD#ROW."""

    text: Source
    id: tuple[Source, ...]
    group: Source | None

    @property
    def in_file(self) -> list[str]:
        """The columns to read, each once."""
        sources = (self.text, *self.id, self.group)
        return list(dict.fromkeys(source.dotted for source in sources if source is not None and source.path))


def find_path(fields: list[pa.Field], name: str) -> tuple[str, ...] | None:
    """The field of this name, or the path into structs that it tells; None where there is neither.

    Raises:
        InputError: two fields of one struct, or of the file, have a name on the path.
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
    """What can be named: columns, and fields of structs by their paths."""
    found = []
    for field in fields:
        inner = paths_of(list(field.type)) if pa.types.is_struct(field.type) else []
        found += [f"{field.name}.{path}" for path in inner] or [field.name]
    return found


def find_sources(schema: pa.Schema, columns: Columns, shard: str) -> Sources:
    """Where the columns are in a shard with this schema and name.

    Raises:
        InputError: one of them is nowhere, or has a type that it cannot have.
    """
    fields, folders = list(schema), folder_values(shard)

    def find(name: str, flag: str) -> Source:
        if path := find_path(fields, name):
            _check_type(fields, path, name, flag)
            return Source(name, path)
        if name in folders and flag != "--text-column":
            return Source(name, None, folders[name])
        there = ", ".join([*paths_of(fields), *(f"{key} (a folder)" for key in folders)])
        folder = "" if flag == "--text-column" or "." in name else f", and no folder {name}=… below the input"
        raise InputError(f"no column {name!r}{folder}; there are: {there}. Name the right one with {flag}.")

    ids: list[str] = []
    if columns.id is not None:
        whole = find_path(fields, columns.id) or columns.id in folders
        ids = [columns.id] if whole else columns.id_parts
    return Sources(
        text=find(columns.text, "--text-column"),
        id=tuple(find(name, "--id-column") for name in ids),
        group=None if columns.group is None else find(columns.group, "--group-column"),
    )


def _check_type(fields: list[pa.Field], path: tuple[str, ...], name: str, flag: str) -> None:
    for part in path:
        kind = next(field.type for field in fields if field.name == part)
        fields = list(kind) if pa.types.is_struct(kind) else []
    try:
        if (is_text if flag == "--text-column" else is_scalar)(kind):
            return
    except LookupError as error:
        raise InputError(f"column {name!r} has {error}. Name another column with {flag}.") from error
    wanted = "string" if flag == "--text-column" else SCALARS
    other = (
        f"one of its fields ({', '.join(f'{name}.{path}' for path in paths_of(fields))})"
        if fields
        else "another column"
    )
    raise InputError(f"column {name!r} has type {kind}, not {wanted}. Name {other} with {flag}.")
