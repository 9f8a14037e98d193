"""The bytes that token ids stand for, and losses carried over them to the tokens of another tokenizer. Pure functions."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from rho_score.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNKNOWN = 0xFF  # what the unknown token stands for: a byte that no UTF-8 text holds, so that no text equals it
_SPACE = "▁"  # U+2581, SentencePiece's space
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
_SPLITS = {"ByteLevel", "Metaspace", "Digits", "UnicodeScripts", "FixedLength", "Split", "Punctuation"}
_PROBES = ("Hello, world! 12345", "two  spaces,\n\n\tlines  and\r\n    more ", "naïve Привет 東京 🙂")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The UTF-8 bytes that each token id of one tokenizer stands for; V ids.

    Exact for ordinary text. What ids cannot tell shows where the texts of two tokenizers are compared: a `▁` in the text
    reads as a space, text that NFC changes reads as changed, unknown characters as `UNKNOWN` or, where the vocabulary
    has no unknown token, as nothing, and space that an added token swallowed is missing.
    """

    data: np.ndarray
    """Bytes of all ids one after the other, uint8[sum of sizes]."""
    starts: np.ndarray
    """Where in `data` each id's bytes begin, int64[V]."""
    sizes: np.ndarray
    """Bytes of each id, int64[V]; 0 for an id that the tokenizer never gives."""
    spaced: np.ndarray
    """Ids whose first byte is no text where they begin one, but the tokenizer's prefix space, bool[V]."""
    opening: np.ndarray
    """Ids of added tokens after which the tokenizer writes its prefix space again, bool[V]."""
    optional_space: bool
    """The prefix space is left out where the text begins with a space, so ids alone do not tell the two apart."""

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "Vocabulary":
        """The vocabulary of a fast tokenizer, from its tokenizer.json.

        Raises:
            InputError: its ids do not give back ordinary text: a slow tokenizer, a model other than BPE and Unigram, a
                normalizer other than NFC and those that write spaces as `▁`, a pre-tokenizer that drops characters.
        """
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        try:
            if backend is None:
                raise ValueError("it is a slow tokenizer, without a tokenizer.json")
            return _vocabulary(backend)
        except ValueError as error:
            raise InputError(
                f"tokenizer {tokenizer.name_or_path!r} does not keep the bytes of the text: {error}. Models can be"
                " compared over bytes only if both tokenizers do: take a model with a byte-level BPE (GPT-2, Llama 3,"
                " Qwen) or SentencePiece (Llama 2, Mistral) tokenizer, or two models that share one tokenizer."
            ) from error

    def byte_lengths(self, ids: np.ndarray, lengths: np.ndarray, leading_space: np.ndarray | None = None) -> np.ndarray:
        """Bytes of text of each token, int64[n_tokens].

        ids: documents one after the other, without special tokens, int32[n_tokens]. lengths: tokens a document,
        int64[n_docs]. leading_space: documents known to begin with a space, bool[n_docs]; counts only where
        `optional_space`, which else takes the space of the first token for the tokenizer's own. Raises IndexError for
        an id beyond the vocabulary.
        """
        prefixed = np.zeros(len(ids), bool)
        prefixed[1:] = self.opening[ids[:-1]]
        begins = lengths > 0
        prefixed[(np.cumsum(lengths) - lengths)[begins]] = (
            ~leading_space[begins] if leading_space is not None and self.optional_space else True
        )
        sizes: np.ndarray = self.sizes[ids] - (prefixed & self.spaced[ids])
        return sizes

    def text_bytes(self, ids: np.ndarray, lengths: np.ndarray, leading_space: np.ndarray | None = None) -> np.ndarray:
        """Text of all documents one after the other, uint8[sum of byte_lengths]; arguments as of `byte_lengths`."""
        sizes = self.byte_lengths(ids, lengths, leading_space)
        first = (self.starts + self.sizes)[ids] - sizes  # a prefix space is cut off in front
        at = np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
        at += np.arange(len(at))
        text: np.ndarray = self.data[at]
        return text


