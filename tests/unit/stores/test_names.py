"""Names of stores that are given as arguments."""

from pathlib import Path

import pytest

from rho_score.errors import InputError
from rho_score.stores.names import named_or_told_apart, told_apart


def test_stores_are_called_by_the_ends_that_tell_them_apart() -> None:
    assert told_apart(["s3://a/mine/", "s3://a/extra"]) == ["mine", "extra"]
    assert told_apart(["/x/mine/scores", "/x/extra/scores"]) == ["mine/scores", "extra/scores"]
    assert told_apart(["/x/mine", "/x/mine/"]) is None


def test_a_given_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = named_or_told_apart(["m=a/scores", "b/scores", "s3://bucket/c=d"])
    assert found == {"m": f"{tmp_path}/a/scores", "b/scores": f"{tmp_path}/b/scores", "bucket/c=d": "s3://bucket/c=d"}


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(InputError, match="a store is given twice: /x/mine"):
        named_or_told_apart(["/x/mine", "b=/x/mine"])
    with pytest.raises(InputError, match="two stores are called 'extra'"):
        named_or_told_apart(["extra=/x/mine", "/x/extra"])
