"""Resolves the options of a scoring run, and refuses wrong ones before anything is run."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from rho_score.cluster.ray_cluster import starts_its_own
from rho_score.config import Precision, ScoreConfig, Signal
from rho_score.corpus.columns import Columns
from rho_score.corpus.content import columns_of
from rho_score.corpus.plan import Plan
from rho_score.errors import InputError
from rho_score.files.json import JsonObject
from rho_score.files.urls import absolute
from rho_score.inference.scorer import DEFAULT_BATCH_TOKENS, DEFAULT_TOP_K, Scorer
from rho_score.inference.windows import overlap_of
from rho_score.models.content import Encoder
from rho_score.models.directory import pinned
from rho_score.models.fp8 import check_fp8
from rho_score.models.identity import model_identity
from rho_score.models.load import ModelSource, refuse_quantizing_twice
from rho_score.models.model_config import default_context, load_config, longest_context, resolve_dtype
from rho_score.models.quantized import check_quantized
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer, split_id
from rho_score.scoring.content_parts import check_hidden, content_parts, hidden_parts, prefix_read
from rho_score.scoring.limits import check_vocabulary
from rho_score.scoring.preflight import default_cpus
from rho_score.scoring.reuse import noted_reuse, open_reusable
from rho_score.scoring.server_settings import (
    ServerSettings,
    about_server,
    check_same_model,
    checked_server,
    find_server,
    served_config,
    server_context,
    server_parts,
)
from rho_score.servers.endpoint import Endpoint
from rho_score.servers.purse import FreePurse, Purse
from rho_score.stores.lineage import noted_run
from rho_score.stores.manifest import fingerprint, new_manifest, relative_url
from rho_score.stores.schema import SCHEMA_VERSION, SIGNALS
from rho_score.stores.score_set import ScoreSet

# Two cores take four hours for a unit of 16 MB.
UNIT_TIMEOUT_S, CPU_UNIT_TIMEOUT_S = 4 * 3600.0, 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """The arguments that a worker loads its `Scorer` with, under their own names."""

    model: ModelSource
    dtype: str
    context: int
    overlap: int
    prefix_id: int | None
    batch_tokens: int | None
    signals: tuple[Signal, ...]
    compile: bool
    top_k: int = DEFAULT_TOP_K

    def load(self, *, gpu: bool, on_phase: Callable[[str], None]) -> Scorer:
        """Returns the loaded and checked model. `on_phase` is called with the name of each step."""
        arguments = {field.name: getattr(self, field.name) for field in fields(self)}
        return Scorer(**arguments, device="cuda" if gpu else "cpu", on_phase=on_phase)


@dataclass(frozen=True, kw_only=True)
class ScoringSettings:
    """All settings of a run, resolved by the driver and followed by the workers."""

    config: ScoreConfig
    plan: Plan
    manifest: JsonObject
    scorer: ScorerSettings | ServerSettings
    identity: dict[str, str]
    """What determines the model's losses, see `rho_score.models.identity`. Empty with a server."""
    columns: Columns
    encoder: Encoder
    workers: tuple[int, int]
    """The smallest and the largest number of model workers."""
    cpus: int
    """CPUs of each model worker."""
    gpus: float
    """GPUs of each model worker."""
    reuse: ScoreSet | None
    """The score set that losses are taken from."""

    @property
    def unit_timeout_s(self) -> float:
        """Seconds that a worker may have a unit in hand."""
        return self.config.unit_timeout or (UNIT_TIMEOUT_S if self.gpus else CPU_UNIT_TIMEOUT_S)

    @property
    def precision(self) -> Precision:
        """The precision in which losses are stored."""
        return "float32" if self.manifest["parts"]["precision"] == "float32" else "float16"

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the manifest."""
        return str(self.manifest["fingerprint"])


def resolve_settings(
    config: ScoreConfig,
    plan: Plan,
    begun: JsonObject | None,
    workers: tuple[int, int],
    *,
    done: bool = False,
    purse: Purse | None = None,
) -> ScoringSettings:
    """Returns the settings of a run, with every default resolved. A server is checked.

    begun: the manifest of the run that is resumed, or None. done: True if that run is finished, so
    that neither a server nor the score set of `--reuse` is needed. purse: pays the check of a server.

    Raises:
        InputError: an option is wrong, or the model cannot be scored with.
        ServerError: the server fails.
    """
    columns = columns_of(config)
    check_hidden(config, columns)
    scorer: ScorerSettings | ServerSettings
    if config.server is not None:
        gpus, cpus = 0.0, config.cpus_per_worker or 1
        scorer, tokenizer, vocabulary = _server_settings(config, columns, begun, done, purse or FreePurse())
        identity: dict[str, str] = {}
        about: JsonObject = server_parts(scorer)
    else:
        gpus = float(torch.cuda.is_available()) if config.gpus_per_worker is None else config.gpus_per_worker
        cpus = config.cpus_per_worker or default_cpus(workers[0], gpus=gpus)
        scorer, tokenizer, vocabulary = _scorer_settings(config, columns, begun, gpus)
        identity = model_identity(config.model)
        about = identity | {"device": "cuda" if gpus else "cpu"}
    if config.token_files is not None:
        columns = columns._replace(split_at=split_id(config.split_at, tokenizer, config.model))
    content, encoder = content_parts(config, columns, begun, tokenizer, vocabulary)
    named = {"text_column": columns.text, "id_column": columns.id, "group_column": columns.group, **content}
    named |= hidden_parts(config, columns, scorer.prefix_id)
    manifest = _manifest(config, plan, scorer, named, about | {"tokenizer_sha256": hash_tokenizer(tokenizer)})
    reuse = None
    if config.reuse is not None:
        place = relative_url(absolute(config.reuse), config.output)
        reused = noted_reuse(begun, place) if done else None
        if reused is None:
            reuse = open_reusable(config.reuse, manifest["parts"])
            reused = reuse.manifest["fingerprint"]
        if reuse is not None and isinstance(scorer, ServerSettings) and not done:
            check_same_model(scorer, reuse.manifest, f"the model of --reuse {config.reuse}", purse or FreePurse())
        parts = manifest["parts"] | {"reuse": reused}
        manifest = manifest | {"parts": parts, "fingerprint": fingerprint(parts), "reused_from": place}
    return ScoringSettings(
        config=config,
        plan=plan,
        manifest=manifest,
        scorer=scorer,
        identity=identity,
        columns=columns,
        encoder=encoder,
        workers=workers,
        cpus=cpus,
        gpus=gpus,
        reuse=reuse,
    )


def _scorer_settings(
    config: ScoreConfig, columns: Columns, begun: JsonObject | None, gpus: float
) -> tuple[ScorerSettings, Any, int]:
    """Returns the settings of the scorer, the tokenizer, and the number of ids that the model has."""
    model_config = load_config(config.model, trust_remote_code=config.trust_remote_code)
    source = ModelSource(
        model=pinned(config.model),
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
        n_gpus=max(1, int(gpus)),
    )
    refuse_quantizing_twice(source, model_config)
    check_quantized(model_config, config.model, gpu=gpus > 0, here=False)
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    longest = longest_context(model_config)
    context = config.context or default_context(model_config)
    if longest and context > longest:
        raise InputError(
            f"--context {context} is more than the {longest} positions of {config.model}. Give a smaller one."
        )
    vocabulary = model_config.get_text_config().vocab_size
    prefix = _prefix(config, columns, tokenizer, vocabulary)
    if config.dtype == "auto" and begun is not None and config.quantize != "fp8":
        dtype = str(begun.get("parts", {}).get("dtype"))  # a resumed run keeps its dtype
    else:
        dtype = resolve_dtype(config.dtype, gpu=gpus > 0, quantize=config.quantize)
    if config.quantize == "fp8":
        check_fp8(getattr(torch, dtype), gpu=gpus > 0, here=starts_its_own())
    scorer = ScorerSettings(
        model=source,
        dtype=dtype,
        context=context,
        overlap=overlap_of(config.overlap, context),
        prefix_id=prefix,
        batch_tokens=config.batch_tokens or (None if gpus else DEFAULT_BATCH_TOKENS),
        signals=tuple(signal for signal in SIGNALS if signal in config.signals),
        compile=config.compile,
        top_k=_top_k(config, vocabulary),
    )
    return scorer, tokenizer, vocabulary


def _server_settings(
    config: ScoreConfig, columns: Columns, begun: JsonObject | None, done: bool, purse: Purse
) -> tuple[ServerSettings, Any, int]:
    """Returns the settings of a scorer with a server, the tokenizer, and the number of ids that the model has."""
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    model_config = served_config(config)
    known = None if model_config is None else model_config.get_text_config().vocab_size
    vocabulary = known or max(tokenizer.get_vocab().values()) + 1
    served = find_server(config, begun, done=done, purse=purse)
    context = server_context(config, model_config, served)
    settings = ServerSettings(
        model=ModelSource(model=pinned(config.model, weights=False), trust_remote_code=config.trust_remote_code),
        endpoint=Endpoint.of(config.server or ""),
        kind=config.server_kind,
        served=served,
        requests=config.server_requests,
        context=context,
        overlap=overlap_of(config.overlap, context),
        prefix_id=_prefix(config, columns, tokenizer, vocabulary),
        signals=tuple(signal for signal in SIGNALS if signal in config.signals),
    )
    if not done:
        settings = checked_server(settings, tokenizer, begun, purse)
    return settings, tokenizer, vocabulary


def _prefix(config: ScoreConfig, columns: Columns, tokenizer: Any, vocabulary: int) -> int | None:
    """Returns the id of the prefix. Raises InputError if the tokenizer does not fit the vocabulary."""
    prefix = prefix_read(config, columns, tokenizer, vocabulary)
    check_vocabulary(config.model, tokenizer, vocabulary, prefix, special=columns.kind in ("messages", "pair"))
    return prefix


def _manifest(
    config: ScoreConfig,
    plan: Plan,
    scorer: ScorerSettings | ServerSettings,
    content: JsonObject,
    identity: JsonObject,
) -> JsonObject:
    """Returns the manifest.

    content: the columns, and what counts. identity: what determines the tokens and the model's losses, and the device.
    """
    parts = {
        "schema_version": SCHEMA_VERSION,
        **identity,
        "context": scorer.context,
        "overlap": scorer.overlap,
        "prefix_id": scorer.prefix_id,
        **content,
        "unit_bytes": config.unit_bytes,
        "plan_sha256": plan.digest,
        "signals": scorer.signals,
        "precision": config.precision or ("float32" if content.get("content_kind") == "pair" else "float16"),
    }
    about: JsonObject = {}
    if isinstance(scorer, ServerSettings):
        about["server"] = about_server(scorer)
    else:
        parts["dtype"] = scorer.dtype
        parts["batch_tokens"] = scorer.batch_tokens or "by memory"
        parts["compile"], parts["quantize"] = config.compile, config.quantize
        parts |= {"top_k": scorer.top_k} if "top-k" in scorer.signals else {}
    return new_manifest(
        "score set",
        parts,
        model=Path(config.model).name if Path(config.model).is_dir() else config.model,
        input={
            "root": relative_url(plan.root, config.output),
            "units": len(plan.units),
            "shards": len({unit.shard for unit in plan.units}),
            "not_shards": list(plan.not_shards),
            "empty_shards": list(plan.empty_shards),
        },
        **about,
        **noted_run(config.model, config.output),
    )


def _top_k(config: ScoreConfig, vocabulary: int) -> int:
    """Returns how many of the likeliest tokens the signal top-k has. Raises InputError for a wrong number."""
    if config.top_k is None:
        return min(DEFAULT_TOP_K, vocabulary)
    if "top-k" not in config.signals:
        raise InputError("--top-k needs --signals top-k.")
    if not 1 <= config.top_k <= vocabulary:
        raise InputError(f"--top-k must be between 1 and the {vocabulary} words of {config.model}, got {config.top_k}.")
    return config.top_k
