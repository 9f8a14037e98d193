"""The tokens of pairs, beside those of TRL's own functions."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl import extract_prompt

from rho_score.models.content import Encoded, Encoder
from rho_score.models.pairs import pair_tokens
from tests.unit.models.test_content import CHATML, merging_tokenizer, tokenizer_of

TEXTS = st.text(st.sampled_from("ab c"), max_size=8)


@given(st.text(st.sampled_from("ab c"), min_size=1, max_size=8), TEXTS, TEXTS)
def test_a_prompt_that_is_not_given_is_the_one_that_trl_takes(start: str, left: str, right: str) -> None:
    chosen, rejected = start + left, start + right
    tokenizer = merging_tokenizer()
    of = extract_prompt({"chosen": chosen, "rejected": rejected})
    implied = pair_tokens(tokenizer, None, chosen, rejected, template="")
    given = pair_tokens(tokenizer, of["prompt"], of["chosen"], of["rejected"], template="")
    assert implied.chosen.tolist() == given.chosen.tolist()
    assert implied.rejected.tolist() == given.rejected.tolist()
    assert implied.n_prompt == given.n_prompt


@pytest.mark.parametrize("which", ["chosen", "rejected"])
def test_a_response_is_what_comes_behind_the_shared_tokens(which: str) -> None:
    tokenizer = merging_tokenizer()
    tokenizer.eos_token = "z"
    pair: dict[str, Any] = {"prompt": "xa", "chosen": "y", "rejected": "b c"}  # `ab` lies across the boundary
    content = orjson.dumps([which, *pair.values()]).decode()
    (found,) = Encoder(kind="pair").encode(tokenizer, [content])
    assert isinstance(found, Encoded)
    assert found.ids.tolist() == tokenizer(pair["prompt"] + pair[which] + "z")["input_ids"]
    assert found.counts is not None
    assert found.counts.tolist() == [False] + [True] * (len(found.ids) - 1)


def test_messages_are_written_out_by_the_template() -> None:
    tokenizer = tokenizer_of(CHATML)
    prompt = [{"role": "user", "content": "Hi"}]
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in ("Hello", "Go away"))
    contents = [
        orjson.dumps([which, None, prompt + chosen, prompt + rejected]).decode() for which in ("chosen", "rejected")
    ]
    encoder = Encoder(kind="pair", template=CHATML)
    for found, response in zip(encoder.encode(tokenizer, contents), (chosen, rejected), strict=True):
        assert isinstance(found, Encoded)
        assert found.ids.tolist() == tokenizer.apply_chat_template(prompt + response)["input_ids"]
        assert found.counts is not None
        assert tokenizer.decode(found.ids[found.counts]) == f"{response[0]['content']}<|im_end|>\n"
    (refused, _) = Encoder(kind="pair").encode(tokenizer, contents)
    assert refused == "it holds messages, but the tokenizer has no chat template"
