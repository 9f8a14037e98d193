"""Which failures are retried, how long for, what is paid, and that a key is never shown."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from rho_score.errors import InputError, RhoScoreError
from rho_score.servers import faults
from rho_score.servers.about import Served, find_served
from rho_score.servers.client import Client, DeniedError, RefusedError
from rho_score.servers.endpoint import KEY_VARIABLE, Endpoint
from rho_score.servers.purse import FreePurse, LimitedPurse
from rho_score.servers.vllm import Vllm
from tests.fake_server import FakeServer, Faults

SECRET = "sk-CANARY7f3a"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://api.example.org/inference/v1/", "https://api.example.org/inference"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_addresses(url: str, base: str) -> None:
    assert Endpoint.of(url).url == base


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://host", "http://", "http://host:x", "http://u:p@host", "http://host/?key=1"],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="--server takes an address"):
        Endpoint.of(url)


@pytest.mark.parametrize("key", ["a b", "ключ", "a\nb"])
def test_keys_that_no_header_can_carry(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(InputError, match="characters that no header can carry") as caught:
        Endpoint.of("http://host")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7), ("0.5", 0.5), ("-3", 0), ("99999", faults.LONGEST_RETRY_AFTER_S), ("soon", None), ("", None), ("nan", None),
        ("Mon, 31 Feb 2026 10:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after(value: str, seconds: float | None) -> None:
    assert faults.retry_after({"Retry-After": value}) == seconds


def test_retry_after_as_a_date() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert faults.retry_after({"Retry-After": then}) == pytest.approx(30, abs=3)


def test_waits_grow_with_jitter_and_keep_what_was_asked() -> None:
    draw = random.Random(0)
    waits = [[faults.wait_s(tries, None, draw) for _ in range(200)] for tries in (1, 4, 30)]
    assert [max(found) < most for found, most in zip(waits, (0.5, 4.0, 60.0), strict=True)] == [True] * 3
    assert all(len(set(found)) == 200 for found in waits)
    assert min(faults.wait_s(1, 9.0, draw) for _ in range(50)) >= 9.0


@pytest.mark.parametrize(
    ("status", "passes", "billed"),
    [(400, False, False), (401, False, False), (404, False, False), (408, True, False), (429, True, False), (500, True, True),
     (501, False, True), (502, True, True), (503, True, False), (504, True, True), (529, True, False)],
)  # fmt: skip
def test_statuses(status: int, passes: bool, billed: bool) -> None:
    assert faults.passes(status) == passes
    assert faults.billed(status) == billed


@pytest.fixture
def open_client(monkeypatch: pytest.MonkeyPatch) -> Any:
    clients: list[Client] = []
    monkeypatch.setattr(faults, "FIRST_WAIT_S", 0.002)

    def connect(server: FakeServer, **options: Any) -> Client:
        clients.append(Client(Endpoint.of(server.url), requests=4, tries=4, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def _ask(client: Client, ids: list[int], model: str = "tiny") -> Any:
    body = Vllm().body(model, ids)
    return client.run(client.ask(Vllm.path, body, lambda found: Vllm().read(found, ids), tokens=len(ids) + 1))


def test_a_wrong_key_or_model_is_denied_without_a_retry_and_the_key_is_never_shown(
    make_model: Callable[[int], Path], open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(make_model(1), key="right") as server:
        monkeypatch.setenv(KEY_VARIABLE, SECRET)
        client = open_client(server)
        with pytest.raises(
            DeniedError, match=r"HTTP 401: the key Bearer … is wrong\. Give its API key as the"
        ) as caught:
            _ask(client, [0, 5])
        assert SECRET not in f"{caught.value!r} {client._endpoint!r}"
        assert client.retries == {}
        monkeypatch.setenv(KEY_VARIABLE, "right")
        client = open_client(server)
        with pytest.raises(DeniedError, match=r"HTTP 404: .*`other` does not exist.*Check --server"):
            _ask(client, [0, 5], model="other")
        assert len(_ask(client, [0, 5]).logprobs) == 2


def test_what_is_paid_is_what_the_server_may_have_done(make_model: Callable[[int], Path], open_client: Any) -> None:
    with FakeServer(make_model(1)) as server:
        purse = FreePurse()
        client = open_client(server, purse=purse)
        _ask(client, [0, 5, 6])
        assert purse.sent == server.n_tokens == 4
        for kind, paid in (("429", 0), ("503", 0), ("500", 16), ("drop", 16), ("cut off", 16), ("invalid", 16)):
            before, server.faults = purse.sent, Faults(1.0, kinds=(kind,))
            with pytest.raises(RhoScoreError, match="failed 4 times"):
                _ask(client, [0, 5, 6])
            assert purse.sent - before == paid, kind
        server.faults = Faults()
        before = purse.sent
        with pytest.raises(RefusedError, match="HTTP 400: Token id is out of vocabulary"):
            _ask(client, [0, 5, 100_000])
        assert purse.sent == before
        limited = open_client(server, purse=LimitedPurse(7))
        _ask(limited, [0, 5, 6])
        n_asked = server.asked[Vllm.path]
        with pytest.raises(InputError, match="leaves 7 tokens"):
            _ask(limited, [0, 5, 6])
        assert server.asked[Vllm.path] == n_asked


def test_an_answer_that_stays_wrong_is_refused(make_model: Callable[[int], Path], open_client: Any) -> None:
    with FakeServer(make_model(1)) as server:
        client = open_client(server)
        _ask(client, [0, 5, 6])
        server.faults = Faults(1.0, kinds=("duplicate",))
        with pytest.raises(RefusedError, match="token 2 was 7, but the answer is about 6"):
            _ask(client, [0, 5, 7])
        assert client.retries == {"wrong answer": 3}


def test_the_model_is_the_one_that_is_named_or_the_only_one(
    make_model: Callable[[int], Path], open_client: Any
) -> None:
    with FakeServer(make_model(1)) as server:
        client = open_client(server)
        for kind, version in (("vllm", "1.2.3"), ("sglang", "1.2.3"), ("openai", None)):
            assert find_served(client, kind, None) == Served("tiny", 66, version)
        with pytest.raises(InputError, match=r"does not serve 'other', but tiny\. Name one with --server-model"):
            find_served(client, "vllm", "other")
        server.names, server.max_model_len = ("tiny", "more"), None
        assert find_served(client, "vllm", "more") == Served("more", None, "1.2.3")
        with pytest.raises(InputError, match=r"the server serves 2: tiny, more\. Name a model with --server-model"):
            find_served(client, "vllm", None)
