"""Tokens by their text: the same tokens are accepted however a server writes them, others never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.servers.alignment import check_tokens
from rho_score.servers.protocol import WrongAnswerError
from tests.fake_server import with_the_last

TEXTS = st.text(st.sampled_from("ab é東🙂\n▁"), max_size=12).map(str.encode)


@st.composite
def cut_texts(draw: st.DrawFn) -> list[bytes]:
    """A text as tokens, cut at any bytes."""
    text = draw(TEXTS)
    places = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=len(text))) if len(text) > 1 else [])
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def _names(pieces: list[bytes]) -> list[str]:
    return [f"<{piece.hex()}>" for piece in pieces]


def _as_bytes(pieces: list[bytes]) -> list[str]:
    return ["bytes:" + "".join(f"\\x{byte:02x}" for byte in piece) if piece else "" for piece in pieces]


def _accepts(texts: list[str], pieces: list[bytes]) -> bool:
    try:
        check_tokens(texts, pieces, _names(pieces))
    except WrongAnswerError:
        return False
    return True


@given(cut_texts())
def test_the_same_tokens_are_accepted_in_every_form(pieces: list[bytes]) -> None:
    for texts in (
        _names(pieces), _as_bytes(pieces), with_the_last(pieces), [piece.decode(errors="replace") for piece in pieces],
    ):  # fmt: skip
        assert _accepts(texts, pieces)
        assert _accepts([*texts, "generated"], pieces)
        if texts:
            assert not _accepts(texts[:-1], pieces)


@given(cut_texts(), cut_texts())
def test_other_tokens_are_never_accepted_where_their_bytes_are_told(ours: list[bytes], theirs: list[bytes]) -> None:
    assert _accepts(_names(theirs), ours) == (ours == theirs[: len(ours)])
    if b"" not in theirs:
        assert _accepts(_as_bytes(theirs), ours) == (ours == theirs[: len(ours)])


@given(TEXTS.filter(bool), st.data())
def test_other_cuts_of_a_text_are_accepted_only_inside_a_character(text: bytes, data: st.DataObject) -> None:
    """A server that does not tell a token's bytes tells at least where characters begin."""

    def cut() -> list[bytes]:
        places = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)))) if len(text) > 1 else [])
        return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]

    def boundaries(pieces: list[bytes]) -> list[tuple[int, int]]:
        """(token, byte) of each cut that is between two characters."""
        found, at = [], 0
        for i, piece in enumerate(pieces):
            at += len(piece)
            if at == len(text) or text[at] & 0xC0 != 0x80:
                found.append((i, at))
        return found

    ours, theirs = cut(), cut()
    if _accepts(with_the_last(theirs), ours) and len(ours) == len(theirs):
        whole = [(i, at) for i, at in boundaries(ours) if _decodes(text[:at])]
        assert whole == [(i, at) for i, at in boundaries(theirs) if _decodes(text[:at])]


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("texts", "pieces", "message"),
    [
        (["the"], [b" the"], "token 0 is ' the', but the server's is 'the'"),
        (["", "東"], [b"\xe6\x9d", b"\xb2"], "token 0 is"),
        (["bytes:\\xe6\\x9d", "\ufffd"], [b"\xe6", b"\x9d\xb1"], "token 0 is"),
        ([], [b"a"], "1 tokens were sent, but the server made 0"),
    ],
)
def test_by_example(texts: list[str], pieces: list[bytes], message: str) -> None:
    with pytest.raises(WrongAnswerError, match=message):
        check_tokens(texts, pieces, _names(pieces))
