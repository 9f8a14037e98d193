import json
import pickle
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rho_score.errors import InputError
from rho_score.models.encode import encode
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.byte_spans import (
    differing_documents,
    document_bytes,
    first_text_difference,
    leading_spaces,
    spread,
)
from tests.conftest import some_text

SAMPLES = [
    "",
    " ",
    "\n",
    "a",
    " leading and trailing ",
    "   three leading",
    "runs  of   spaces\t\tand\r\n\r\n    lines",
    "東京都庁舎 cut inside a character",
    "🙂👩‍👩‍👧‍👦 e\u0301 a\u030a\u0323 \u200b\u202e",
    "\x00\x01\x7f\x85\ufeff\ufffd\U0010ffff",
    "<s> </s> <|im_end|> <unk> ",
    "the model learns a token of text",
]
TEXTS = st.sampled_from(SAMPLES) | st.text(max_size=30) | st.text(" ab\n東é🙂", max_size=12)
FEW = TEXTS | st.text("aé", max_size=2)
# What SentencePiece cannot tell apart: a literal ▁, and the pieces that the lattice of a Unigram model holds as text.
SP_TEXTS = TEXTS.filter(lambda text: "▁" not in text and "<unk>" not in text)
CORPUS = [some_text(300, seed) for seed in range(3)]
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def byte_level(*, add_prefix_space: bool = False, normalizer: Any = None, digits: bool = False) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), split]) if digits else split
    if normalizer is not None:
        bpe.normalizer = normalizer
    bpe.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<s>", "</s>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return bpe


LLAMA_2 = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def sentencepiece_bpe(*, scheme: str | None = None, normalizer: Any = None, byte_fallback: bool = True) -> Tokenizer:
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback))
    if scheme is not None:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    if normalizer is not None:
        bpe.normalizer = normalizer
    # an alphabet without 東, é and 🙂, as large vocabularies miss most characters: their bytes are tokens
    pieces = ["<unk>", *(BYTE_PIECES if byte_fallback else [])]
    corpus = [text.translate({ord(c): None for c in "東京é🙂"}) for text in CORPUS]
    bpe.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=400, special_tokens=pieces, show_progress=False, max_token_length=6)
    )
    spec = json.loads(bpe.to_str())
    spec["added_tokens"] = spec["added_tokens"][:1]
    return Tokenizer.from_str(json.dumps(spec))


def unigram(*, byte_fallback: bool = True) -> Tokenizer:
    pieces = [("<unk>", 0.0), *((piece, -20.0) for piece in BYTE_PIECES if byte_fallback)]
    pieces += [(piece, -3.0) for piece in ("▁", "▁the", "▁to", "ken", "a", "b", "e", "n", "東", "▁\n", "  ")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "byte-level-digits": lambda: byte_level(digits=True),
    "byte-level-normalizer": lambda: _byte_level_normalizer(),
    "byte-level-prefix": lambda: byte_level(add_prefix_space=True),
    "metaspace-always": lambda: sentencepiece_bpe(scheme="always"),
    "metaspace-first": lambda: sentencepiece_bpe(scheme="first"),
    "metaspace-never": lambda: sentencepiece_bpe(scheme="never"),
    "llama-2": lambda: sentencepiece_bpe(normalizer=LLAMA_2),
    "gemma": lambda: sentencepiece_bpe(normalizer=normalizers.Replace(" ", "▁")),
    "unigram": unigram,
}
OPTIONAL = {"byte-level-prefix", "metaspace-always", "metaspace-first", "unigram"}


def _byte_level_normalizer() -> Tokenizer:
    spec = json.loads(byte_level().to_str())
    spec["normalizer"], spec["pre_tokenizer"] = {"type": "ByteLevel"}, None
    return Tokenizer.from_str(json.dumps(spec))


@cache
def made(kind: str) -> tuple[PreTrainedTokenizerFast, Vocabulary]:
    tokenizer = wrapped(KINDS[kind]())
    return tokenizer, Vocabulary.of(tokenizer)


