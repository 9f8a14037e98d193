"""What is tried again, how that is counted, and what the user is told in the end."""

import errno

import pytest

from rho_score.files.retries import add_retries, kind_of, retries_counted, storage_error, with_retries
from rho_score.safe_text import without_secrets


class _Failing:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_what_passes_is_retried() -> None:
    slow_down = OSError(errno.EIO, "SlowDown: reduce your request rate")
    assert with_retries(_Failing(slow_down, ConnectionResetError(), TimeoutError()), longest_wait_s=0.01) == "done"


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), PermissionError("no"), OSError(errno.ENOSPC, "full"), KeyError("x")]
)
def test_what_does_not_pass_is_not(error: Exception) -> None:
    call = _Failing(error, error)
    with pytest.raises(type(error)):
        with_retries(call, longest_wait_s=0.01)
    assert len(call.errors) == 1


def test_patience_begins_with_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("rho_score.files.retries.time.monotonic", lambda: now[0])

    def call() -> str:
        now[0] += 400
        if now[0] == 400:
            raise OSError(errno.EIO, "a write that hung")
        return "done"

    assert with_retries(call, patience_s=300, longest_wait_s=0.01) == "done"


def test_retries_end() -> None:
    with pytest.raises(TimeoutError):
        with_retries(_Failing(*[TimeoutError() for _ in range(999)]), patience_s=0.1, longest_wait_s=0.01)


def test_what_should_be_there_is_asked_for_again_where_it_is_not() -> None:
    call = _Failing(FileNotFoundError(), FileNotFoundError())
    assert with_retries(call, missing_passes=True, longest_wait_s=0.01) == "done"


class _Answer(Exception):
    """Stands for botocore's ClientError: it has the answer."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (500, "InternalError", True), (503, "SlowDown", True), (504, "GatewayTimeout", True), (429, "TooManyRequests", True),
        (409, "OperationAborted", True), (400, "RequestTimeout", True), (400, "BadDigest", True), (400, "InvalidArgument", False),
        (400, "NeverHeardOf", False), (403, "AccessDenied", False), (403, "RequestTimeTooSkewed", False),
        (412, "PreconditionFailed", False), (301, "PermanentRedirect", False), (501, "NotImplemented", False),
    ],
)  # fmt: skip
def test_the_stores_answer_decides_where_there_is_one(status: int, code: str, passes: bool) -> None:
    """s3fs hands on an OSError with the answer as its cause; one that it does not know has the number EIO."""
    error = OSError(errno.EREMCHG if status == 301 else errno.EIO, "said")
    error.__cause__ = _Answer(status, code)
    call = _Failing(error)
    if passes:
        assert with_retries(call, longest_wait_s=0.01) == "done"
    else:
        with pytest.raises(OSError, match="said"):
            with_retries(call, longest_wait_s=0.01)
    assert kind_of(error) == code


def test_retries_are_counted_by_kind_with_those_of_tasks() -> None:
    with retries_counted() as made:
        with_retries(_Failing(TimeoutError(), OSError(errno.ESTALE, "x"), TimeoutError()), longest_wait_s=0.01)
        add_retries({"SlowDown": 2})
    assert made == {"TimeoutError": 2, "ESTALE": 1, "SlowDown": 2}


def test_errors_tell_the_place_what_was_said_and_the_remedy_but_no_secret() -> None:
    error = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert str(storage_error("written", "/out/data/a", error)) == (
        "/out/data/a could not be written: EDQUOT: Disk quota exceeded. Raise the quota or free space in it, then run the "
        "same command again to resume."
    )
    said = 'Could not connect to the endpoint URL: "https://me:secret@host/b/k?X-Amz-Signature=abc" now'
    assert without_secrets(said) == 'Could not connect to the endpoint URL: "https://host/b/k" now'
    skewed = PermissionError("The difference is too large")
    skewed.__cause__ = _Answer(403, "RequestTimeTooSkewed")
    assert "Set this machine's clock" in str(storage_error("read", "s3://b/k", skewed))
    assert "Renew the credentials" in str(storage_error("read", "s3://b/k", PermissionError("The token has expired")))
