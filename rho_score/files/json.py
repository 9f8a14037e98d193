"""JSON objects: how they are typed, and how they are written."""

from collections.abc import Mapping
from typing import Any

import orjson

JsonObject = dict[str, Any]
"""An object as a JSON file holds it. What is read from a store was checked against a TypedDict of `stores.shapes`."""


def dump_json(content: Mapping[str, Any]) -> bytes:
    """Readable JSON; the same content gives the same bytes."""
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