def _vocabulary(backend: Any) -> Vocabulary:
    """The vocabulary of a `tokenizers.Tokenizer`. Raises ValueError with the reason if its ids do not keep the text."""
    content = backend.to_str()
    spec = orjson.loads(content)
    model, normalizers, splits = spec["model"], _steps(spec["normalizer"]), _steps(spec["pre_tokenizer"])
    _check(model, normalizers, splits)
    kinds = {step["type"] for step in (*normalizers, *splits)}
    byte_level, writes_space = "ByteLevel" in kinds, bool({"Metaspace", "Replace", "Prepend"} & kinds)
    if byte_level and writes_space:
        raise ValueError(f"it is byte-level and writes spaces as {_SPACE!r} as well")
    to_bytes = _from_byte_level if byte_level else _from_sentencepiece if writes_space else str.encode
    vocab = model["vocab"]
    pieces = {i: p for p, i in vocab.items()} if model["type"] == "BPE" else dict(enumerate(p for p, _ in vocab))
    bytes_of = {i: to_bytes(piece) for i, piece in pieces.items()}
    if model.get("byte_fallback"):
        found = ((i, _BYTE_PIECE.fullmatch(piece)) for i, piece in pieces.items())
        bytes_of |= {i: bytes.fromhex(match[1]) for i, match in found if match}
    unknown = vocab.get(model["unk_token"]) if model["type"] == "BPE" else model["unk_id"]
    if unknown is not None:
        bytes_of[unknown] = bytes([UNKNOWN])

    mirror = type(backend).from_str(content)  # a copy, because the probes below change its settings
    always = "Prepend" in kinds  # a space in front of each stretch between added tokens, whatever it begins with
    unless_there = any(_adds_space(step) for step in splits)
    optional = not always and (unless_there or any(step.get("prepend_scheme") == "first" for step in splits))
    verbatim, opening = set(), set()
    for token in spec["added_tokens"]:
        i, text = token["id"], token["content"]
        if token["special"]:
            bytes_of.setdefault(i, text.encode())
        elif i != unknown:
            if token["normalized"] and mirror.normalizer is not None and not byte_level:
                text = mirror.normalizer.normalize_str(text)  # what is looked for in the normalized text
            bytes_of[i] = _from_sentencepiece(text) if writes_space else text.encode()
            normal = always and token["normalized"]
            verbatim |= set() if normal else {i}
            opening |= {i} if unless_there or (always and not normal) else set()

    table = [bytes_of.get(i, b"") for i in range(max(bytes_of, default=-1) + 1)]
    sizes = np.array([len(entry) for entry in table], np.int64)
    spaced = [(always or optional) and b[:1] == b" " and i not in verbatim for i, b in enumerate(table)]
    vocabulary = Vocabulary(
        data=np.frombuffer(b"".join(table), np.uint8),
        starts=np.cumsum(sizes) - sizes,
        sizes=sizes,
        spaced=np.array(spaced, bool),
        opening=np.array([i in opening for i in range(len(table))], bool),
        optional_space=optional,
    )
    mirror.no_truncation()
    mirror.no_padding()
    mirror.encode_special_tokens = True
    for probe in _PROBES:
        ids = np.array(mirror.encode(probe, add_special_tokens=False).ids, np.int32)
        text = vocabulary.text_bytes(ids, np.array([len(ids)])).tobytes()
        if text != probe.encode() and UNKNOWN not in text:
            raise ValueError(f"it turns {probe!r} into {text.decode(errors='replace')!r}")
    return vocabulary


def _check(model: dict[str, Any], normalizers: list[dict[str, Any]], splits: list[dict[str, Any]]) -> None:
    """Raise ValueError with the reason if a part of the pipeline changes ordinary text or drops some of it."""
    if model["type"] not in ("BPE", "Unigram"):
        raise ValueError(f"its model {model['type']} gives up unknown words and the space between words")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ValueError("its model marks where words go on or end, in place of the space between them")
    for step in normalizers:
        writes_space = step["type"] == "Replace" and (step["pattern"], step["content"]) == ({"String": " "}, _SPACE)
        if not (writes_space or step["type"] in ("NFC", "ByteLevel") or step.get("prepend") == _SPACE):
            raise ValueError(f"its normalizer {step['type']} changes the text")
    for i, step in enumerate(splits):
        # `invert` removes what a pattern does not match, and such a pattern is written to match all: the probes tell
        if step["type"] not in _SPLITS or (step.get("behavior") == "Removed" and not step.get("invert")):
            raise ValueError(f"its pre-tokenizer {step['type']} drops characters")
        if step.get("replacement", _SPACE) != _SPACE:
            raise ValueError(f"its pre-tokenizer writes spaces as {step['replacement']!r}, which texts hold too")
        if i and _adds_space(step):
            raise ValueError(f"its pre-tokenizer {step['type']} adds a space to every piece of the text")


def _steps(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer of a tokenizer.json as the list of what it does in turn."""
    if step is None or step["type"] != "Sequence":
        return [] if step is None else [step]
    parts = step["normalizers"] if "normalizers" in step else step["pretokenizers"]
    return [inner for part in parts for inner in _steps(part)]


def _adds_space(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer puts a space in front of all that it is given and that does not begin with one."""
    if step["type"] == "ByteLevel":
        return bool(step["add_prefix_space"])
    return step.get("prepend_scheme") == "always"


def _from_sentencepiece(piece: str) -> bytes:
    return piece.replace(_SPACE, " ").encode()


def _from_byte_level(piece: str) -> bytes:
    """Bytes of a piece of a byte-level vocabulary; one with characters that stand for no byte is never given."""
    return bytes(map(_BYTE_OF.__getitem__, piece)) if _BYTE_OF.keys() >= set(piece) else piece.encode()


def _byte_characters() -> dict[str, int]:
    """GPT-2's table, character to byte: printable Latin-1 stands for itself, the others are U+0100 and on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_characters()
