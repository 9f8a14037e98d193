"""The text of token ids, cut so that no character is torn. Pure functions.

Byte-level and byte-fallback tokenizers write a character outside their vocabulary as several
tokens, none of which has a text of its own.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rho_score.models.vocabulary import BYTE_PIECE, from_byte_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Piece(NamedTuple):
    """The text of the tokens from `start` up to, and without, `stop`."""

    text: str
    start: int
    stop: int


def text_pieces(tokenizer: "PreTrainedTokenizerBase", ids: "np.ndarray | list[int]") -> list[Piece]:
    """Cuts the text of token ids into pieces, each of one token or of tokens that share a character.

    The tokens of the pieces are all of `ids`, in order. The texts of the pieces joined are what the
    tokenizer decodes `ids` to, with the names of special tokens. Where the bytes are no UTF-8, the
    tokenizer would write U+FFFD; here each such byte is written as `\\xe6`. A token without text, such
    as an id that the tokenizer does not know, is a piece with the text "".
    """
    by_token = list(_token_bytes(tokenizer, np.asarray(ids).tolist()))
    data = b"".join(by_token)
    # each byte that is no part of a character becomes a character of its own
    characters = data.decode("utf-8", "surrogateescape")
    edges = {0, *accumulate(len(c.encode("utf-8", "surrogateescape")) for c in characters)}
    pieces, start, first, end = [], 0, 0, 0
    for i, part in enumerate(by_token):
        end += len(part)
        if end in edges:
            pieces.append(Piece(data[first:end].decode("utf-8", "backslashreplace"), start, i + 1))
            start, first = i + 1, end
    return pieces


def _token_bytes(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> Iterator[bytes]:
    """Yields the bytes of each token; joined, they are the UTF-8 of what the ids are decoded to."""
    names = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    decode = tokenizer.convert_tokens_to_string
    byte_level, byte_fallback = decode(["Ġ"]) == " ", decode(["<0x41>"]) == "A"

    def written(token: str, before: str | None) -> str:
        """The text of a token, which may depend on whether another one stands before it."""
        head = "" if before is None else decode([before])
        text = decode([token] if before is None else [before, token])
        return text[len(head) :] if text.startswith(head) else decode([token])

    known: dict[tuple[str | None, str], bytes] = {}
    before: str | None = None
    for i, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
        if token is None:
            yield b""
            continue
        if byte_level:
            yield names[i].encode() if i in names else from_byte_level(token)
        elif byte_fallback and (byte := BYTE_PIECE.fullmatch(token)) and (before is not None or decode([token])):
            yield bytes.fromhex(byte[1])
        else:
            if (before, token) not in known:
                text = written(token, before)
                known[before, token] = (names[i] if names.get(i, "") not in text else text).encode()
            yield known[before, token]
        before = token
