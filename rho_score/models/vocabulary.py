"""The bytes of text that the token ids of a tokenizer stand for. Pure functions."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from rho_score.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNKNOWN = 0xFF  # the byte of the unknown token; no UTF-8 text holds it, so no text equals it
_SPACE = "▁"  # U+2581, SentencePiece's space
BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
_SPLITS = {"ByteLevel", "Metaspace", "Digits", "UnicodeScripts", "FixedLength", "Split", "Punctuation"}
_PROBES = ("Hello, world! 12345", "two  spaces,\n\n\tlines  and\r\n    more ", "naïve Привет 東京 🙂")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The UTF-8 bytes that each of the V token ids of one tokenizer stands for.

    They are exact for ordinary text. The ids do not tell everything, which shows when the texts of
    two tokenizers are compared: a `▁` in the text reads as a space; text that NFC changes reads as
    changed; unknown characters read as `UNKNOWN`, or as nothing if the vocabulary has no unknown
    token; and a space that an added token swallowed is missing.
    """

    data: np.ndarray
    """Bytes of all ids one after the other, uint8[sum of sizes]."""
    starts: np.ndarray
    """Where each id's bytes begin in `data`, int64[V]."""
    sizes: np.ndarray
    """Number of bytes of each id, int64[V]; 0 for an id that the tokenizer never produces."""
    spaced: np.ndarray
    """True for ids that begin with the tokenizer's prefix space at the start of a text, bool[V]."""
    opening: np.ndarray
    """True for added tokens after which the tokenizer writes its prefix space again, bool[V]."""
    optional_space: bool
    """True if the tokenizer writes no prefix space where the text begins with a space.

    The ids alone then do not tell the prefix space from the text's own.
    """

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "Vocabulary":
        """Returns the vocabulary of a fast tokenizer, from its tokenizer.json.

        Raises:
            InputError: its ids do not give back ordinary text. The reason may be a slow tokenizer,
                a model other than BPE and Unigram, a normalizer other than NFC and those that write
                spaces as `▁`, or a pre-tokenizer that drops characters.
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
        """Returns the number of bytes of text of each token, int64[n_tokens].

        ids: documents one after the other, without special tokens, int32[n_tokens]. lengths: tokens
        per document, int64[n_docs]. leading_space: True for documents that are known to begin with
        a space, bool[n_docs]. It is used only if `optional_space`. Where it is not given, a space
        at the start of the first token is taken for the tokenizer's own.

        Raises:
            IndexError: an id is beyond the vocabulary.
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
        """Returns the text of all documents, one after the other, uint8[sum of byte_lengths].

        The arguments are those of `byte_lengths`.
        """
        sizes = self.byte_lengths(ids, lengths, leading_space)
        first = (self.starts + self.sizes)[ids] - sizes  # without the prefix space
        at = np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
        at += np.arange(len(at))
        text: np.ndarray = self.data[at]
        return text


def _vocabulary(backend: Any) -> Vocabulary:
    """Returns the vocabulary of a `tokenizers.Tokenizer`.

    Raises:
        ValueError: its ids do not keep the text; the message is the reason.
    """
    content = backend.to_str()
    spec = orjson.loads(content)
    model, normalizers, splits = spec["model"], _steps(spec["normalizer"]), _steps(spec["pre_tokenizer"])
    _check(model, normalizers, splits)
    kinds = {step["type"] for step in (*normalizers, *splits)}
    byte_level, writes_space = "ByteLevel" in kinds, bool({"Metaspace", "Replace", "Prepend"} & kinds)
    if byte_level and writes_space:
        raise ValueError(f"it is byte-level and writes spaces as {_SPACE!r} as well")
    to_bytes = from_byte_level if byte_level else _from_sentencepiece if writes_space else str.encode
    vocab = model["vocab"]
    pieces = {i: p for p, i in vocab.items()} if model["type"] == "BPE" else dict(enumerate(p for p, _ in vocab))
    bytes_of = {i: to_bytes(piece) for i, piece in pieces.items()}
    if model.get("byte_fallback"):
        found = ((i, BYTE_PIECE.fullmatch(piece)) for i, piece in pieces.items())
        bytes_of |= {i: bytes.fromhex(match[1]) for i, match in found if match}
    unknown = vocab.get(model["unk_token"]) if model["type"] == "BPE" else model["unk_id"]
    if unknown is not None:
        bytes_of[unknown] = bytes([UNKNOWN])

    mirror = type(backend).from_str(content)  # a copy, because the probes below change its settings
    # Puts a space before each stretch of text between added tokens, whatever the stretch begins
    # with.
    always = "Prepend" in kinds
    unless_there = any(_adds_space(step) for step in splits)
    optional = not always and (unless_there or any(step.get("prepend_scheme") == "first" for step in splits))
    verbatim, opening = set(), set()
    for token in spec["added_tokens"]:
        i, text = token["id"], token["content"]
        if token["special"]:
            bytes_of.setdefault(i, text.encode())
        elif i != unknown:
            if token["normalized"] and mirror.normalizer is not None and not byte_level:
                text = mirror.normalizer.normalize_str(text)  # it is looked for in normalized text
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
    """Raises ValueError with the reason if a step of the pipeline changes or drops some text."""
    if model["type"] not in ("BPE", "Unigram"):
        raise ValueError(f"its model {model['type']} drops unknown words and the space between words")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ValueError("its model marks where words go on or end instead of keeping the space between them")
    for step in normalizers:
        writes_space = step["type"] == "Replace" and (step["pattern"], step["content"]) == ({"String": " "}, _SPACE)
        if not (writes_space or step["type"] in ("NFC", "ByteLevel") or step.get("prepend") == _SPACE):
            raise ValueError(f"its normalizer {step['type']} changes the text")
    for i, step in enumerate(splits):
        # With `invert`, what the pattern does not match is removed. Such a pattern is written to
        # match all of the text, which the probes check.
        if step["type"] not in _SPLITS or (step.get("behavior") == "Removed" and not step.get("invert")):
            raise ValueError(f"its pre-tokenizer {step['type']} drops characters")
        if step.get("replacement", _SPACE) != _SPACE:
            raise ValueError(f"its pre-tokenizer writes spaces as {step['replacement']!r}, which also occurs in texts")
        if i and _adds_space(step):
            raise ValueError(f"its pre-tokenizer {step['type']} adds a space to every piece of the text")


def _steps(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Returns the steps of a normalizer or pre-tokenizer of a tokenizer.json, in order."""
    if step is None or step["type"] != "Sequence":
        return [] if step is None else [step]
    parts = step["normalizers"] if "normalizers" in step else step["pretokenizers"]
    return [inner for part in parts for inner in _steps(part)]


def _adds_space(step: dict[str, Any]) -> bool:
    """True if a pre-tokenizer puts a space before every text that does not begin with one."""
    if step["type"] == "ByteLevel":
        return bool(step["add_prefix_space"])
    return step.get("prepend_scheme") == "always"


def _from_sentencepiece(piece: str) -> bytes:
    return piece.replace(_SPACE, " ").encode()


def from_byte_level(piece: str) -> bytes:
    """Returns the bytes of a piece of a byte-level vocabulary.

    A piece with characters that stand for no byte is never produced by the tokenizer.
    """
    return bytes(map(_BYTE_OF.__getitem__, piece)) if _BYTE_OF.keys() >= set(piece) else piece.encode()


def _byte_characters() -> dict[str, int]:
    """Returns GPT-2's table from character to byte.

    Printable Latin-1 characters stand for themselves; the other bytes are U+0100 and up, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_characters()
