"""Makes documents of records: JSON objects, or the members of a sample in a tar."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rho_score.config import CorpusConfig
from rho_score.corpus.columns import MISSING, Columns, Document, document, folder_values, joined_id, paths_in, value_at
from rho_score.corpus.content import columns_of, packed
from rho_score.corpus.values import Value, json_text
from rho_score.errors import InputError

_INTEGERS = 2.0**63  # smaller integers are exact; orjson may turn larger ones into floats


def check_columns(records: Sequence[Mapping[str, Any]], name: str, corpus: CorpusConfig) -> None:
    """Refuses a shard that has a named column neither in its first records nor in its folders.

    Raises:
        InputError: there are records, and none of them has a column.
    """
    folders = folder_values(name)

    def is_there(column: str, *, folder: bool = True) -> bool:
        return (folder and column in folders) or any(value_at(record, column) is not MISSING for record in records)

    columns = columns_of(corpus)
    ids = [] if columns.id is None else [columns.id] if is_there(columns.id) else columns.id_parts
    groups = [] if columns.group is None else [columns.group]
    wanted = [(column, "--id-column") for column in ids] + [(column, "--group-column") for column in groups]
    contents = columns.contents
    lost = [(column, flag) for column, flag in contents if not is_there(column, folder=False)]
    lost += [(column, flag) for column, flag in wanted if not is_there(column)]
    if records and lost:
        column, flag = lost[0]
        folder = "" if (column, flag) in contents or "." in column else f", and no folder {column}=… below the input"
        there = ", ".join([*paths_in(records), *(f"{key} (a folder)" for key in folders)])
        raise InputError(
            f"no field {column!r} in its first records{folder}; there are: {there}. Name the right one with {flag}, or "
            "give the input as a glob that leaves this file out."
        )


def record_document(
    record: Mapping[str, Any],
    default_id: str,
    place: str,
    columns: Columns,
    folders: Mapping[str, str | None],
    exact: Callable[[str, float], Any],
) -> Document:
    """The document of a record.

    folders: the values of `folder_values`, used for keys that the record does not have. exact: the
    value in a column that was read as this number, but may be another one, as large integers are.
    """

    def named(column: str) -> Value:
        found = value_at(record, column)
        if found is MISSING:
            return folders.get(column)
        if isinstance(found, float) and abs(found) >= _INTEGERS:
            found = exact(column, found)
        return json_text(found)

    doc_id: Value = default_id
    if columns.id is not None:
        parts = columns.id_parts
        if len(parts) == 1 or columns.id in folders or value_at(record, columns.id) is not MISSING:
            doc_id = named(columns.id)
        else:
            doc_id = joined_id([(part, named(part)) for part in parts])
    group = None if columns.group is None else named(columns.group)
    text = value_at(record, columns.text)
    if text is MISSING:
        known = doc_id if isinstance(doc_id, str) else default_id
        return Document(known, None, None, f"{place}: no field {columns.text!r}")
    context, rejected = (
        None if column is None else value_at(record, column) for column in (columns.context, columns.rejected)
    )
    content = packed(columns, text, context, rejected)
    return document(default_id, content, doc_id, group, columns, place=f"{place}: ")
