"""Files that look like JSON lines and hold one JSON value: told by their heads, and refused with what to do."""

import json

from rho_score.corpus.compression import TOOLS
from rho_score.corpus.lines import BOM
from rho_score.errors import InputError

_DECODER = json.JSONDecoder()
_CUT_OFF = 12  # characters of an escape or a word that the end of the head may have cut
_SPACE = " \t\r\n"


def refuse_one_value(head: bytes, compression: str, *, whole: bool) -> None:
    """Refuse a file that is one JSON array, or whose objects go over several lines. `whole`: `head` is all of it.

    Raises:
        InputError: it is one of these; the message tells how to make lines of it.
    """
    text = head.removeprefix(BOM).decode(errors="replace").strip(_SPACE)
    if text[:1] not in ("{", "["):
        return
    length = _length_of_first(text, whole=whole)
    if length is None:
        return
    over_lines = "\n" in text[:length]
    alone = length == len(text)  # nothing stands behind it
    if text[0] == "[" and (over_lines or alone):
        what, query = "one JSON array", "'.[]'"
    elif text[0] == "{" and over_lines:
        what, query = "a JSON object over several lines", "."
    else:
        return
    jq = f"{TOOLS[compression]} -dc FILE | jq -c {query}" if compression else f"jq -c {query} FILE"
    raise InputError(
        f"it holds {what}, not one object a line. Write it again with one a line, as with `{jq} > FILE.jsonl`, "
        "or name the shards with a glob (such as '**/*.jsonl') to leave it out."
    )


def _length_of_first(text: str, *, whole: bool) -> int | None:
    """How many characters the first JSON value has: all of them where the text ends inside it. None: it is not JSON."""
    try:
        return _DECODER.raw_decode(text)[1]
    except RecursionError:
        return None
    except json.JSONDecodeError as error:
        near_end = error.pos >= len(text) - (0 if whole else _CUT_OFF)
        ends_inside = error.msg.startswith("Unterminated string") or (near_end and "control" not in error.msg)
        return len(text) if ends_inside else None
