"""Answers written by hand: what is read from them, and what is refused."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from rho_score.errors import InputError
from rho_score.servers.openai import OpenAI
from rho_score.servers.protocol import UnsendableError, WrongAnswerError
from rho_score.servers.sglang import Sglang
from rho_score.servers.vllm import Vllm

IDS = [0, 7, 9]


def _vllm(logprobs: list[Any], ids: list[int] | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "prompt_token_ids": IDS if ids is None else ids, "prompt_logprobs": logprobs}]}


def _entry(token: int, logprob: Any, rank: Any = 1) -> dict[str, Any]:
    return {str(token): {"logprob": logprob, "rank": rank, "decoded_token": "?"}}


def test_vllm_is_sent_ids_and_asked_for_the_logprobs_of_the_prompt() -> None:
    assert Vllm().body("m", np.array(IDS).tolist()) == {
        "model": "m", "prompt": IDS, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "return_token_ids": True,
        "add_special_tokens": False,
    }  # fmt: skip


def test_vllm_counts_ranks_from_one() -> None:
    # the most likely token may stand beside the true one
    both = {**_entry(9, -3.5, 4), **_entry(1, -0.1, 1)}
    found = Vllm().read(_vllm([None, _entry(7, -0.25), both]), IDS)
    np.testing.assert_array_equal(found.logprobs, [np.nan, -0.25, -3.5])
    assert found.ranks is not None
    np.testing.assert_array_equal(found.ranks, [np.nan, 0, 3])


def test_the_lowest_value_of_vllm_is_minus_infinity() -> None:
    found = Vllm().read(_vllm([None, _entry(7, -9999.0), _entry(9, float("nan"))]), IDS)
    assert found.logprobs[1] == -math.inf
    assert math.isnan(found.logprobs[2])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "no field choices"),
        ({"choices": []}, "one of choices, but has 0"),
        ({"choices": [{}, {}]}, "one of choices, but has 2"),
        (_vllm([None, _entry(7, -1.0), _entry(9, -1.0)], [0, 7, 8]), "token 2 was 9, but the answer is about 8"),
        (_vllm([None, _entry(7, -1.0), _entry(9, -1.0)], [1, 7, 9]), "token 0 was 0, but the answer is about 1"),
        (_vllm([None, _entry(7, -1.0)], [0, 7]), "3 token ids were sent, but the answer is about 2"),
        (_vllm([None, _entry(7, -1.0)]), "3 tokens were sent, but 2 log-probabilities came back"),
        (_vllm([None, _entry(7, -1.0), _entry(8, -1.0)]), "no field 9"),
        (_vllm([None, _entry(7, -1.0), None]), "token 2 has no log-probability, but None"),
        (_vllm([None, _entry(7, None), _entry(9, -1.0)]), "token 1 has no log-probability, but None"),
        (_vllm([None, _entry(7, "-1"), _entry(9, -1.0)]), "token 1 has no log-probability, but '-1'"),
        (_vllm([None, _entry(7, 0.5), _entry(9, -1.0)]), "more than 0"),
        (_vllm([None, _entry(7, -1.0, 0), _entry(9, -1.0)]), "the rank 0"),
        (_vllm([_entry(0, -1.0), _entry(7, -1.0), _entry(9, -1.0)]), "the first token has a log-probability"),
    ],
)
def test_vllm_answers_that_are_not_to_the_request(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongAnswerError, match=message):
        Vllm().read(answer, IDS)


def _sglang(*entries: list[Any]) -> dict[str, Any]:
    return {"text": "", "meta_info": {"input_token_logprobs": list(entries)}}


def test_sglang() -> None:
    assert Sglang().body("m", IDS) == {
        "input_ids": IDS, "sampling_params": {"max_new_tokens": 0, "temperature": 0}, "return_logprob": True, "logprob_start_len": 0,
    }  # fmt: skip
    found = Sglang().read(_sglang([None, 0, None], [-0.5, 7, "a"], [-math.inf, 9, None]), IDS)
    np.testing.assert_array_equal(found.logprobs, [np.nan, -0.5, -math.inf])
    assert found.ranks is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"meta_info": {}}, "no field input_token_logprobs"),
        (_sglang([None, 0], [-1.0, 7], [-1.0, 8]), "token 2 was 9, but the answer is about 8"),
        (_sglang([-1.0, 7], [-1.0, 9]), "3 token ids were sent, but the answer is about 2"),
        (_sglang([None, 0], [None, 7], [-1.0, 9]), "token 1 has no log-probability"),
        (_sglang([-1.0, 0], [-1.0, 7], [-1.0, 9]), "the first token has a log-probability"),
        ({"meta_info": {"input_token_logprobs": [None, 3]}}, "no list of log-probabilities"),
    ],
)
def test_sglang_answers_that_are_not_to_the_request(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongAnswerError, match=message):
        Sglang().read(answer, IDS)


@pytest.fixture(scope="module")
def tokens(make_model: Callable[[int], Path]) -> Any:
    return AutoTokenizer.from_pretrained(make_model(1))


def _openai(tokens: Any, **changes: Any) -> OpenAI:
    return OpenAI(tokens, **({"prefix_id": 0, "prefix_by_server": False, "generates": 0} | changes))


def _ids(tokens: Any, text: str) -> list[int]:
    return [0, *tokens(text, add_special_tokens=False)["input_ids"]]


def _echo(texts: list[str], values: list[Any]) -> dict[str, Any]:
    return {"choices": [{"text": "", "logprobs": {"tokens": texts, "token_logprobs": values}}]}


def test_openai_is_sent_the_text(tokens: Any) -> None:
    ids = _ids(tokens, " the model")
    assert _openai(tokens).body("m", ids) == {
        "model": "m", "prompt": "<s> the model", "max_tokens": 0, "temperature": 0, "echo": True, "logprobs": 1,
    }  # fmt: skip
    assert _openai(tokens, prefix_by_server=True).body("m", ids)["prompt"] == " the model"
    assert _openai(tokens, prefix_id=None).body("m", ids[1:])["prompt"] == " the model"


def test_openai_values_go_to_our_tokens(tokens: Any) -> None:
    ids = _ids(tokens, " the model")
    assert len(ids) == 3
    found = _openai(tokens).read(_echo(["<s>", " the", " model"], [None, -1.5, -2.5]), ids)
    np.testing.assert_array_equal(found.logprobs, [np.nan, -1.5, -2.5])
    generating = _openai(tokens, generates=1)
    found = generating.read(_echo(["<s>", " the", "Ġmodel", "!"], [None, -1.5, -2.5, -9.0]), ids)
    np.testing.assert_array_equal(found.logprobs, [np.nan, -1.5, -2.5])


@pytest.mark.parametrize(
    ("texts", "values", "message"),
    [
        (["<s>", " the mo", "del"], [None, -1.0, -1.0], "token 1 is ' the', but the server's is ' the mo'"),
        ([" the", " model"], [None, -1.0], "3 tokens were sent, but 2 log-probabilities"),
        (["<s>", "<s>", " the", " model"], [None, -1.0, -1.0, -1.0], "the server made 4"),
        (["<s>", " the", " model"], [None, None, -1.0], "token 1 has no log-probability"),
        (["<s>", " the"], [None, -1.0, -1.0], "not as many tokens"),
        (["<s>", " the", " model"], [-3.0, -1.0, -1.0], "the first token has a log-probability"),
    ],
)
def test_openai_answers_that_are_not_to_the_request(tokens: Any, texts: list[str], values: Any, message: str) -> None:
    with pytest.raises(WrongAnswerError, match=message):
        _openai(tokens).read(_echo(texts, values), _ids(tokens, " the model"))


def test_ids_that_no_text_gives_are_told_apart_before_they_are_sent(tokens: Any) -> None:
    ours = _openai(tokens)
    plain = tokens("a</s>b", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    with pytest.raises(UnsendableError, match="other tokens of its text, from token 2 on"):
        ours.body("m", [0, *plain])
    part = _ids(tokens, "🙃")  # not among the words, so in parts
    assert len(part) > 2
    with pytest.raises(UnsendableError, match="begin or end inside a character"):
        ours.body("m", part[:-1])
    letters = [0, *(_ids(tokens, letter)[1] for letter in "the")]
    with pytest.raises(UnsendableError, match="other tokens of its text, from token 1 on"):
        ours.body("m", letters)


def test_a_tokenizer_that_drops_bytes_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match="does not keep the bytes of the text"):
        _openai(PreTrainedTokenizerFast(tokenizer_object=words))