def ids_of(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = encode(tokenizer, texts)
    return np.concatenate([np.zeros(0, np.int32), *encoded]), np.array([len(ids) for ids in encoded], np.int64)


def begin_with_space(texts: list[str]) -> np.ndarray:
    return np.array([text.startswith(" ") for text in texts], bool)


def sizes_of(kind: str, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    tokenizer, vocabulary = made(kind)
    ids, lengths = ids_of(tokenizer, texts)
    return vocabulary.byte_lengths(ids, lengths, begin_with_space(texts)), lengths


def text_of(vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    return vocabulary.text_bytes(*ids_of(tokenizer, [text])).tobytes().decode(errors="replace")


def oracle(loss: list[float], from_bytes: list[int], to_bytes: list[int]) -> list[float]:
    """`spread` of one document, byte by byte."""
    pending, per_byte = 0.0, []
    for nats, size in zip(loss, from_bytes, strict=True):
        pending += nats
        if size:
            per_byte += [pending / size] * size
            pending = 0.0
    last = next((size for size in reversed(from_bytes) if size), 0)
    for i in range(len(per_byte) - last, len(per_byte)):
        per_byte[i] += pending / last
    result = []
    for size in to_bytes:
        result.append(sum(per_byte[:size], 0.0))
        per_byte = per_byte[size:]
    return result


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(texts=st.lists(SP_TEXTS, max_size=5))
def test_ids_give_back_the_bytes_of_every_text(kind: str, texts: list[str]) -> None:
    tokenizer, vocabulary = made(kind)
    ids, lengths = ids_of(tokenizer, texts)
    assert vocabulary.optional_space == (kind in OPTIONAL)
    text = vocabulary.text_bytes(ids, lengths, begin_with_space(texts))
    sizes = vocabulary.byte_lengths(ids, lengths, begin_with_space(texts))
    assert text.dtype == np.uint8
    assert text.tobytes() == "".join(texts).encode()
    assert document_bytes(sizes, lengths).tolist() == [len(text.encode()) for text in texts]
    # without the hint, the one thing that an optional prefix space hides is a space that the text begins with
    hidden = [text.removeprefix(" ") if kind in OPTIONAL else text for text in texts]
    assert vocabulary.text_bytes(ids, lengths).tobytes() == "".join(hidden).encode()
    assert leading_spaces(text, document_bytes(sizes, lengths)).tolist() == begin_with_space(texts).tolist()


@settings(deadline=None)
@given(texts=st.lists(TEXTS, max_size=5))
def test_byte_level_vocabularies_know_any_text(texts: list[str]) -> None:
    tokenizer, vocabulary = made("byte-level")
    assert vocabulary.text_bytes(*ids_of(tokenizer, texts)).tobytes() == "".join(texts).encode()


def test_sizes_of_tokens_written_out() -> None:
    tokenizer, vocabulary = made("llama-2")
    ids, lengths = ids_of(tokenizer, ["東 a", "", "the"])
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    assert tokens == ["▁", "<0xE6>", "<0x9D>", "<0xB1>", "▁", "a", "▁the"]
    assert vocabulary.byte_lengths(ids, lengths).tolist() == [0, 1, 1, 1, 1, 1, 3]


@pytest.mark.parametrize("source", KINDS)
@settings(max_examples=20, deadline=None)
@given(texts=st.lists(SP_TEXTS, max_size=4), seed=st.integers(0, 2**32 - 1), unknown=st.sampled_from([0, 0.2]))
def test_losses_move_to_every_tokenizer_as_byte_by_byte(
    source: str, texts: list[str], seed: int, unknown: float
) -> None:
    from_bytes, from_lengths = sizes_of(source, texts)
    rng = np.random.default_rng(seed)
    loss = rng.exponential(3, len(from_bytes)).astype(np.float32)
    loss[rng.random(len(loss)) < unknown] = np.nan
    for target in KINDS:
        to_bytes, to_lengths = sizes_of(target, texts)
        moved = spread(loss, from_bytes, from_lengths, to_bytes, to_lengths)
        assert moved.dtype == np.float64
        from_ends, to_ends = np.cumsum(from_lengths), np.cumsum(to_lengths)
        for i in range(len(texts)):
            part = slice(from_ends[i] - from_lengths[i], from_ends[i])
            spans = slice(to_ends[i] - to_lengths[i], to_ends[i])
            wanted = oracle(loss[part].tolist(), from_bytes[part].tolist(), to_bytes[spans].tolist())
            np.testing.assert_allclose(moved[spans], wanted, rtol=1e-9, atol=1e-12)
            alone = spread(loss[part], from_bytes[part], from_lengths[[i]], to_bytes[spans], to_lengths[[i]])
            np.testing.assert_array_equal(alone, moved[spans])
            if not np.isnan(loss[part]).any():
                np.testing.assert_allclose(moved[spans].sum(), loss[part].astype(np.float64).sum(), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_cut_of_any_documents(data: st.DataObject) -> None:
    """Cuts that no tokenizer makes: empty tokens anywhere, documents of nothing but those, or without any."""
    from_bytes: list[int] = []
    to_bytes: list[int] = []
    loss: list[float] = []
    wanted: list[float] = []
    from_lengths, to_lengths = [], []
    for n_bytes in data.draw(st.lists(st.integers(0, 9), max_size=5)):
        sides = []
        for _ in range(2):
            cuts = sorted(data.draw(st.lists(st.integers(0, n_bytes), max_size=6)))
            sizes = np.diff([0, *cuts, n_bytes]).tolist()
            sides.append(sizes if n_bytes or data.draw(st.booleans()) else [])
        sizes, spans = sides
        nats = data.draw(st.lists(st.floats(0, 20) | st.just(np.nan), min_size=len(sizes), max_size=len(sizes)))
        wanted += oracle(nats, sizes, spans)
        from_bytes, to_bytes, loss = from_bytes + sizes, to_bytes + spans, loss + nats
        from_lengths.append(len(sizes))
        to_lengths.append(len(spans))
    arrays = [np.array(x, np.int64) for x in (from_bytes, from_lengths, to_bytes, to_lengths)]
    np.testing.assert_allclose(spread(np.array(loss, np.float64), *arrays), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "from_bytes", "to_bytes", "wanted"),
    [
        ([6.0, 1.0], [3, 1], [1, 1, 2], [2.0, 2.0, 3.0]),  # a character cut into its bytes
        ([1.0, 2.0, 3.0], [1, 1, 1], [3], [6.0]),
        ([1.0, np.nan, 3.0], [2, 2, 2], [1, 2, 1, 1, 1], [0.5, np.nan, np.nan, 1.5, 1.5]),
        ([5.0, 1.0], [0, 2], [1, 1], [3.0, 3.0]),  # a lone prefix space
        ([np.nan, 1.0, 2.0], [0, 1, 1], [1, 1], [np.nan, 2.0]),
        ([1.0, 5.0], [2, 0], [1, 1], [3.0, 3.0]),  # nothing follows
        ([3.0], [3], [0, 1, 0, 2, 0], [0.0, 1.0, 0.0, 2.0, 0.0]),
        ([3.0], [0], [0, 0], [0.0, 0.0]),  # a document without text
        ([3.0], [0], [], []),
        ([], [], [], []),
    ],
)
def test_spread_written_out(loss: list[float], from_bytes: list[int], to_bytes: list[int], wanted: list[float]) -> None:
    lengths = [np.array([len(sizes)], np.int64) for sizes in (from_bytes, to_bytes)]
    sizes = [np.array(sizes, np.int64) for sizes in (from_bytes, to_bytes)]
    moved = spread(np.array(loss, np.float32), sizes[0], lengths[0], sizes[1], lengths[1])
    np.testing.assert_array_equal(moved, wanted)


def test_equal_cuts_keep_each_loss_exactly() -> None:
    loss = np.random.default_rng(0).exponential(3, 1000).astype(np.float32)
    sizes = np.random.default_rng(1).integers(1, 30, 1000)
    lengths = np.array([0, 400, 0, 600])
    np.testing.assert_array_equal(spread(loss, sizes, lengths, sizes, lengths), loss.astype(np.float64))


def test_documents_of_other_sizes_are_refused() -> None:
    one, sizes = np.array([1, 1]), np.array([2, 3])
    with pytest.raises(ValueError, match="different numbers of bytes"):
        spread(np.ones(2), sizes, one, sizes[::-1], one)


def test_added_tokens_stand_for_their_content() -> None:
    tokenizers = {kind: KINDS[kind]() for kind in KINDS if kind != "metaspace-never"}
    for kind, tokenizer in tokenizers.items():
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<X>", "  z")])
        tokenizer.add_tokens([AddedToken("<é y>", normalized=True)])
        tokenizer.add_special_tokens([AddedToken(text) for text in ("<|user|>", "world")])
        fast = wrapped(tokenizer)
        vocabulary = Vocabulary.of(fast)
        texts = ["<X>", "a<X>b", "a <X>", "<X><X>a", "<é y>b", "a <é y>b<X>a", "the<X>the", "  za", "b  z"]
        for text in (*texts, "<|user|> a<|user|>", "Hello, world!"):
            assert text_of(vocabulary, fast, text) == text, (kind, text)


def test_added_tokens_that_llama_2_normalizes() -> None:
    tokenizer = KINDS["llama-2"]()
    tokenizer.add_tokens([AddedToken("foo", normalized=True)])
    fast = wrapped(tokenizer)
    vocabulary = Vocabulary.of(fast)
    assert fast.convert_ids_to_tokens(ids_of(fast, ["foo a foo"])[0].tolist())[0] == "▁foo"
    assert text_of(vocabulary, fast, "foo a foo") == "foo a foo"


def test_unknown_tokens_stand_for_no_text() -> None:
    for tokenizer in (unigram(byte_fallback=False), sentencepiece_bpe(scheme="always", byte_fallback=False)):
        fast = wrapped(tokenizer)
        vocabulary = Vocabulary.of(fast)
        assert text_of(vocabulary, fast, "a ba") == "a ba" or "�" in text_of(vocabulary, fast, "a ba")
        assert vocabulary.text_bytes(*ids_of(fast, ["a🙂"])).tolist() == [ord("a"), 0xFF]


def test_what_ids_cannot_tell_differs_from_an_exact_text() -> None:
    exact, exact_vocabulary = made("byte-level")
    nfc = wrapped(byte_level(normalizer=normalizers.NFC()))
    cases = [(*made("llama-2"), "a▁b", 1), (nfc, Vocabulary.of(nfc), "ae\u0301", 1), (*made("unigram"), "a <unk>", 2)]
    for tokenizer, vocabulary, text, at in cases:
        texts = ["first", "", text, "last"]
        sides: list[np.ndarray] = []
        for one, its in ((exact, exact_vocabulary), (tokenizer, vocabulary)):
            ids, lengths = ids_of(one, texts)
            sides += [its.text_bytes(ids, lengths), document_bytes(its.byte_lengths(ids, lengths), lengths)]
        difference = first_text_difference(*sides)
        assert difference is not None
        assert difference[:3] == (2, at, text)
        assert difference[3] != text
    assert text_of(Vocabulary.of(nfc), nfc, "naïve é") == "naïve é"


@settings(deadline=None)
@given(st.lists(FEW, max_size=4), st.lists(FEW, max_size=4))
@example(["", "ab", "", "cd"], ["", "ax", "", "c"])
@example(["ab", "", "é"], ["ab", "", "è"])
def test_first_text_difference(left: list[str], right: list[str]) -> None:
    n = min(len(left), len(right))
    left, right = left[:n], right[:n]

    def flat(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.array([len(text.encode()) for text in texts], np.int64)
        return np.frombuffer("".join(texts).encode(), np.uint8), sizes

    found = first_text_difference(*flat(left), *flat(right), context=4)
    document = next((i for i in range(n) if left[i] != right[i]), None)
    if document is None:
        assert found is None
        return
    a, b = left[document].encode(), right[document].encode()
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    near = slice(max(0, at - 4), at + 4)
    assert found == (document, at, a[near].decode(errors="replace"), b[near].decode(errors="replace"))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (normalizers.NFKC(), "NFKC"),
        (normalizers.Lowercase(), "Lowercase"),
        (normalizers.StripAccents(), "StripAccents"),
        (normalizers.Sequence([normalizers.NFC(), normalizers.Strip()]), "Strip"),
        (normalizers.BertNormalizer(), "BertNormalizer"),
        (normalizers.Nmt(), "Nmt"),
        (normalizers.Replace(Regex(" {2,}"), " "), "Replace"),
        (normalizers.Replace("``", '"'), "Replace"),
        (normalizers.Prepend(" "), "Prepend"),
        (normalizers.Replace(" ", "▁"), "byte-level and"),
        (pre_tokenizers.Whitespace(), "Whitespace"),
        (pre_tokenizers.WhitespaceSplit(), "WhitespaceSplit"),
        (pre_tokenizers.BertPreTokenizer(), "BertPreTokenizer"),
        (pre_tokenizers.CharDelimiterSplit("-"), "CharDelimiterSplit"),
        (pre_tokenizers.Punctuation("removed"), "Punctuation"),
        (pre_tokenizers.Split(Regex(r"\s+"), "removed"), "Split"),
        (pre_tokenizers.Metaspace("_"), "'_'"),
    ],
)
def test_tokenizers_that_change_the_text_are_refused(part: Any, reason: str) -> None:
    tokenizer = byte_level()
    if isinstance(part, normalizers.Normalizer):
        tokenizer.normalizer = part
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([part, tokenizer.pre_tokenizer])
    with pytest.raises(InputError, match=f"does not keep the bytes.*{reason}.*two models that share one"):
        Vocabulary.of(wrapped(tokenizer))


def test_other_models_and_slow_tokenizers_are_refused() -> None:
    refused: list[tuple[Any, str]] = [
        (wrapped(Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))), "WordPiece"),
        (wrapped(Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))), "WordLevel"),
        (wrapped(Tokenizer(models.BPE({"a": 0}, [], end_of_word_suffix="</w>"))), "words go on or end"),
        (wrapped(Tokenizer(models.BPE({"a": 0, "e": 1}, []))), "it turns 'Hello, world"),  # drops what it does not know
        (SimpleNamespace(name_or_path="org/slow"), "'org/slow'.*slow tokenizer"),
    ]
    inner = byte_level()
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(True)])
    refused.append((wrapped(inner), "ByteLevel adds a space to every piece"))
    dropping = byte_level()
    everything_but_spaces = pre_tokenizers.Split(Regex(r"\S+"), "removed", invert=True)
    dropping.pre_tokenizer = pre_tokenizers.Sequence([everything_but_spaces, pre_tokenizers.ByteLevel(False)])
    refused.append((wrapped(dropping), "into 'Hello,world!"))
    for tokenizer, reason in refused:
        with pytest.raises(InputError, match=reason):
            Vocabulary.of(tokenizer)


