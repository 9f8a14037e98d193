"""What a document holds besides a text: token ids, a chat, a text behind one that does not count, a pair.

Such a document travels as JSON: the list of its ids, the list of a chat's messages or
`{"messages": …, "tools": …}`, `[prefix, text]`, or `["chosen" or "rejected", prompt, chosen, rejected]`.
`rho_score.models.content` makes tokens of it.
Values that are imported travel as `[number or numbers, token ids or null]`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from rho_score.config import CorpusConfig, ValuesConfig
from rho_score.config.corpus import ContentKind
from rho_score.corpus.columns import MISSING, Columns, Document
from rho_score.corpus.values import Unusable
from rho_score.errors import InputError

_KINDS: dict[tuple[str, ...], ContentKind] = {
    (): "text",
    ("ids",): "ids",
    ("messages",): "messages",
    ("messages", "tools"): "messages",
    ("prefix",): "prefixed",
    ("prompt", "response"): "response",
    ("chosen", "rejected"): "pair",
    ("prompt", "chosen", "rejected"): "pair",
}
"""The kind of document that these columns make."""


def columns_of(corpus: CorpusConfig) -> Columns:
    """The columns that these options name.

    Raises:
        InputError: the options contradict each other.
    """
    if isinstance(corpus, ValuesConfig):
        return Columns(corpus.values_column, corpus.id_column, context=corpus.ids_column, kind="values")
    named = {name: getattr(corpus, f"{name}_column") for name in dict.fromkeys(name for of in _KINDS for name in of)}
    if corpus.token_files is not None:
        return _of_token_files(corpus, [name for name, value in named.items() if value is not None])
    if corpus.split_at != "eos":
        raise InputError("--split-at is for files of token ids. Give their type with --token-files.")
    given = tuple(name for name, value in named.items() if value is not None)
    kind = _KINDS.get(given)
    flags = [f"--{name}-column" for name in given]
    if kind is None:
        raise InputError(
            f"{' with '.join(flags)} is no kind of document. Give --ids-column, or --messages-column, or --prompt-column and "
            "--response-column, or --chosen-column and --rejected-column, or --text-column and --prefix-column."
        )
    if kind not in ("text", "prefixed") and corpus.text_column != "text":
        raise InputError(f"--text-column {corpus.text_column} does not go with {flags[0]}. Leave one of them out.")
    if kind != "messages" and corpus.roles != ("assistant",):
        raise InputError("--roles is for chats. Name the column of the chats with --messages-column.")
    if kind not in ("messages", "pair") and corpus.chat_date is not None:
        raise InputError("--chat-date is for chats. Name the column of the chats with --messages-column.")
    if not corpus.roles:
        raise InputError("--roles needs at least one role, such as assistant.")
    return Columns(
        next((named[name] for name in ("ids", "messages", "response", "chosen") if name in given), corpus.text_column),
        corpus.id_column,
        corpus.group_column,
        context=named["prompt"] or named["prefix"] or named["tools"],
        kind=kind,
        rejected=named["rejected"],
    )


def _of_token_files(corpus: CorpusConfig, given: list[str]) -> Columns:
    """The columns of files of token ids, which have none; without `split_at` if a tokenizer must tell it."""
    given = [name for name in (*given, "id") if getattr(corpus, f"{name}_column") is not None]
    if given or corpus.text_column != "text":
        flag = f"--{given[0] if given else 'text'}-column"
        raise InputError(f"{flag} does not go with --token-files, which have no columns. Leave one of them out.")
    if corpus.roles != ("assistant",) or corpus.chat_date is not None:
        raise InputError("--roles and --chat-date are for chats. Leave them out, or --token-files.")
    if corpus.split_at != "eos" and not corpus.split_at.isdecimal():
        raise InputError(f"--split-at must be eos or the id of a token, got {corpus.split_at!r}.")
    split_at = None if corpus.split_at == "eos" else int(corpus.split_at)
    return Columns("", None, corpus.group_column, kind="ids", split_at=split_at)


def packed(columns: Columns, text: Any, context: Any, rejected: Any) -> Any:
    """What a row holds, as one string.

    text, context, rejected: the values of these columns; MISSING if there is no such column. A text
    that is wrong is returned as it is, for `columns.document` to tell.
    """
    if columns.kind == "text":
        return text
    if columns.kind == "ids":
        return _ids(text)
    if columns.kind == "messages":
        return _json(_chat(text, context, columns.context))
    if columns.kind == "pair":
        return _pair(columns, text, context, rejected)
    if columns.kind == "values":
        return _values(columns, text, context)
    if columns.kind == "prefixed" and (context is MISSING or context is None):
        context = ""
    for column, value in ((columns.text, text), (columns.context, context)):
        if not isinstance(value, str):
            return _no_string(column, value)
    return orjson.dumps([context, text]).decode()


def documents_of(row: Document, columns: Columns) -> list[Document]:
    """The documents of a row: itself, or the two responses of a pair."""
    if columns.kind != "pair":
        return [row]
    return [
        row._replace(doc_id=f"{row.doc_id}/{which}", text=None if row.text is None else f'["{which}",{row.text[1:]}')
        for which in ("chosen", "rejected")
    ]


def _pair(columns: Columns, chosen: Any, prompt: Any, rejected: Any) -> Any:
    """The JSON of a pair: the prompt, null if there is no column for it, and both responses."""
    named = [(columns.text, chosen), (columns.rejected, rejected)]
    named += [] if columns.context is None else [(columns.context, prompt)]
    values: list[Any] = []
    for column, value in named:
        found = (
            value
            if isinstance(value, str)
            else _messages(value)
            if isinstance(value, list)
            else _no_string(column, value)
        )
        if isinstance(found, Unusable):
            return Unusable(found.reason, column)
        if values and isinstance(found, str) != isinstance(values[0], str):
            return Unusable(f"{_named(found)}, but {columns.text!r} is {_named(values[0])}", column)
        values.append(found)
    return _json([None if columns.context is None else values[2], *values[:2]])


def _named(value: Any) -> str:
    return "a string" if isinstance(value, str) else "a list of messages"


def _no_string(column: str | None, value: Any) -> Unusable:
    if isinstance(value, Unusable):
        return Unusable(value.reason, value.column or column)
    if value is MISSING:
        return Unusable("not there", column)
    return Unusable("null" if value is None else f"{type(value).__name__}, not a string", column)


def _json(value: Any) -> Any:
    if value is None or isinstance(value, Unusable):
        return value
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        return Unusable(f"wrong: {error}")


def _ids(value: Any) -> Any:
    """The JSON of a list of ids."""
    if value is None or isinstance(value, Unusable):
        return value
    if not isinstance(value, list):
        return Unusable(f"{type(value).__name__}, not a list of token ids")
    for i, one in enumerate(value):
        if type(one) is not int or not 0 <= one < 1 << 31:
            shown = repr(one) if isinstance(one, int | float) else type(one).__name__
            return Unusable(f"wrong: token {i} is {'null' if one is None else shown}, not an id")
    return orjson.dumps(value).decode()


def _chat(messages: Any, tools: Any, column: str | None) -> Any:
    """The messages of a chat, and its tools if it has any. column: that of the tools, for messages."""
    found = _messages(messages)
    if found is None or isinstance(found, Unusable) or tools is MISSING or tools is None:
        return found
    schemas = _tools(tools)
    if isinstance(schemas, Unusable):
        return Unusable(schemas.reason, column)
    return {"messages": found, "tools": schemas} if schemas else found


def _tools(value: Any) -> Any:
    """The JSON schemas of tools, without keys that are null."""
    if isinstance(value, Unusable):
        return value
    try:
        value = orjson.loads(value) if isinstance(value, str) else value
        schemas = [orjson.loads(one) if isinstance(one, str) else one for one in value or []]
    except orjson.JSONDecodeError as error:
        return Unusable(f"not the JSON of tools: {error}")
    except TypeError:
        return Unusable(f"{type(value).__name__}, not a list of tools")
    for i, schema in enumerate(schemas):
        if not isinstance(schema, Mapping):
            return Unusable(f"wrong: tool {i} is {type(schema).__name__}, not an object")
    return without_nulls(schemas)


def _values(columns: Columns, value: Any, ids: Any) -> Any:
    """The JSON of a document's values and of the ids of their tokens. A NaN becomes a null."""
    numbers = _numbers(value)
    if numbers is None or isinstance(numbers, Unusable):
        return numbers
    tokens = "null"
    if columns.context is not None:
        found = Unusable("null") if ids is None else Unusable("not there") if ids is MISSING else _ids(ids)
        if isinstance(found, Unusable):
            return Unusable(found.reason, columns.context)
        tokens = found
    return f"[{orjson.dumps(numbers).decode()},{tokens}]"


