"""An object store that fails for a while costs nothing but time; one that fails for good costs nothing but the rest.

Each kind of fault is tried with `score` and with `select`. What a run publishes is compared with an undisturbed run's, byte
for byte.
"""

import re
from collections.abc import Iterable
from typing import Any

import pytest

from rho_score.files.folder import Folder
from tests.faults import FaultyProxy, Rule
from tests.storage.conftest import N_UNITS, Run, files

COMMANDS = ["score", "select"]
SHARDS = r"/storage/corpus/[ab]\.|/storage/scores/\w+/data/"
DATA = r"/storage/{output}/data/"

# name → rules; "{output}" is the run's output. The count says how many retries the summary must tell; None: at least one
PASSING: dict[str, tuple[list[Rule], int | None]] = {
    "500 on reading": ([Rule("error", "GET", SHARDS, 500, "InternalError", times=5)], 5),
    "503 SlowDown on reading and writing": (
        [Rule("error", "GET", SHARDS, times=3), Rule("error", "PUT", DATA, times=3, share=0.7, seed=1)],
        6,
    ),
    "503 on HEAD and on lists": (
        [Rule("error", "HEAD", "/storage/", times=3), Rule("error", "GET", "list-type=2", times=3)],
        6,
    ),
    "504 from something between": ([Rule("error", "PUT", DATA, 504, "GatewayTimeout", times=2)], 2),
    "RequestTimeout": ([Rule("error", "PUT", DATA, 400, "RequestTimeout", times=2)], 2),
    "409 conflict": ([Rule("error", "PUT", DATA, 409, "OperationAborted", times=2)], 2),
    "reset before the answer": ([Rule("reset", "GET", SHARDS, times=6)], None),
    "reset in the middle of the body": ([Rule("reset amid", "GET", SHARDS, times=4)], 4),
    "truncated body": ([Rule("truncated", "GET", SHARDS, times=4)], 4),
    "lost answer to a write": ([Rule("lost answer", "PUT", DATA, times=3)], None),
    "stall": ([Rule("stall", "GET", SHARDS, seconds=6, times=2)], 2),
    "slow drip": ([Rule("drip", "GET", SHARDS, seconds=5, times=1)], 0),
    "404 flicker": ([Rule("error", "HEAD", SHARDS, 404, "NoSuchKey", times=2)], None),
}

# what the user must be told
LASTING: dict[str, tuple[Rule, str]] = {
    "expired credentials": (Rule("error", "PUT", DATA, 403, "ExpiredToken"), "ExpiredToken.*Renew the credentials"),
    "clock skew": (Rule("error", "PUT", DATA, 403, "RequestTimeTooSkewed"), "RequestTimeTooSkewed.*Set this machine's clock"),
    "no permission": (Rule("error", "GET", SHARDS, 403, "AccessDenied"), "AccessDenied.*Renew the credentials or the permissions"),
    "bad request": (Rule("error", "PUT", DATA, 400, "InvalidArgument"), "InvalidArgument.*not a passing fault"),
    "precondition": (Rule("error", "PUT", DATA, 412, "PreconditionFailed"), "PreconditionFailed"),
    "outage": (Rule("error", "PUT", DATA), r"SlowDown.*tried \d+ times in \d+ s.*unreachable or too busy"),
}  # fmt: skip


def _pairs(kinds: Iterable[str], scored: set[str]) -> list[Any]:
    """All kinds with both commands. With `score`, which takes longer, only those of `scored` are in the short form."""
    assert scored <= set(kinds)
    return [
        pytest.param(kind, command, marks=() if command == "select" or kind in scored else pytest.mark.long)
        for kind in kinds
        for command in COMMANDS
    ]


def _for(output: str, *rules: Rule) -> list[Rule]:
    """Fresh rules, for this output."""
    return [
        Rule(
            r.kind, r.method, r.key.replace("{output}", output), r.status, r.code, r.seconds, r.hides, r.share, r.times,
            r.seed,
        )
        for r in rules
    ]  # fmt: skip


def _told(said: str) -> int:
    found = re.search(r"storage: ([\d,]+) calls were made again", said)
    return int(found[1].replace(",", "")) if found else 0


