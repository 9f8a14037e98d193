from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rho_score.models.pieces import Piece, text_pieces
from tests.unit.models.test_vocabulary import BYTE_PIECES, KINDS, SAMPLES, wrapped

LLAMA_2 = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
GEMMA = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
DECODERS = {
    "byte-level": decoders.ByteLevel(),
    "byte-level-prefix": decoders.ByteLevel(),
    "llama-2": LLAMA_2,
    "gemma": GEMMA,
    "metaspace-first": LLAMA_2,
    "unigram": decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]),
    "wordpiece": decoders.WordPiece(cleanup=False),
    "no decoder": None,
}
TEXTS = st.sampled_from([*SAMPLES, "漢字かな交じり文", "👩‍👩‍👧‍👦👍🏽🇩🇪", "السلام عليكم", "नमस्ते दुनिया क्षत्रिय"])
TEXTS |= st.text(max_size=30) | st.text(" ab東é🙂مन\u0301\u200d", max_size=12)
BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}


def wordpiece() -> Tokenizer:
    pieces = ["[UNK]", "the", "a", "##b", "##e", "東", "京", "##京", "é", "##é", "م", "##ن", ".", ","]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@cache
def made(kind: str) -> PreTrainedTokenizerFast:
    tokenizer = wordpiece() if kind == "wordpiece" else KINDS["gemma" if kind == "no decoder" else kind]()
    tokenizer.decoder = DECODERS[kind]
    tokenizer.add_special_tokens([AddedToken("<|user|>"), AddedToken("<｜end▁é｜>")])
    return wrapped(tokenizer)


def assert_partition(pieces: list[Piece], n_tokens: int) -> None:
    assert [piece.start for piece in pieces[:1]] == [0] * (n_tokens > 0)
    assert all(left.stop == right.start for left, right in pairwise(pieces))
    assert all(piece.start < piece.stop for piece in pieces)
    assert [piece.stop for piece in pieces[-1:]] == [n_tokens] * (n_tokens > 0)


@pytest.mark.parametrize("kind", DECODERS)
@settings(deadline=None)
@given(text=TEXTS)
def test_pieces_joined_are_what_the_tokenizer_decodes(kind: str, text: str) -> None:
    tokenizer = made(kind)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = text_pieces(tokenizer, ids)
    assert_partition(pieces, len(ids))
    assert "".join(piece.text for piece in pieces) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert all("\ufffd" not in piece.text for piece in pieces) or "\ufffd" in text
    assert pieces == text_pieces(tokenizer, np.array(ids, np.int32))


@settings(deadline=None)
@given(data=st.data())
@example(None)
def test_byte_level_tokens_in_any_order(data: st.DataObject | None) -> None:
    """Bytes that are no UTF-8 are shown as bytes, and pieces are as short as characters allow."""
    tokenizer = made("byte-level")
    vocabulary = {i: token for token, i in tokenizer.get_vocab().items() if i not in tokenizer.added_tokens_decoder}
    halves = [i for i, token in vocabulary.items() if BYTE_OF[token[0]] >= 0x80]
    few = st.sampled_from(sorted(vocabulary)) | st.sampled_from(halves)
    ids = halves[:300] if data is None else data.draw(st.lists(few, max_size=40))
    raw = [bytes(BYTE_OF[c] for c in vocabulary[i]) for i in ids]
    pieces = text_pieces(tokenizer, ids)
    assert_partition(pieces, len(ids))
    joined = b"".join(raw)
    assert "".join(piece.text for piece in pieces) == joined.decode(errors="backslashreplace")
    assert joined.decode(errors="replace") == tokenizer.decode(ids)
    for piece in pieces:
        part = raw[piece.start : piece.stop]
        assert piece.text == b"".join(part).decode(errors="backslashreplace")
        for cut in range(1, len(part)):  # each inner cut would tear a character
            sides = (b"".join(part[:cut]), b"".join(part[cut:]))
            assert "".join(side.decode(errors="backslashreplace") for side in sides) != piece.text


@pytest.mark.parametrize("kind", ["llama-2", "gemma", "wordpiece"])
@settings(deadline=None)
@given(data=st.data())
def test_other_tokens_in_any_order(kind: str, data: st.DataObject) -> None:
    tokenizer = made(kind)
    few = st.sampled_from([i for i in (3, 9, 33, 195, 200, 231, 158, 178) if i < len(tokenizer)])
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1) | few, max_size=30))
    pieces = text_pieces(tokenizer, ids)
    assert_partition(pieces, len(ids))
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    named = tokenizer.convert_tokens_to_ids("<｜end▁é｜>")  # decoded, its name would lose the ▁
    if "\ufffd" not in decoded and named not in ids:
        assert "".join(piece.text for piece in pieces) == decoded


def test_pieces_written_out() -> None:
    tokenizer = made("llama-2")

    def ids_of(*tokens: str) -> list[int]:
        return [int(i) for i in tokenizer.convert_tokens_to_ids(list(tokens))]

    torn = ids_of("▁", "<0xE6>", "<0x9D>", "<0xB1>", "▁the", "<0x9D>", "<0xC3>", "<0xA9>", "<0xE6>", "<|user|>", "a")
    assert text_pieces(tokenizer, torn) == [
        Piece("", 0, 1),
        Piece("東", 1, 4),
        Piece(" the", 4, 5),
        Piece("\\x9d", 5, 6),
        Piece("é", 6, 8),  # the tokenizer itself gives the whole run up as U+FFFD
        Piece("\\xe6", 8, 9),
        Piece("<|user|>", 9, 10),
        Piece("a", 10, 11),
    ]
    assert tokenizer.decode(torn) == "東 the\ufffd\ufffd\ufffd\ufffd<|user|>a"
    words = made("wordpiece")
    ids = words("the ab 東京, a", add_special_tokens=False)["input_ids"]
    assert [piece.text for piece in text_pieces(words, ids)] == ["the", " a", "b", " 東", "京", " ,", " a"]


@pytest.mark.parametrize("kind", DECODERS)
def test_special_tokens_are_shown_by_name_and_unknown_ids_as_nothing(kind: str) -> None:
    tokenizer = made(kind)
    name = tokenizer.convert_tokens_to_ids("<｜end▁é｜>")
    pieces = text_pieces(tokenizer, [name, 10_000_000, name])
    space = " " * (kind in ("wordpiece", "no decoder"))
    assert pieces == [Piece("<｜end▁é｜>", 0, 1), Piece("", 1, 2), Piece(f"{space}<｜end▁é｜>", 2, 3)]
    assert text_pieces(tokenizer, []) == []


def test_byte_pieces_are_text_without_byte_fallback() -> None:
    tokenizer = made("no decoder")
    ids = tokenizer.convert_tokens_to_ids(BYTE_PIECES[65:67])
    assert [piece.text for piece in text_pieces(tokenizer, ids)] == ["<0x41>", " <0x42>"]
