"""Words and shingles are those that a plain loop finds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.config.corpus import ContentKind
from rho_score.deduplicating.shingles import plain_text, shingle_hashes, signatures, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The model's  loss, 3.5\tnats!", ["the", "model", "s", "loss", "3", "5", "nats"]),
        ("Привет, Ёлка", ["привет", "ёлка"]),
        ("東京タワー2", ["東", "京", "タ", "ワ", "ー", "2"]),
        ("GPUで学ぶ", ["gpu", "で", "学", "ぶ"]),
        ("ภาษา", ["ภ", "า", "ษ", "า"]),
        ("… — !", []),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "ä", "longer"]), max_size=12), max_size=6), st.integers(1, 5))
def test_shingles_are_equal_exactly_if_their_words_are(documents: list[list[str]], shingle: int) -> None:
    hashes, counts = shingle_hashes(documents, shingle)
    expected = [
        tuple(words[i : i + shingle])
        for words in documents
        for i in range(max(len(words) - shingle + 1, len(words) > 0))
    ]
    assert counts.tolist() == [max(len(words) - shingle + 1, len(words) > 0) for words in documents]
    assert len(hashes) == len(expected)
    by_hash = dict(zip(hashes.tolist(), expected, strict=True))
    assert [by_hash[one] for one in hashes.tolist()] == expected
    assert len(by_hash) == len(set(expected))


def test_signatures_do_not_change_with_neighbours_or_with_time() -> None:
    texts = [f"some words of document {i} and a few more of them" for i in range(50)]
    words = [words_of(text) for text in texts]
    together = signatures(words, 3, 128)
    alone = [signatures([of], 3, 128)[0] for of in words]
    assert (together == alone).all()
    # another version of the library may make others; the manifest names it, so such runs are not mixed
    assert signatures([["one", "two", "three"]], 2, 4).tolist() == GOLDEN


GOLDEN = [[879195720, 1501591652, 835753740, 1644728675]]


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("text", '["not JSON', '["not JSON'),
        ("ids", [5, 66], "[5,66]"),
        ("prefixed", ["Title", "A \"text\"\n"], 'Title\nA "text"\n'),
        ("response", ["Why?", "So."], "Why?\nSo."),
        (
            "messages",
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}],
            "Hi\nYes",
        ),
        ("messages", [{"role": "assistant", "tool_calls": [{"name": "f"}]}], ""),
        (
            "messages",
            {
                "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}],
                "tools": [{"type": "function", "function": {"name": "f", "text": "not said", "content": "nor this"}}],
            },
            "Hi\nYes",
        ),
    ],
)  # fmt: skip
def test_the_text_of_each_kind(kind: ContentKind, content: object, text: str) -> None:
    packed = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
    assert plain_text(packed, kind) == text
