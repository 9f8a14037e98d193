"""Servers that cannot be used are refused before a run, each with its reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rho_score.config import ScoreConfig, ServerKind
from rho_score.errors import InputError, ServerError
from rho_score.models.load import ModelSource
from rho_score.scoring.server_settings import ServerSettings, checked_server
from rho_score.servers.about import Served
from rho_score.servers.check_cost import check_cost
from rho_score.servers.endpoint import Endpoint
from rho_score.servers.purse import FreePurse
from tests.conftest import make_tokenizer
from tests.fake_server import FakeServer, Faults
from tests.oracle import load_float32, plain_losses

KINDS: tuple[ServerKind, ...] = ("vllm", "sglang", "openai")
Change = Callable[[list[int], list[float]], list[float]]


@pytest.fixture(scope="module")
def model(make_model: Callable[[int], Path]) -> Path:
    return make_model(1)


@pytest.fixture(scope="module")
def other_tokenizer(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with the same ids, and two merges fewer."""
    import json

    folder = tmp_path_factory.mktemp("other")
    content = json.loads(make_tokenizer().backend_tokenizer.to_str())
    content["model"]["merges"] = content["model"]["merges"][:-40]
    backend = Tokenizer.from_str(json.dumps(content))
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def _check(server: FakeServer, model: Path, kind: ServerKind, begun: Any = None, **changes: Any) -> ServerSettings:
    purse = changes.pop("purse", FreePurse())
    settings: dict[str, Any] = {"context": 60, "overlap": 15, "prefix_id": 0} | changes
    tokenizer = AutoTokenizer.from_pretrained(model)
    served = ServerSettings(
        model=ModelSource(model=str(model)), endpoint=Endpoint.of(server.url), kind=kind, served=Served("tiny", 66, None),
        requests=4, signals=(), **settings,
    )  # fmt: skip
    return checked_server(served, tokenizer, begun, purse)


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_server_passes_and_leaves_the_losses_of_a_text(kind: ServerKind, model: Path) -> None:
    with FakeServer(model) as server:
        settings = _check(server, model, kind)
        assert settings.checked is not None
        assert settings.checked.differs == 0
        plain = plain_losses(load_float32(model), settings.checked.probe[1:], prefix=0, context=64, overlap=1)
        np.testing.assert_allclose(settings.checked.losses, plain, rtol=1e-5, atol=1e-4)
        begun = {"server": {"probe": {"input_ids": settings.checked.probe, "losses": settings.checked.losses}}}
        _check(server, model, kind, begun)
        scorer = settings.load()
        scorer.connection.client.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("prefix", "context"), [(0, 60), (None, 60), (0, 16)])
def test_what_a_check_costs_is_known_without_a_server(
    kind: ServerKind, prefix: int | None, context: int, model: Path
) -> None:
    """The check of the driver, and the text that the worker asks for."""
    purse, tokenizer = FreePurse(), AutoTokenizer.from_pretrained(model)
    cost, generates = check_cost(
        kind, tokenizer, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        prefix_id=prefix, context=context,
    )  # fmt: skip
    with FakeServer(model, least_tokens=generates) as server:
        settings = _check(server, model, kind, purse=purse, prefix_id=prefix, context=context, overlap=4)
        settings.load(purse=purse).connection.client.close()
        assert cost == purse.sent >= server.n_tokens > 100
    assert generates == (kind != "sglang")


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_another_requests_answer_does_not_make_a_good_server_wrong(kind: ServerKind, model: Path) -> None:
    with FakeServer(model, faults=Faults(0.15, seed=5, kinds=("duplicate", "swapped"))) as server:
        assert _check(server, model, kind).checked is not None
        assert sum(server.faults.fired.values()) >= 2


