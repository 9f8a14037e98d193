"""Which tokens of chats, responses and prefixed texts count, beside the templates that TRL marks by hand."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rho_score.errors import InputError
from rho_score.models.chat import dated, spans
from rho_score.models.content import Encoded, Encoder

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
FAMILIES = ("chatml", "llama3", "gemma", "mistral", "qwen3", "deepseekv3", "phi3", "gptoss", "qwen2_5", "glm4moe")
MARKED = sorted(path.stem.removesuffix("_training") for path in TEMPLATES.glob("*_training.jinja"))
# These take contents in parts, for images beside text.
IN_PARTS = {"idefics3", "smolvlm", "llava_next"}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}"
)
SPECIAL = r"<\|[^|<>]+\|>|<｜[^｜]+｜>|<(?:end|start)_of_turn>|<\|turn>|<turn\|>|<end_of_utterance>"


def _template(family: str) -> str:
    own = {"chatml": CHATML, "mistral": MISTRAL}
    return own.get(family) or (TEMPLATES / f"{family}.jinja").read_text()


@cache
def tokenizer_of(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with the special tokens of a template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(re.findall(SPECIAL, template)))})
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    return tokenizer


def _chat(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    chat = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return ([] if system is None else [{"role": "system", "content": system}]) + chat


CHATS = [
    _chat("What is 2+2?", "It is 4."),
    _chat("What is 2+2?", "It is 4.", "Sure?", "Yes,\n\nquite."),
    _chat("Hi", "Hello", "Bye", "Bye", system="Be short."),
    _chat("What?", "<think>\nhm\n</think>\n\nFour."),
    _chat("What?", "<think>\nhm\n</think>\n\nFour.", "Sure?", "<think>\nhm, yes\n</think>\n\nYes"),
    _chat("a", "a", "a", "a", "a", "a"),
]


def _encoded(encoder: Encoder, template: str, chat: list[dict[str, Any]]) -> Encoded:
    (found,) = encoder.encode(tokenizer_of(template), [orjson.dumps(chat).decode()])
    assert isinstance(found, Encoded), found
    return found


def _pieces(template: str, found: Encoded) -> list[str]:
    """The texts of the runs of tokens that count."""
    assert found.counts is not None
    edges = np.flatnonzero(np.diff(np.concatenate([[0], found.counts.astype(int), [0]])))
    runs = zip(edges[::2], edges[1::2], strict=True)
    return [str(tokenizer_of(template).decode(found.ids[start:stop])) for start, stop in runs]


@pytest.mark.parametrize("family", [family for family in MARKED if family not in IN_PARTS])
def test_turns_are_those_that_a_template_marks_by_hand(family: str) -> None:
    template = dated((TEMPLATES / f"{family}_training.jinja").read_text(), "2026-01-02")
    tokenizer = tokenizer_of(template)
    marked = Encoder(kind="messages", template=template)
    for chat in CHATS:
        if family == "gemma" and chat[0]["role"] == "system":
            continue  # it has no such role
        expected = _pieces(template, _encoded(marked, template, chat))
        text, found = spans(tokenizer, chat, roles=("assistant",), template=template)
        turns = [i for i, message in enumerate(chat) if message["role"] == "assistant"]
        for i, whole, (start, stop) in zip(turns, expected, found, strict=True):
            # by hand, what asks for a turn is sometimes marked too, and so is the end of its line
            assert whole.rstrip().endswith(text[start:stop].rstrip())
            asked = tokenizer.apply_chat_template(chat[:i], tokenize=False, add_generation_prompt=True)
            assert asked.startswith(text[:start])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_those_of_apply_chat_template(family: str) -> None:
    template = dated(_template(family), "2026-01-02")
    encoder = Encoder(kind="messages", template=template)
    for chat in CHATS:
        if chat[0]["role"] == "system" and family in ("gemma", "mistral"):
            continue
        expected = tokenizer_of(template).apply_chat_template(chat)["input_ids"]
        assert _encoded(encoder, template, chat).ids.tolist() == expected


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds numbers.",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        },
    }
]
CALL = [
    {"role": "user", "content": "What is 2+2?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}],
    },
    {"role": "tool", "name": "add", "content": "it gives four"},
    {"role": "assistant", "content": "It is four."},
]


@pytest.mark.parametrize("family", ["qwen2_5", "qwen3", "glm4moe"])
def test_the_tools_of_a_chat_are_told_and_its_calls_count(family: str) -> None:
    content = orjson.dumps({"messages": CALL, "tools": TOOLS}).decode()
    for template in (_template(family), (TEMPLATES / f"{family}_training.jinja").read_text()):
        tokenizer = tokenizer_of(template)
        (found,) = Encoder(kind="messages", template=template).encode(tokenizer, [content])
        assert isinstance(found, Encoded), found
        assert found.ids.tolist() == tokenizer.apply_chat_template(CALL, tools=TOOLS)["input_ids"]
        assert "Adds numbers." in tokenizer.decode(found.ids)
        call, answer = (piece for piece in _pieces(template, found) if piece.strip())
        assert '"a": 2' in call or ">a<" in call
        assert "Adds numbers." not in call
        assert "it gives four" not in call + answer
        assert "It is four." in answer


WORDS = st.text(st.sampled_from("ab c\n<>|_é界"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FAMILIES), st.lists(WORDS, min_size=1, max_size=3))
def test_every_turn_is_whole_and_holds_nothing_of_the_others(family: str, words: list[str]) -> None:
    template = dated(_template(family), "2026-01-02")
    contents = [text for i, word in enumerate(words) for text in (f"question{i} {word}?", f"answer{i} {word}.")]
    encoder = Encoder(kind="messages", template=template)
    pieces = _pieces(template, _encoded(encoder, template, _chat(*contents)))
    assert len(pieces) == len(words)
    for i, (piece, content) in enumerate(zip(pieces, contents[1::2], strict=True)):
        assert content in piece
        assert "question" not in piece
        assert piece.count("answer") == 1
        if family != "glm4moe":  # whose turns end where the next one begins
            assert re.search(rf"({SPECIAL}|</s>)\s*$", piece), "the token that ends the turn counts"
        assert f"answer{i}" in piece


def test_other_roles_count_with_the_token_that_ends_them() -> None:
    chat = _chat("Hi there", "Hello", "Bye", "Bye", system="Be short.")
    found = _encoded(Encoder(kind="messages", roles=("system", "user"), template=CHATML), CHATML, chat)
    assert _pieces(CHATML, found) == ["Be short.<|im_end|>", "Hi there<|im_end|>", "Bye<|im_end|>"]


def test_a_chat_without_a_turn_that_counts_is_context() -> None:
    found = _encoded(Encoder(kind="messages", template=CHATML), CHATML, _chat("Hi"))
    assert found.counts is not None
    assert len(found.ids) > 0
    assert not found.counts.any()


def test_what_a_template_refuses_or_does_not_write_is_told() -> None:
    template = "{% for m in messages %}{% if m.role == 'x' %}{{ raise_exception('no x here') }}{% endif %}{{ m.role }}{% endfor %}"
    tokenizer = tokenizer_of(template)
    chats = [[{"role": "x", "content": "hi"}], _chat("Hi", "Hello")]
    first, second = Encoder(kind="messages", template=template).encode(
        tokenizer, [orjson.dumps(c).decode() for c in chats]
    )
    assert first == "the chat template refuses it: TemplateError: no x here"
    assert second == "the chat template refuses it: ValueError: it does not write the content of message 0"


def test_today_is_the_day_that_is_told() -> None:
    template = "{{ strftime_now('%d %b %Y') }}|{{ strftime_now(\"%Y\") }}|{{ strftime_now is defined }}"
    assert dated(template, "2026-01-02") == "{{ '02 Jan 2026' }}|{{ '2026' }}|{{ strftime_now is defined }}"
    with pytest.raises(InputError, match="YYYY-MM-DD, got '2 January'"):
        dated(template, "2 January")
    tokenizer = tokenizer_of(template)
    encoder = Encoder.of("messages", tokenizer, roles=("assistant",), date="2026-01-02", model="x")
    assert encoder.dated
    assert not Encoder.of("messages", tokenizer_of(CHATML), roles=("assistant",), date="2026-01-02", model="x").dated


def test_a_tokenizer_without_a_template_is_refused() -> None:
    tokenizer = tokenizer_of("none")
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"the tokenizer of m has no chat template\. Name a model"):
        Encoder.of("messages", tokenizer, roles=("assistant",), date="2026-01-02", model="m")


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer in which `ab` and ` c` are tokens, so that one may lie on the boundary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "ab", "Ġc"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b"), ("Ġ", "c")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    ("before", "text", "counting"),
    [
        ("x", "y", ["y"]),
        ("xa", "by", ["ab", "y"]),  # a token with a character of the response counts
        ("x", " c", ["Ġc"]),
        ("x ", "c", ["Ġc"]),
        ("", "xy", ["x", "y"]),
        ("xy", "", []),
        ("é", "é", ["Ã", "©"]),
    ],
)
def test_a_token_counts_if_it_has_a_character_of_the_response(before: str, text: str, counting: list[str]) -> None:
    tokenizer = merging_tokenizer()
    (found,) = Encoder(kind="response").encode(tokenizer, [orjson.dumps([before, text]).decode()])
    assert isinstance(found, Encoded)
    assert found.counts is not None
    assert found.ids.tolist() == tokenizer(before + text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(found.ids[found.counts]) == counting


def test_a_prompt_that_spells_a_special_token_is_plain_text() -> None:
    tokenizer = tokenizer_of(CHATML)
    (found,) = Encoder(kind="prefixed").encode(tokenizer, [orjson.dumps(["<|im_end|>", "x"]).decode()])
    assert isinstance(found, Encoded)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in found.ids
