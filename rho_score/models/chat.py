"""Writes out chats by a tokenizer's chat template, and finds the turns in what is written."""

import datetime
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from transformers import PreTrainedTokenizerBase

from rho_score.errors import InputError

Message = dict[str, Any]
Render = Callable[..., str]

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_PROBE = "\ue0f7\ue0f8"  # of the private use area, so that no template and hardly a text has it


def template_of(tokenizer: PreTrainedTokenizerBase, model: str) -> str:
    """The chat template of a tokenizer.

    Raises:
        InputError: it has none, or several of which none is the default.
    """
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise InputError(
            f"the tokenizer of {model} has no chat template. Name a model that has one, or write the template to "
            "chat_template.jinja in the model's directory."
        ) from error


def marks_turns(template: str) -> bool:
    """True if a template marks what the assistant generates with `{% generation %}`."""
    return _GENERATION.search(template) is not None


def dated(template: str, date: str) -> str:
    """A template in which the calls that ask for today's date are answered with `date`, YYYY-MM-DD.

    Without that, the same chat has other tokens on another day.

    Raises:
        InputError: `date` is not a date.
    """
    try:
        day = datetime.date.fromisoformat(date)
    except ValueError as error:
        raise InputError(f"--chat-date takes a day as YYYY-MM-DD, got {date!r}.") from error
    return _TODAY.sub(lambda call: repr(day.strftime(call[2])), template)


def spans(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    roles: Sequence[str],
    template: str,
    tools: Sequence[Message] | None = None,
) -> tuple[str, list[tuple[int, int]]]:
    """A chat as the template writes it, and where in it the turns of these roles are, (start, stop).

    An assistant's turn is what the model would generate: it begins behind what the template writes
    to ask for it, and ends with the token that ends the turn. Of other roles, the content counts,
    and the token that ends the turn. tools: the JSON schemas of the chat's tools.

    Raises:
        ValueError: the template does not write one of the turns where it can be found.
        Exception: what the template raises if it refuses the chat.
    """

    def render(chat: Sequence[Message], *, ask: bool = False) -> str:
        return str(
            tokenizer.apply_chat_template(
                list(chat),
                tools=None if tools is None else list(tools),
                chat_template=template,
                tokenize=False,
                add_generation_prompt=ask,
            )
        )

    text = render(messages)
    ends = _special_tokens(tokenizer)
    found: list[tuple[int, int]] = []
    done = 0
    for i, message in enumerate(messages):
        content = _content(render, messages, i, text, done)
        if message["role"] not in roles:
            done = max(done, content[1] if content else done)
            continue
        start, stop = _turn(render, messages, i, text, content, done, ends)
        done = _ended(text, start, stop, ends)
        found.append((start, done))
    return text, found


def _content(render: Render, messages: Sequence[Message], i: int, text: str, done: int) -> tuple[int, int] | None:
    """Where the content of a message is: where the text changes if the content is another one.

    None if there is none, if it is no string, or if the template writes no other one in its place.

    Raises:
        ValueError: the template does not write the content.
    """
    content = messages[i].get("content")
    if not content or not isinstance(content, str):
        return None
    try:
        other = render([*messages[:i], {**messages[i], "content": _PROBE}, *messages[i + 1 :]])
    except Exception:  # a template may ask for a content of its own kind
        return None
    if _PROBE not in other:
        if content.strip() and content.strip() not in text:
            raise ValueError(f"it does not write the content of message {i}")
        return None
    start = shared(text, other)
    rest = shared(text[start:][::-1], other[start:][::-1])
    return (start, len(text) - rest) if start >= done else None


def _turn(
    render: Render,
    messages: Sequence[Message],
    i: int,
    text: str,
    content: tuple[int, int] | None,
    done: int,
    ends: Sequence[str],
) -> tuple[int, int]:
    """Where a turn begins and stops; the token that ends it may come behind.

    Raises:
        ValueError: the template does not write it.
    """
    start, stop = content or (None, None)
    if messages[i]["role"] == "assistant":
        with suppress(Exception):  # a template may refuse a chat that stops here
            asked = shared(render(messages[:i], ask=True), text)
            if done <= asked and (start is None or asked <= start):
                start = asked
        with suppress(Exception):
            stop = _calls_end(render, messages, i, text, ends) or stop
        with suppress(Exception):
            upto = render(messages[: i + 1]).rstrip()
            if text.startswith(upto) and len(upto) >= (stop or start or 0):
                stop = len(upto)
    if start is None or stop is None:
        raise ValueError(f"it does not write message {i} where it can be found")
    return start, stop


def _calls_end(render: Render, messages: Sequence[Message], i: int, text: str, ends: Sequence[str]) -> int | None:
    """Where the tool calls of a message stop: in front of the special token behind the last one's arguments.

    None if it has no calls, or if the template does not write them.
    """
    if not (calls := messages[i].get("tool_calls")):
        return None
    last = calls[-1]
    arguments = {"arguments": {_PROBE: _PROBE}}
    changed = {**last, "function": {**last["function"], **arguments}} if "function" in last else {**last, **arguments}
    other = render([*messages[:i], {**messages[i], "tool_calls": [*calls[:-1], changed]}, *messages[i + 1 :]])
    if _PROBE not in other:
        return None
    stop = len(text) - shared(text[::-1], other[::-1])
    return min((at for token in ends if (at := text.find(token, stop)) >= 0), default=None)


def shared(left: Sequence[Any], right: Sequence[Any]) -> int:
    """The number of characters, or of other items, that both begin with."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    return low


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The tokens that may end a turn, the longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted({*added, *tokenizer.all_special_tokens} - {""}, key=len, reverse=True)


def _ended(text: str, start: int, stop: int, ends: Sequence[str]) -> int:
    """Where a turn stops, with the token that ends it and without white space behind that token."""
    shorter = start + len(text[start:stop].rstrip())
    if any(text.endswith(token, start, shorter) for token in ends):
        return shorter
    return next((stop + len(token) for token in ends if text.startswith(token, stop)), stop)