@pytest.mark.parametrize(
    ("kind", "command"),
    _pairs(PASSING, {"503 SlowDown on reading and writing", "stall"}),
)
def test_a_fault_that_passes_changes_no_byte_and_is_counted(
    kind: str,
    command: str,
    s3: FaultyProxy,
    run: Run,
    command_of: dict[str, list[str]],
    peace: dict[str, dict[str, bytes]],
) -> None:
    output = f"passing-{list(PASSING).index(kind)}-{command}"
    rules, retries = PASSING[kind]
    rules = _for(output, *rules)
    with s3.failing(*rules):
        code, said = run(*command_of[command], f"s3://rho/storage/{output}")
    assert code == 0, said
    fired = sum(rule.fired for rule in rules)
    assert fired > 0, "the fault never happened"
    assert files(f"s3://rho/storage/{output}") == peace[command]
    assert _told(said) == retries if retries is not None else _told(said) <= fired


@pytest.mark.parametrize(("kind", "command"), _pairs(LASTING, {"outage"}))
def test_a_fault_that_lasts_ends_the_run_clearly_and_resume_is_right(
    kind: str,
    command: str,
    s3: FaultyProxy,
    run: Run,
    command_of: dict[str, list[str]],
    peace: dict[str, dict[str, bytes]],
) -> None:
    output = f"lasting-{list(LASTING).index(kind)}-{command}"
    rule, message = LASTING[kind]
    with s3.failing(*_for(output, rule)):
        code, said = run(*command_of[command], f"s3://rho/storage/{output}")
    assert code == 1, said
    assert re.search(f"s3://rho/storage/\\S+ could not be (read|written): .*{message}", said), said
    assert "Traceback" not in said.partition("rho-score: ")[2]
    for secret in ("only-for-tests", "Signature=", "X-Amz-", "127.0.0.1"):
        assert secret not in said.partition("rho-score: ")[2]
    half = files(f"s3://rho/storage/{output}")
    assert half.items() <= peace[command].items(), "something is there that an undisturbed run has not, or not so"
    assert len(half) < len(peace[command])
    code, said = run(*command_of[command], f"s3://rho/storage/{output}")
    assert code == 0, said
    assert files(f"s3://rho/storage/{output}") == peace[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_list_that_lags_behind_costs_work_and_no_byte(
    command: str, s3: FaultyProxy, run: Run, command_of: dict[str, list[str]], peace: dict[str, dict[str, bytes]]
) -> None:
    output = f"lagging-{command}"
    url = f"s3://rho/storage/{output}"
    assert run(*command_of[command], url)[0] == 0
    last = "_SUCCESS.json" if command == "score" else "summary.json"
    Folder(url).remove(last)
    hiding = Rule(
        "unlisted", "GET", "list-type=2", hides=rf"storage/{output}/data/.*[02468]\.parquet|_[0-9a-f]*[a-f]\.parquet"
    )
    with s3.failing(hiding):
        code, said = run(*command_of[command], url)
    assert code == 0, said
    assert hiding.fired > 0
    assert files(url) == peace[command]


def test_a_listing_that_fails_is_no_empty_listing(s3: FaultyProxy, bucket: Folder) -> None:
    rule = Rule("error", "GET", "list-type=2", 403, "AccessDenied")
    for ask in (lambda: bucket.names("scores/ref/data"), lambda: bucket.listing("scores")):
        with s3.failing(rule), pytest.raises(Exception, match=r"storage/scores\S* could not be listed: AccessDenied"):
            ask()
    with s3.failing(Rule("error", "GET", "list-type=2", times=2)):
        assert len(bucket.names("scores/ref/data")) == N_UNITS


def test_a_file_is_created_once_with_conditional_writes_and_without(s3: FaultyProxy, bucket: Folder) -> None:
    with s3.failing(Rule("error", "PUT", "/created/a", 412, "PreconditionFailed")):
        assert not bucket.create("created/a", b"late")
    with s3.failing(Rule("error", "PUT", "/created/a", 501, "NotImplemented", times=1)):
        assert bucket.create("created/a", b"first")
    assert not bucket.create("created/a", b"second")
    assert bucket.read("created/a") == b"first"
