import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.errors import RhoScoreError
from rho_score.safe_text import visible, visible_lines, without_secrets

TEXT = st.text(st.characters(codec="utf-8")) | st.text("\x00\x07\x08\x1b\x9b\u202e\u2028\r\n[31mab ")


@given(TEXT)
def test_nothing_unseen_is_left(text: str) -> None:
    shown = visible(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    assert len(visible_lines(text).split("\n")) == text.count("\n") + 1


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_seen_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_an_escape_is_its_number() -> None:
    assert visible("\x1b[31mred\r\n") == "‹001B›[31mred‹000D›‹000A›"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:CANARY@bucket/x cannot be opened", "s3://bucket/x cannot be opened"),
        ("s3://key:CAN/ARY@bucket/x", "s3://bucket/x"),
        ("https://CANARY@host/x", "https://host/x"),
        ("https://host:8080/x@y", "https://host:8080/x@y"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("https://host/x?X-Amz-Signature=CANARY&a=b.", "https://host/x"),
        ("at 'bucket/x?sig=CANARY' it failed", "at 'bucket/x' it failed"),
        ("prefix=x%3FX-Amz-Signature%3DCANARY%2F", "prefix=x"),
        ('bucket name "user:CANARY@host": wrong', 'bucket name "host": wrong'),
        ("&X-Amz-Security-Token=CANARY&b", "&X-Amz-Security-Token=…&b"),
        ("aws_secret_access_key=CANARY", "aws_secret_access_key=…"),
        ("s3://bucket/part-?.jsonl holds nothing", "s3://bucket/part-?.jsonl holds nothing"),
    ],
)
def test_credentials_are_taken_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(RhoScoreError(text)) == shown


@pytest.mark.parametrize(
    "piece", ["a", "?", "?a", "://a:", "a:", "a:b", "%3F", "secret", "x-amz-", "user:", "@", "=", "?=", "'a:"]
)
def test_a_megabyte_of_anything_ends(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert len(without_secrets(text)) <= len(text)
