"""The type of JSON objects, and the form in which they are written."""

from collections.abc import Mapping
from typing import Any

import orjson

JsonObject = dict[str, Any]
"""An object of a JSON file. Objects of a store are checked against the types in `stores.shapes`."""


def dump_json(content: Mapping[str, Any]) -> bytes:
    """`content` as indented JSON. The same content gives the same bytes."""
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
