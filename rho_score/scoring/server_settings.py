"""Resolves the options of a run with a server, and checks the server before anything is scored."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from rho_score.config import ScoreConfig, ServerKind, Signal
from rho_score.errors import InputError, ServerError
from rho_score.files.json import JsonObject
from rho_score.models.directory import model_files
from rho_score.models.encode import encode_special
from rho_score.models.load import ModelSource
from rho_score.models.model_config import LONGEST_DEFAULT_CONTEXT, default_context, load_config, longest_context
from rho_score.models.tokenizer import load_tokenizer
from rho_score.servers.about import Served, find_served
from rho_score.servers.check import Checked, Tokenize, check, compare_probe, style_ids, style_of
from rho_score.servers.client import Client, DeniedError
from rho_score.servers.connection import Connection
from rho_score.servers.endpoint import Endpoint
from rho_score.servers.kinds import SIGNALS, protocol_of
from rho_score.servers.purse import Purse, UnpaidError
from rho_score.servers.scorer import ServerScorer

log = logging.getLogger(__name__)

BESIDE_CONTEXT = 2
"""Tokens of a request besides its context: the last one, which is only predicted, and one that may
be generated."""
BEGUN_WITH = "the model that the run was begun with"
CHECK_TRIES = 4
"""Tries of a request of the check, so that a server that is not there is known within seconds."""
_OF_A_LOADED_MODEL = {
    "dtype": "auto", "quantize": None, "compile": True, "batch_tokens": None,
}  # fmt: skip
"""Options that mean nothing with a server, and what they are if they are not given."""
_OF_A_SERVER = {
    "server_kind": "vllm", "server_model": None, "server_requests": 32, "price_per_million_tokens": None,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a worker needs in order to score with a server."""

    model: ModelSource
    """The model whose tokenizer the documents are tokenized with. Its weights are not loaded."""
    endpoint: Endpoint
    kind: ServerKind
    served: Served
    requests: int
    context: int
    overlap: int
    prefix_id: int | None
    signals: tuple[Signal, ...]
    prefix_by_server: bool = False
    generates: int = 0
    checked: Checked | None = None
    """What the driver found. None: the server is not asked."""

    def load(
        self, *, gpu: bool = False, on_phase: Callable[[str], None] = log.debug, purse: Purse | None = None
    ) -> ServerScorer:
        """Returns the scorer, once the server has given the losses that it gave the driver.

        gpu: not used; a loaded model has the same method. purse: pays the requests.

        Raises:
            ServerError: the server gives other losses than it gave the driver, denies every
                request, or fails until the tries end.
        """
        on_phase("asking the server")
        connection = self.connection(Client(self.endpoint, requests=self.requests, purse=purse))
        try:
            if self.checked is not None:
                compare_probe(connection, self.checked.probe, self.checked.losses, BEGUN_WITH)
        except InputError as error:
            raise ServerError(str(error)) from error
        except UnpaidError:
            log.warning("there is no money to ask the server whether it is the same, and none for units either")
        return ServerScorer(
            connection, context=self.context, overlap=self.overlap, prefix_id=self.prefix_id, signals=self.signals
        )

    def connection(self, client: Client) -> Connection:
        """The model, asked through this client."""
        protocol = protocol_of(
            self.kind,
            lambda: load_tokenizer(self.model.model, trust_remote_code=self.model.trust_remote_code),
            prefix_id=self.prefix_id,
            prefix_by_server=self.prefix_by_server,
            generates=self.generates,
        )
        return Connection(client, protocol, self.served.model)


def check_server_options(config: ScoreConfig) -> None:
    """Raises InputError for options that do not go together with a server, or with none."""
    if config.server is None:
        if given := _given(config, _OF_A_SERVER):
            raise InputError(f"{given} is for a model behind a server. Give its address with --server.")
        return
    if given := _given(config, _OF_A_LOADED_MODEL):
        raise InputError(f"{given} is for a model that is loaded, and means nothing with --server. Leave it out.")
    if config.gpus_per_worker:
        raise InputError("--gpus-per-worker is for a model that is loaded. With --server, no worker has a GPU.")
    known = SIGNALS[config.server_kind]
    if unknown := [signal for signal in config.signals if signal not in known]:
        raise InputError(
            f"--signals {unknown[0]}: a server of kind {config.server_kind} does not tell it. "
            + (f"It tells {', '.join(known)}." if known else "It tells no signal.")
        )
    if not 1 <= config.server_requests <= 10_000:
        raise InputError(f"--server-requests must lie between 1 and 10000, got {config.server_requests}.")
    Endpoint.of(config.server)


def _given(config: ScoreConfig, defaults: dict[str, Any]) -> str:
    """The first option of these that is not at its default, as it is written; empty if there is none."""
    names = [name for name, default in defaults.items() if getattr(config, name) != default]
    if not names:
        return ""
    return "--no-compile" if names[0] == "compile" else f"--{names[0].replace('_', '-')}"