@pytest.mark.parametrize("prefix", [0, None])
def test_a_server_that_puts_the_prefix_in_front_is_asked_so(prefix: int | None, model: Path) -> None:
    with FakeServer(model, adds_bos=True, least_tokens=1) as server:
        if prefix is None:
            with pytest.raises(InputError, match="the server does not give the losses of our tokens"):
                _check(server, model, "openai", prefix_id=None)
        else:
            settings = _check(server, model, "openai")
            assert (settings.prefix_by_server, settings.generates) == (True, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_another_tokenizer_is_refused(kind: ServerKind, model: Path, other_tokenizer: Path) -> None:
    with (
        FakeServer(model, tokenizer=other_tokenizer) as server,
        pytest.raises(InputError, match=r"tokenizer is not that of --model|does not give the losses of our tokens"),
    ):
        _check(server, model, kind)


def _later(ids: list[int], logprobs: list[float]) -> list[float]:
    """Depends on the last token."""
    return [value - 0.01 * ids[-1] for value in logprobs]


def _noise() -> Change:
    draw = np.random.default_rng(0)
    return lambda ids, logprobs: [value - draw.uniform(0, 0.2) for value in logprobs]


def _cache() -> Change:
    """Answers what it was asked before for the beginning that it has seen."""
    seen: dict[int, float] = {}

    def change(ids: list[int], logprobs: list[float]) -> list[float]:
        if len(ids) < 40:  # smaller than a block of the cache
            return logprobs
        key = hash(tuple(ids[:20]))
        if key not in seen:
            seen[key] = 0.0
            return logprobs
        return [value - 0.5 for value in logprobs[:20]] + logprobs[20:]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_later, "depend on later tokens, so the model is not causal"),
        (_noise(), "answers the same question differently the second time"),
        (_cache(), "a cache of prefixes may be on. Start the server without it"),
        (lambda ids, logprobs: [-np.inf, *logprobs[1:]], "no probability at all"),
    ],
    ids=["not causal", "noise", "prefix cache", "infinite"],
)
def test_losses_that_mean_nothing_are_refused(change: Change, message: str, model: Path) -> None:
    with FakeServer(model, change=change, max_model_len=None) as server, pytest.raises(InputError, match=message):
        _check(server, model, "vllm", context=200)


def test_another_model_under_the_same_name_is_refused(model: Path, make_model: Callable[[int], Path]) -> None:
    with FakeServer(model) as server, FakeServer(make_model(2)) as other:
        settings = _check(server, model, "sglang")
        assert settings.checked is not None
        begun = {"server": {"probe": {"input_ids": settings.checked.probe, "losses": settings.checked.losses}}}
        with pytest.raises(InputError, match="not those of the model that the run was begun with"):
            _check(other, model, "sglang", begun)
        server.model = other.model
        with pytest.raises(ServerError, match="not those of the model that the run was begun with"):
            settings.load()


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"server_model": "m"}, "--server-model is for a model behind a server. Give its address with --server"),
    ({"price_per_million_tokens": 1.0}, "--price-per-million-tokens is for a model behind a server"),
    ({"spend_at_most": 1.0}, "--spend-at-most needs a price: give --price-per-hour, that of a worker-hour\\.$"),
    ({"price_per_hour": 0.0}, "--price-per-hour must be more than 0, got 0"),
    ({"price_per_hour": 1.0, "spend_at_most": float("nan")}, "--spend-at-most must be more than 0, got nan"),
    ({"server": "http://h", "dtype": "float32"}, "--dtype is for a model that is loaded"),
    ({"server": "http://h", "compile": False}, "--no-compile is for a model that is loaded"),
    ({"server": "http://h", "quantize": "int8"}, "--quantize is for a model that is loaded"),
    ({"server": "http://h", "batch_tokens": 9}, "--batch-tokens is for a model that is loaded"),
    ({"server": "http://h", "gpus_per_worker": 1.0}, "--gpus-per-worker is for a model that is loaded"),
    ({"server": "http://h", "signals": ("entropy",)}, "--signals entropy: a server of kind vllm does not tell it. It tells rank"),
    ({"server": "http://h", "server_kind": "sglang", "signals": ("rank",)}, "It tells no signal"),
    ({"server": "http://h", "server_requests": 0}, "--server-requests must lie between 1 and 10000, got 0"),
    ({"server": "http://h", "spend_at_most": 1.0}, "give --price-per-hour, that of a worker-hour, or --price-per-million-tokens"),
    ({"server": "http://h", "price_per_million_tokens": -1.0}, "must be more than 0, got -1"),
    ({"server": "http://h", "price_per_million_tokens": 1.0, "spend_at_most": 0.0}, "must be more than 0, got 0"),
    ({"server": "http://h", "price_per_million_tokens": 1.0, "spend_at_most": 2.0, "verify": 3}, "--verify writes nothing"),
    ({"server": "h:80"}, "--server takes an address such as"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    from rho_score.scoring.limits import check_limits

    with pytest.raises(InputError, match=message):
        check_limits(ScoreConfig(input="in", output="out", model="m", **options))
