"""Kinds of token ids, of chats, of prompts with responses, of texts with prefixes, and of pairs."""

import orjson
import pyarrow as pa

from tests.inputs.jsonl_kinds import lines
from tests.inputs.kinds import Doc, Kind, lost, refused
from tests.inputs.parquet_kinds import table

TEMPLATE = "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
IDS, CHATS, ANSWERS, PAGES, PAIRS, IMPLIED = (
    {"ids_column": "ids"},
    {"messages_column": "messages"},
    {"prompt_column": "prompt", "response_column": "response"},
    {"prefix_column": "title"},
    {"prompt_column": "prompt", "chosen_column": "chosen", "rejected_column": "rejected"},
    {"chosen_column": "chosen", "rejected_column": "rejected"},
)
TOOLED = {**CHATS, "tools_column": "tools"}
TOOL = [{"type": "function", "function": {"name": "add"}}]
ONE = [{"role": "user", "content": "one"}]
TWO = [*ONE, {"role": "assistant", "content": "two"}]


def _doc(*values: object) -> Doc:
    """A document of these messages, or of a prefix and a text."""
    return Doc(orjson.dumps(values).decode())


def _responses(prompt: object, chosen: object, rejected: object) -> list[Doc]:
    """Both documents of a pair."""
    return [_doc(which, prompt, chosen, rejected) for which in ("chosen", "rejected")]


def _line(**record: object) -> bytes:
    return orjson.dumps(record)


CHAT, BOTH = _doc(*ONE), _doc(*TWO)
WITH_TOOL = Doc(orjson.dumps({"messages": ONE, "tools": TOOL}).decode())
TOOLS = pa.array(
    [[{"role": "user", "content": "one", "name": None}, {"role": "assistant", "content": "two", "name": "x"}]]
)

