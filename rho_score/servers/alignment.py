"""Whether the tokens that a server names are ours, compared over the bytes of the text. Pure functions.

A server of OpenAI's format names its tokens by their text. A token that holds a part of a character
has no text of its own: some servers write such bytes as `bytes:\\xe6\\x9d`, some write U+FFFD for
them, and some write the whole character with its last token.
"""

import re
from collections.abc import Sequence

from rho_score.servers.protocol import WrongAnswerError

_BYTES = re.compile(r"bytes:((?:\\x[0-9a-fA-F]{2})+)")


def check_tokens(texts: Sequence[str], pieces: Sequence[bytes], names: Sequence[str]) -> None:
    """Raises WrongAnswerError unless the first tokens of an answer are ours, one by one.

    Where tokens hold parts of a character, the bytes of these tokens are compared as far as the
    server tells them. Their number, and where the characters begin and end, must always be ours.

    texts: what the server calls its tokens. There may be more of them, generated behind ours.
    pieces: the bytes of the text that our tokens stand for. names: what our vocabulary calls them.
    """
    if len(texts) < len(pieces):
        raise WrongAnswerError(f"{len(pieces)} tokens were sent, but the server made {len(texts)} of them")
    i = 0
    while i < len(pieces):
        if _is(texts[i], pieces[i], names[i]):
            i += 1
        elif n := _character(texts, pieces, i):
            i += n
        else:
            raise WrongAnswerError(f"token {i} is {_shown(pieces[i])}, but the server's is {texts[i]!r}")


def _is(text: str, piece: bytes, name: str) -> bool:
    """True if a server's token is ours by its bytes or by its name in the vocabulary."""
    if found := _BYTES.fullmatch(text):
        return bytes.fromhex(found[1].replace("\\x", "")) == piece
    whole = _decoded(piece)
    if whole is None:
        return text in (name, piece.decode(errors="replace"))
    return text in (whole, name)


def _character(texts: Sequence[str], pieces: Sequence[bytes], start: int) -> int:
    """How many tokens from `start` on are together the characters that the server writes for them.

    0 if they are not: the server writes other characters, or ends them at another token.
    """
    if _decoded(pieces[start]) is not None:
        return 0
    for stop in range(start + 1, len(pieces) + 1):
        together = _decoded(b"".join(pieces[start:stop]))
        if together is not None:
            alone = all(text == "" for text in texts[start : stop - 1])
            return stop - start if alone and texts[stop - 1] == together else 0
    return 0


def _decoded(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def _shown(piece: bytes) -> str:
    whole = _decoded(piece)
    return repr(piece) if whole is None else repr(whole)