def test_patterns_that_match_all_text_may_be_written_inverted() -> None:
    tokenizer = byte_level()
    gpt_4 = pre_tokenizers.Split(Regex(r"\s+|\S+"), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([gpt_4, pre_tokenizers.ByteLevel(False, use_regex=False)])
    fast = wrapped(tokenizer)
    vocabulary = Vocabulary.of(fast)
    for text in SAMPLES:
        assert text_of(vocabulary, fast, text) == text


def test_the_tokenizer_is_left_as_it_was() -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=7, pad_token="<s>")
    fast = wrapped(tokenizer)
    before = fast.backend_tokenizer.to_str()
    vocabulary = Vocabulary.of(fast)
    assert fast.backend_tokenizer.to_str() == before
    assert text_of(vocabulary, fast, "naïve 東京 of the model") == "naïve 東京 of the model"


def test_a_vocabulary_travels() -> None:
    tokenizer, vocabulary = made("unigram")
    ids, lengths = ids_of(tokenizer, SAMPLES)
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert copy.optional_space
    np.testing.assert_array_equal(copy.text_bytes(ids, lengths), vocabulary.text_bytes(ids, lengths))
    with pytest.raises(IndexError):
        copy.byte_lengths(np.array([len(vocabulary.sizes)], np.int32), np.array([1]))


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), max_size=6))
def test_documents_that_differ_are_marked(pairs: list[tuple[bytes, bytes]]) -> None:
    sides = [np.frombuffer(b"".join(side), np.uint8) for side in ([a for a, _ in pairs], [b for _, b in pairs])]
    sizes = [np.array([len(pair[i]) for pair in pairs], np.int64) for i in (0, 1)]
    assert differing_documents(sides[0], sizes[0], sides[1], sizes[1]).tolist() == [a != b for a, b in pairs]
