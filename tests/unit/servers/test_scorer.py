"""Documents through a server that fails: the losses of a plain float32 forward, each once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from rho_score.config import ServerKind
from rho_score.errors import ServerError
from rho_score.models.encode import encode
from rho_score.servers import client as client_module
from rho_score.servers import faults as faults_module
from rho_score.servers.client import Client
from rho_score.servers.connection import Connection
from rho_score.servers.endpoint import Endpoint
from rho_score.servers.kinds import protocol_of
from rho_score.servers.scorer import MOST_REFUSED, ServerScorer
from tests.conftest import some_text
from tests.fake_server import KINDS, FakeServer, Faults
from tests.oracle import load_float32, plain_losses

KIND_NAMES: tuple[ServerKind, ...] = ("vllm", "sglang", "openai")


@pytest.fixture(scope="module")
def model(make_model: Callable[[int], Path]) -> Path:
    return make_model(1)


@pytest.fixture(scope="module")
def tokens(model: Path) -> Any:
    return AutoTokenizer.from_pretrained(model)


@pytest.fixture(scope="module")
def documents(tokens: Any) -> list[np.ndarray]:
    """1,000 short documents and some that are cut into windows."""
    texts = [f"{i} {some_text(1 + i % 7, i)}" for i in range(1000)]
    return encode(tokens, texts)


@pytest.fixture(scope="module")
def expected(model: Path, documents: list[np.ndarray]) -> list[np.ndarray]:
    loaded = load_float32(model)
    return [plain_losses(loaded, ids.tolist(), prefix=0, context=60, overlap=15) for ids in documents]


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults_module, "FIRST_WAIT_S", 0.002)
    monkeypatch.setattr(faults_module, "LONGEST_WAIT_S", 0.02)


@pytest.fixture
def connect(tokens: Any) -> Iterator[Callable[..., ServerScorer]]:
    """Scorers at a server; their connections are closed at the end."""
    clients: list[Client] = []

    def scorer(server: FakeServer, kind: ServerKind, **changes: Any) -> ServerScorer:
        settings = {"context": 60, "overlap": 15, "prefix_id": 0} | changes
        clients.append(Client(Endpoint.of(server.url), requests=8))
        protocol = protocol_of(
            kind, lambda: tokens, prefix_id=settings["prefix_id"], prefix_by_server=False, generates=0
        )
        return ServerScorer(Connection(clients[-1], protocol, "tiny"), **settings)

    yield scorer
    for client in clients:
        client.close()


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_faults_cost_no_document_and_no_loss(
    kind: ServerKind,
    model: Path,
    documents: list[np.ndarray],
    expected: list[np.ndarray],
    connect: Any,
    no_waiting: None,
) -> None:
    """1,000 documents, 5 % of the requests fail in one of ten ways: nothing twice, nothing lost, nothing wrong."""
    told: list[int] = []
    with FakeServer(model, faults=Faults(0.05, seed=3)) as server:
        scorer = connect(server, kind)
        found = scorer.score(documents, on_tokens=told.append)
        fired = server.faults.fired
        assert set(fired) == set(KINDS)
        server.faults = Faults()
        undisturbed = connect(server, kind).score(documents)
    assert found.refused == {}
    assert sum(told) == sum(map(len, documents)) == found.positions
    assert [len(loss) for loss in found.loss] == [len(ids) for ids in documents]
    for ours, plain in zip(found.loss, expected, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-4)
    for ours, other in zip(found.loss, undisturbed.loss, strict=True):
        np.testing.assert_array_equal(ours, other)
    retries = scorer.connection.client.retries
    for name in ("429", "500", "503", "529"):
        assert retries[f"HTTP {name}"] == fired[name]
    assert retries["broken connection"] + retries["truncated answer"] == fired["drop"] + fired["cut off"]
    assert retries["invalid JSON"] == fired["invalid"]
    # a fault may send the very answer that was asked for, or come before there is another
    assert 0 < retries["wrong answer"] <= fired["duplicate"] + fired["swapped"]


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize("prefix", [0, None])
def test_long_documents_are_cut_into_windows(
    kind: ServerKind, prefix: int | None, model: Path, tokens: Any, connect: Any
) -> None:
    texts = [some_text(n, n) for n in (30, 90, 200)]
    ids = [*encode(tokens, texts), np.zeros(0, np.int32), np.array([5], np.int32)]
    loaded = load_float32(model)
    with FakeServer(model) as server:
        scorer = connect(server, kind, prefix_id=prefix, context=20, overlap=7)
        found = scorer.score(ids)
        assert server.n_tokens == scorer.cost(ids)
    for ours, document in zip(found.loss, ids, strict=True):
        plain = plain_losses(loaded, document.tolist(), prefix=prefix, context=20, overlap=7)
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-4)
    assert all(map(scorer.is_finite, found.loss))


def test_ranks_count_the_tokens_that_are_more_likely(model: Path, documents: list[np.ndarray], connect: Any) -> None:
    import torch

    loaded = load_float32(model)
    with FakeServer(model) as server:
        found = connect(server, "vllm", signals=("rank",)).score(documents[:20])
    for ids, ranks in zip(documents[:20], found.signals["rank"], strict=True):
        with torch.inference_mode():
            logits = loaded(torch.tensor([[0, *ids.tolist()]])).logits[0].float()
        assert ranks.tolist() == [int((row > row[i]).sum()) for row, i in zip(logits, ids.tolist(), strict=False)]


def test_a_document_that_the_server_refuses_is_refused_and_the_others_are_not(
    model: Path, documents: list[np.ndarray], expected: list[np.ndarray], connect: Any
) -> None:
    bad = {tuple(documents[i].tolist()) for i in (3, 7)}
    with FakeServer(model, refuse=lambda ids: tuple(ids[1:]) in bad) as server:
        found = connect(server, "vllm").score(documents[:20])
        assert server.asked["/v1/completions"] == 20, "what is refused is not asked for again"
    assert found.refused == dict.fromkeys(
        (3, 7), "the server refuses it: HTTP 400: this text is not to the server's liking"
    )
    for i, (ours, plain) in enumerate(zip(found.loss, expected, strict=False)):
        np.testing.assert_allclose(ours, np.nan if i in (3, 7) else plain, rtol=1e-5, atol=1e-4)


def test_a_server_that_refuses_everything_ends_the_run(model: Path, documents: list[np.ndarray], connect: Any) -> None:
    with (
        FakeServer(model, refuse=lambda ids: True) as server,
        pytest.raises(ServerError, match=f"refuses {MOST_REFUSED + 1} of 20 documents of a unit, the last because"),
    ):
        connect(server, "sglang").score(documents[:20])


def test_refused_documents_are_counted_against_their_whole_unit(
    model: Path, documents: list[np.ndarray], connect: Any
) -> None:
    """The others may have their losses from another score set, or be in another part of the unit."""
    with FakeServer(model, refuse=lambda ids: True) as server:
        scorer = connect(server, "vllm")
        assert set(scorer.score(documents[:20], n_documents=40).refused) == set(range(20))
        with pytest.raises(ServerError, match=r"refuses \d+ of 33 documents of a unit"):
            scorer.score(documents[:20], n_documents=33)


def test_values_that_are_not_finite_belong_to_the_document(
    model: Path, documents: list[np.ndarray], connect: Any
) -> None:
    values = {tuple(documents[2].tolist()): -np.inf, tuple(documents[4].tolist()): np.nan}

    def change(ids: list[int], logprobs: list[float]) -> list[float]:
        return [values.get(tuple(ids[1:]), logprobs[0]), *logprobs[1:]]

    for kind in KIND_NAMES:
        with FakeServer(model, change=change) as server:
            scorer = connect(server, kind)
            found = scorer.score(documents[:6])
        assert [scorer.is_finite(loss) for loss in found.loss] == [True, True, False, True, False, True]
        assert np.isposinf(found.loss[2][0])
        assert np.isnan(found.loss[4][0])


def test_text_that_spells_special_tokens_is_refused_only_where_text_is_sent(
    model: Path, tokens: Any, connect: Any
) -> None:
    ids = encode(tokens, ["a plain text", "it ends with </s>", "東京 🙂🙃 café"])
    loaded = load_float32(model)
    for kind in KIND_NAMES:
        with FakeServer(model) as server:
            found = connect(server, kind).score(ids)
            n_asked = sum(n for path, n in server.asked.items())
        refused = {1} if kind == "openai" else set()
        assert set(found.refused) == refused
        assert n_asked == 3 - len(refused)
        for i in {0, 1, 2} - refused:
            plain = plain_losses(loaded, ids[i].tolist(), prefix=0, context=60, overlap=15)
            np.testing.assert_allclose(found.loss[i], plain, rtol=1e-5, atol=1e-4)


def test_a_server_that_is_gone_ends_the_run(
    model: Path, documents: list[np.ndarray], connect: Any, no_waiting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(model) as server:
        scorer = connect(server, "vllm")
        scorer.score(documents[:3])
    with pytest.raises(ServerError, match=r"failed 12 times, the last time with no connection.*to resume"):
        scorer.score(documents[:3])
    assert client_module.MOST_TRIES == 12
