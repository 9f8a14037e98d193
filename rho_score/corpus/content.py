"""What a document holds besides a text: token ids, a chat, or a text behind one that does not count.

Such a document travels as JSON: the list of its ids, `[prefix, text]`, or the list of a chat's messages.
`rho_score.models.content` makes tokens of it.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from rho_score.config import CorpusConfig
from rho_score.corpus.columns import MISSING, Columns
from rho_score.corpus.values import Unusable
from rho_score.errors import InputError


def columns_of(corpus: CorpusConfig) -> Columns:
    """The columns that these options name.

    Raises:
        InputError: the options contradict each other.
    """
    given = {
        "--ids-column": corpus.ids_column,
        "--messages-column": corpus.messages_column,
        "--prompt-column": corpus.prompt_column,
        "--response-column": corpus.response_column,
        "--prefix-column": corpus.prefix_column,
    }
    flags = [flag for flag, value in given.items() if value is not None]
    ids, group = corpus.id_column, corpus.group_column
    if "--messages-column" not in flags and (corpus.roles != ("assistant",) or corpus.chat_date is not None):
        raise InputError("--roles and --chat-date are for chats. Name the column of the chats with --messages-column.")
    if not flags:
        return Columns(corpus.text_column, ids, group)
    if flags != ["--prefix-column"] and corpus.text_column != "text":
        raise InputError(f"--text-column {corpus.text_column} does not go with {flags[0]}. Leave one of them out.")
    if corpus.ids_column is not None and len(flags) == 1:
        return Columns(corpus.ids_column, ids, group, kind="ids")
    if corpus.messages_column is not None and len(flags) == 1:
        if not corpus.roles:
            raise InputError("--roles needs at least one role, such as assistant.")
        return Columns(corpus.messages_column, ids, group, kind="messages")
    if corpus.prefix_column is not None and len(flags) == 1:
        return Columns(corpus.text_column, ids, group, context=corpus.prefix_column, kind="prefixed")
    if corpus.prompt_column is None or corpus.response_column is None or len(flags) > 2:
        raise InputError(
            f"{' with '.join(flags)} is no kind of document. Give --ids-column, or --messages-column, or "
            "--prompt-column and --response-column, or --text-column and --prefix-column."
        )
    return Columns(corpus.response_column, ids, group, context=corpus.prompt_column, kind="response")


def packed(columns: Columns, text: Any, context: Any) -> Any:
    """What a document holds, as one string.

    text, context: the values of these columns; MISSING if there is no such column. A text that is
    wrong is returned as it is, for `columns.document` to tell.
    """
    if columns.kind == "text":
        return text
    if columns.kind == "ids":
        return _ids(text)
    if columns.kind == "messages":
        return _chat(text)
    if not isinstance(text, str):
        return text
    if columns.kind == "prefixed" and (context is MISSING or context is None):
        context = ""
    if context is MISSING:
        return Unusable("not there", columns.context)
    if isinstance(context, Unusable):
        return Unusable(context.reason, columns.context)
    if not isinstance(context, str):
        what = "null" if context is None else f"{type(context).__name__}, not a string"
        return Unusable(what, columns.context)
    return orjson.dumps([context, text]).decode()


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


def _chat(value: Any) -> Any:
    """The JSON of a chat's messages, without keys that are null."""
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
    try:
        return orjson.dumps(messages).decode()
    except TypeError as error:
        return Unusable(f"wrong: {error}")


def without_nulls(value: Any) -> Any:
    """A value without keys that are null, at every depth.

    In Parquet, every struct of a list has the keys of all others.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(of) for key, of in value.items() if of is not None}
    return [without_nulls(of) for of in value] if isinstance(value, list) else value