def served_config(config: ScoreConfig) -> Any:
    """The configuration of the model, whose weights need not be there; None without a config.json."""
    if not (model_files(config.model, weights=False).base / "config.json").exists():
        return None
    return load_config(config.model, trust_remote_code=config.trust_remote_code, weights=False)


def server_context(config: ScoreConfig, model_config: Any, served: Served) -> int:
    """The context, given or by default, checked against the server and the model.

    Raises:
        InputError: it is longer than they allow.
    """
    longest = (longest_context(model_config) if model_config is not None else None) or LONGEST_DEFAULT_CONTEXT
    if served.max_tokens is not None:
        longest = served.max_tokens - BESIDE_CONTEXT
    if config.context is None:
        most = LONGEST_DEFAULT_CONTEXT if model_config is None else default_context(model_config)
        if longest < most:
            log.warning(
                "the context is %d, because the server takes %d tokens. Scores of other models to compare with need the same --context.",
                longest, served.max_tokens,
            )  # fmt: skip
        return min(longest, most)
    if config.context > longest and (served.max_tokens is not None or model_config is not None):
        raise InputError(
            f"--context {config.context} is more than the {longest} tokens that the server leaves for it. Give a smaller one, or "
            "start the server for longer texts (vLLM: --max-model-len; SGLang: --context-length)."
        )
    return config.context


def find_server(config: ScoreConfig, begun: JsonObject | None, *, done: bool, purse: Purse) -> Served:
    """The served model, asked of the server, or as the store notes it if the run is done.

    Raises:
        InputError: the server does not serve the model, or denies the request.
        ServerError: it does not answer.
    """
    noted = (begun or {}).get("parts", {}).get("server_model")
    if done and begun is not None and noted is not None:
        about = begun.get("server", {})
        return Served(config.server_model or str(noted), about.get("max_tokens"), about.get("version"))
    client = Client(Endpoint.of(config.server or ""), requests=1, purse=purse, tries=CHECK_TRIES)
    try:
        return find_served(client, config.server_kind, config.server_model)
    except DeniedError as error:
        raise InputError(str(error)) from error
    finally:
        client.close()


def checked_server(settings: ServerSettings, tokenizer: Any, begun: JsonObject | None, purse: Purse) -> ServerSettings:
    """The settings with what the check of the server found.

    begun: the manifest of the run that is resumed. Its server gave the same losses, or another
    model is served under the same name now.

    Raises:
        InputError: the server cannot be used, or is not the one of the run that is resumed.
        ServerError: it fails until the tries end.
    """
    client = Client(settings.endpoint, requests=settings.requests, purse=purse, tries=CHECK_TRIES)

    tokenize = partial(encode_special, tokenizer)
    try:
        if settings.kind == "openai":
            settings = _in_its_style(settings, client, tokenize)
        connection = settings.connection(client)
        checked = check(connection, tokenize, prefix_id=settings.prefix_id, context=settings.context)
        log.info("the server repeats its losses within %.1e nats on average", checked.differs)
        _compare_with(begun, connection, BEGUN_WITH)
    except DeniedError as error:
        raise InputError(str(error)) from error
    finally:
        client.close()
    return replace(settings, checked=checked)


def check_same_model(settings: ServerSettings, scores: JsonObject, what: str, purse: Purse) -> None:
    """Asks the server whether it has the model that a score set was made with.

    scores: the manifest of the score set. what: says whose model it was.

    Raises:
        InputError: the server gives other losses.
        ServerError: it fails until the tries end.
    """
    client = Client(settings.endpoint, requests=1, purse=purse, tries=CHECK_TRIES)
    try:
        _compare_with(scores, settings.connection(client), what)
    except DeniedError as error:
        raise InputError(str(error)) from error
    finally:
        client.close()


def _compare_with(scores: JsonObject | None, connection: Connection, what: str) -> None:
    """Raises InputError unless the server gives the losses that a manifest notes, if it notes any."""
    if (noted := (scores or {}).get("server", {}).get("probe")) is not None:
        compare_probe(connection, noted["input_ids"], noted["losses"], what)


def _in_its_style(settings: ServerSettings, client: Client, tokenize: Tokenize) -> ServerSettings:
    by_server, generates = style_of(
        lambda by_server, generates: replace(settings, prefix_by_server=by_server, generates=generates).connection(
            client
        ),
        style_ids(tokenize, settings.prefix_id),
        styles=(False,) if settings.prefix_id is None else (False, True),
    )
    return replace(settings, prefix_by_server=by_server, generates=generates)


def server_parts(settings: ServerSettings) -> JsonObject:
    """The parts of a manifest that determine the losses of a served model."""
    return {
        "server_kind": settings.kind,
        "server_model": settings.served.model,
        "transformers": version("transformers"),
    }


def about_server(settings: ServerSettings) -> JsonObject:
    """What a manifest notes of a server besides: what it told, and the losses of a short text."""
    checked = settings.checked
    about: JsonObject = {"version": settings.served.version, "max_tokens": settings.served.max_tokens}
    if checked is not None:
        about["probe"] = {"input_ids": checked.probe, "losses": checked.losses}
    return about