CONTENT = [
    Kind("ids as lists of integers", table({"ids": [[5, 6], []]}), [_doc(5, 6), _doc()], options=IDS),
    Kind("ids as large lists of unsigned integers", table({"ids": pa.array([[5, 6]], pa.large_list(pa.uint16()))}), [_doc(5, 6)], options=IDS),
    Kind("ids in JSON lines", lines(_line(ids=[5, 6]), _line(ids=[5, -1]), _line(ids=[5, 6.0]), _line(ids="5 6"), _line(ids=[None])), [_doc(5, 6), lost("line 2, byte 14: column 'ids' is wrong: token 1 is -1, not an id"), lost("line 3, byte 29: column 'ids' is wrong: token 1 is 6.0, not an id"), lost("line 4, byte 45: column 'ids' is str, not a list of token ids"), lost("line 5, byte 59: column 'ids' is wrong: token 0 is null, not an id")], options=IDS),
    Kind("ids that the model does not have", table({"ids": [[5, 400], [5, 399]]}), [Doc("[5,400]", "token 1 is 400, but the model has ids from 0 to 399 alone"), _doc(5, 399)], "1 scored; quarantined: `token 1 is 400, but the model has ids from 0 to 399 alone`", options=IDS),
    Kind("ids as lists of floats", table({"ids": [[5.0]]}), refused("column 'ids' has type list<element: double>, not a list of integers", "--ids-column"), options=IDS),
    Kind("chats as lists of structs", table({"messages": [ONE, TWO]}), [CHAT, BOTH], options=CHATS),
    Kind("chats as large lists", table({"messages": pa.array([ONE, TWO], pa.large_list(pa.struct([("role", pa.string()), ("content", pa.string())])))}), [CHAT, BOTH], options=CHATS),
    Kind("chats as strings of JSON", table({"messages": [orjson.dumps(ONE).decode(), "[{"]}), [CHAT, lost("column 'messages' is not the JSON of a chat: …", "a.parquet#1")], options=CHATS),
    Kind("null in a message", table({"messages": TOOLS}), [_doc(ONE[0], {**TWO[1], "name": "x"})], "all 1 scored; a key that is null is left out", options=CHATS),
    Kind("null and empty chats", table({"messages": [None, []]}), [lost("column 'messages' is null"), lost("column 'messages' is an empty list")], options=CHATS),
    Kind("chats in JSON lines", lines(_line(messages=ONE), _line(messages=TWO)), [CHAT, BOTH], options=CHATS),
    Kind("a chat that is a list of strings", lines(_line(messages=["one"])), [lost("line 1, byte 0: column 'messages' is wrong: message 0 is str, not an object")], options=CHATS),
    Kind("a message without a role", lines(_line(messages=[{"from": "human", "value": "one"}])), [lost("line 1, byte 0: column 'messages' is wrong: message 0 has no role (its keys: from, value). Name them role and content")], options=CHATS),
    Kind("a content that is a number", lines(_line(messages=[{"role": "user", "content": 1}])), [lost("line 1, byte 0: column 'messages' is wrong: the content of message 0 is int, not a string")], options=CHATS),
    Kind("a chat that is an object", lines(_line(messages={"role": "user"})), [lost("line 1, byte 0: column 'messages' is dict, not a list of messages")], options=CHATS),
    Kind("tools of chats", lines(_line(messages=ONE, tools=TOOL), _line(messages=ONE, tools=orjson.dumps(TOOL).decode()), _line(messages=ONE, tools=None), _line(messages=ONE), _line(messages=ONE, tools=[])), [WITH_TOOL] * 2 + [CHAT] * 3, options=TOOLED),
    Kind("tools as structs", table({"messages": [ONE, ONE], "tools": [[{**TOOL[0], "x": None}], None]}), [WITH_TOOL, CHAT], options=TOOLED),
    Kind("tools as strings", table({"messages": [ONE], "tools": [[orjson.dumps(TOOL[0]).decode()]]}), [WITH_TOOL], options=TOOLED),
    Kind("tools that are none", lines(_line(messages=ONE, tools=5), _line(messages=ONE, tools=["a"]), _line(messages=ONE, tools=[1])), [lost("line 1, byte 0: column 'tools' is int, not a list of tools"), lost("line 2, byte 57: column 'tools' is not the JSON of tools: …"), lost("line 3, byte 118: column 'tools' is wrong: tool 0 is int, not an object")], options=TOOLED),
    Kind("a column of numbers for tools", table({"messages": [ONE], "tools": [1]}), refused("column 'tools' has type int64", "a list of JSON schemas", "--tools-column"), options=TOOLED),
    Kind("a column of numbers for chats", table({"messages": [1]}), refused("a.parquet: column 'messages' has type int64", "a list of messages (structs with role and content)", "--messages-column"), options=CHATS),
    Kind("no column of chats", table({"text": ["one"]}), refused("no column 'messages'", "--messages-column"), options=CHATS),
    Kind("prompts and responses", table({"prompt": ["one", ""], "response": ["two", "two"]}), [_doc("one", "two"), _doc("", "two")], options=ANSWERS),
    Kind("null prompts and responses", table({"prompt": [None, "one"], "response": ["two", None]}), [lost("column 'prompt' is null"), lost("column 'response' is null")], options=ANSWERS),
    Kind("prompts in JSON lines", lines(_line(prompt="one", response="two"), _line(response="two"), _line(prompt=1, response="two")), [_doc("one", "two"), lost("line 2, byte 34: column 'prompt' is not there"), lost("line 3, byte 53: column 'prompt' is int, not a string")], options=ANSWERS),
    Kind("no column of prompts", lines(_line(response="two")), refused("no field 'prompt'", "--prompt-column"), options=ANSWERS),
    Kind("prefixes, some of them null", table({"title": ["one", None], "text": ["two", "two"]}), [_doc("one", "two"), _doc("", "two")], options=PAGES),
    Kind("prefixes, some of them missing", lines(_line(title="one", text="two"), _line(text="two")), [_doc("one", "two"), _doc("", "two")], options=PAGES),
    Kind("pairs of strings", table({"prompt": ["one"], "chosen": ["a"], "rejected": ["b"]}), _responses("one", "a", "b"), "all scored, two documents for each pair", options=PAIRS),
    Kind("pairs without prompts", lines(_line(chosen="one a", rejected="one b")), _responses(None, "one a", "one b"), options=IMPLIED),
    Kind("pairs of chats", table({"chosen": [TWO], "rejected": [ONE]}), _responses(None, TWO, ONE), options=IMPLIED),
    Kind("a null response", table({"chosen": ["a"], "rejected": pa.array([None], pa.string())}), [lost("column 'rejected' is null")] * 2, options=IMPLIED),
    Kind("a string beside a chat", lines(_line(chosen=TWO, rejected="b")), [lost("line 1, byte 0: column 'rejected' is a string, but 'chosen' is a list of messages")] * 2, options=IMPLIED),
    Kind("no column of rejected responses", lines(_line(chosen="a")), refused("no field 'rejected'", "--rejected-column"), options=IMPLIED),
]  # fmt: skip
