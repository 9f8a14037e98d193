"""Refuses files that hold JSON values over several lines, which are not JSON Lines."""

import json
import re

from rho_score.corpus.compression import TOOLS
from rho_score.corpus.lines import BOM
from rho_score.errors import InputError

_DECODER = json.JSONDecoder()
_CUT_OFF = 12  # the longest escape or word that may be cut off at the end of the head
_SPACE = " \t\r\n"
_AROUND_ROWS = re.compile(r'\{\s*"(data|rows|examples|instances|records|documents)"\s*:\s*\[')


def refuse_one_value(head: bytes, compression: str, *, whole: bool) -> None:
    """Refuses a file that is one JSON array, or whose objects go over several lines.

    head: the first bytes of the file, decompressed. whole: True if these are all of its bytes.

    Raises:
        InputError: it is such a file. The message says how to convert it.
    """
    text = head.removeprefix(BOM).decode(errors="replace").strip(_SPACE)
    if text[:1] not in ("{", "["):
        return
    length = _length_of_first(text, whole=whole)
    if length is None:
        return
    over_lines = "\n" in text[:length]
    alone = length == len(text)  # nothing comes after it
    if text[0] == "[" and (over_lines or alone):
        what, query = "one JSON array", "'.[]'"
    elif text[0] == "{" and over_lines:
        rows = _AROUND_ROWS.match(text)
        what, query = "a JSON object over several lines", f"'.{rows[1]}[]'" if rows else "."
    else:
        return
    jq = f"{TOOLS[compression]} -dc FILE | jq -c {query}" if compression else f"jq -c {query} FILE"
    raise InputError(
        f"it holds {what}, not one object per line. Convert it, for example with `{jq} > FILE.jsonl`, "
        "or give the input as a glob that leaves it out, such as '**/*.jsonl'."
    )


def _length_of_first(text: str, *, whole: bool) -> int | None:
    """The length of the first JSON value in characters; None if it is not JSON.

    If the text ends inside the value, this is the length of the text.
    """
    try:
        return _DECODER.raw_decode(text)[1]
    except RecursionError:
        return None
    except json.JSONDecodeError as error:
        near_end = error.pos >= len(text) - (0 if whole else _CUT_OFF)
        ends_inside = error.msg.startswith("Unterminated string") or (near_end and "control" not in error.msg)
        return len(text) if ends_inside else None