def _numbers(value: Any) -> Any:
    """A finite number, or a list of finite numbers and NaN; unusable otherwise. A null stays one."""
    if value is None or isinstance(value, Unusable):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str | list):
        return Unusable(f"{type(value).__name__}, not a number or a list of numbers")
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        return Unusable(f"not a number or a list of numbers ({error})")
    if numbers.ndim > 1:
        return Unusable("a list of lists, not of numbers")
    if numbers.ndim == 0:
        number = float(numbers)
        return number if np.isfinite(number) else Unusable("NaN" if np.isnan(number) else f"{number}")
    if np.isinf(numbers).any():
        at = int(np.flatnonzero(np.isinf(numbers))[0])
        return Unusable(f"wrong: value {at} is {numbers[at]}")
    return numbers.tolist()


def _messages(value: Any) -> Any:
    """The messages of a chat, without keys that are null."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            return Unusable(f"not the JSON of a chat: {error}")
    if value is None or isinstance(value, Unusable):
        return value
    if not isinstance(value, list) or not value:
        return Unusable("an empty list" if value == [] else f"{type(value).__name__}, not a list of messages")
    messages = []
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            return Unusable(f"wrong: message {i} is {type(message).__name__}, not an object")
        if not isinstance(message.get("role"), str):
            keys = ", ".join(map(str, message)) or "none"
            return Unusable(f"wrong: message {i} has no role (its keys: {keys}). Name them role and content")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            return Unusable(f"wrong: the content of message {i} is {type(content).__name__}, not a string")
        messages.append({key: without_nulls(of) for key, of in message.items() if of is not None})
    return messages


def without_nulls(value: Any) -> Any:
    """A value without keys that are null, at every depth.

    In Parquet, every struct of a list has the keys of all others.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(of) for key, of in value.items() if of is not None}
    return [without_nulls(of) for of in value] if isinstance(value, list) else value
