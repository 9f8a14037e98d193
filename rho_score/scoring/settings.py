"""Resolves the options of a scoring run, and refuses wrong ones before anything is run."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from rho_score.config import Precision, ScoreConfig, Signal
from rho_score.config.corpus import WHOLE
from rho_score.corpus.columns import Columns
from rho_score.corpus.content import columns_of
from rho_score.corpus.plan import Plan
from rho_score.errors import InputError
from rho_score.files.json import JsonObject
from rho_score.inference.scorer import DEFAULT_BATCH_TOKENS, DEFAULT_TOP_K, Scorer
from rho_score.models.content import Encoder
from rho_score.models.directory import pinned
from rho_score.models.identity import model_identity
from rho_score.models.load import ModelSource, refuse_quantizing_twice
from rho_score.models.model_config import default_context, load_config, longest_context, resolve_dtype
from rho_score.models.quantized import check_quantized
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer, resolve_prefix, split_id
from rho_score.scoring.preflight import default_cpus
from rho_score.scoring.reuse import open_reusable
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
    scorer: ScorerSettings
    identity: dict[str, str]
    """What determines the model's losses, see `rho_score.models.identity`."""
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
    config: ScoreConfig, plan: Plan, begun: JsonObject | None, workers: tuple[int, int]
) -> ScoringSettings:
    """Returns the settings of a run, with every default resolved.

    begun: the manifest of the run that is resumed, or None.

    Raises:
        InputError: an option is wrong, or the model cannot be scored with.
    """
    gpus = float(torch.cuda.is_available()) if config.gpus_per_worker is None else config.gpus_per_worker
    cpus = config.cpus_per_worker or default_cpus(workers[0], gpus=gpus)
    columns = columns_of(config)
    if config.hide_context and columns.kind in WHOLE:
        raise InputError("--hide-context is for prompts, prefixes, chats and pairs. Here every token counts.")
    scorer, tokenizer, vocabulary = _scorer_settings(config, columns, begun, gpus)
    if config.token_files is not None:
        columns = columns._replace(split_at=split_id(config.split_at, tokenizer, config.model))
    content, encoder = _content(config, columns, begun, tokenizer, vocabulary)
    identity = model_identity(config.model)
    named = {"text_column": columns.text, "id_column": columns.id, "group_column": columns.group, **content}
    named |= _hidden(config, columns, scorer)
    about = {"device": "cuda" if gpus else "cpu", "tokenizer_sha256": hash_tokenizer(tokenizer)}
    manifest = _manifest(config, plan, scorer, named, identity | about)
    reuse = None
    if config.reuse is not None:
        reuse = open_reusable(config.reuse, manifest["parts"])
        parts = manifest["parts"] | {"reuse": reuse.manifest["fingerprint"]}
        manifest = manifest | {"parts": parts, "fingerprint": fingerprint(parts)}
        manifest["reused_from"] = relative_url(reuse.folder.url, config.output)
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


def _content(
    config: ScoreConfig, columns: Columns, begun: JsonObject | None, tokenizer: Any, vocabulary: int
) -> tuple[JsonObject, Encoder]:
    """Returns the parts of the manifest on what a document holds, and the encoder.

    There are no such parts for a text. A resumed run keeps the day that it told to
    chat templates.
    """
    parts = (begun or {}).get("parts", {})
    date = config.chat_date or parts.get("chat_date") or datetime.date.today().isoformat()
    encoder = Encoder.of(
        columns.kind, tokenizer, roles=config.roles, date=date, model=config.model, vocabulary=vocabulary
    )
    if columns.kind == "text":
        return {}, encoder
    named = {"context_column": columns.context, "rejected_column": columns.rejected}
    about: JsonObject = {"content_kind": columns.kind}
    if columns.split_at is not None:
        about |= {"text_column": None, "split_at": columns.split_at}
    about |= {name: column for name, column in named.items() if column is not None}
    if columns.kind == "messages":
        about["roles"] = sorted(config.roles)
    if encoder.template:
        about["chat_template_sha256"] = encoder.template_sha256
    return about | ({"chat_date": date} if encoder.dated else {}), encoder


def _brings_prefix(config: ScoreConfig, columns: Columns) -> bool:
    """Returns True if the tokens of a document begin with a prefix of their own, if they have any."""
    return columns.kind in ("ids", "messages", "pair") and config.prefix == "auto"


def _hidden(config: ScoreConfig, columns: Columns, scorer: ScorerSettings) -> JsonObject:
    """Returns the parts of the manifest on a context that is hidden.

    `prefix_id` stays what is before a document's first token, so that the set can be compared with
    one that saw the context.
    """
    if not config.hide_context:
        return {}
    own = {"prefix_id": None} if _brings_prefix(config, columns) else {}
    return {"context_hidden": True, "hidden_prefix_id": scorer.prefix_id} | own


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
    context, overlap = _windows(config, model_config)
    vocabulary = model_config.get_text_config().vocab_size
    own = _brings_prefix(config, columns) and not config.hide_context
    prefix = None if own else resolve_prefix(config.prefix, tokenizer, vocabulary)
    _check_vocabulary(config.model, tokenizer, vocabulary, prefix, special=columns.kind in ("messages", "pair"))
    if config.dtype == "auto" and begun is not None:
        dtype = str(begun.get("parts", {}).get("dtype"))  # a resumed run keeps its dtype
    else:
        dtype = resolve_dtype(config.dtype, gpu=gpus > 0)
    scorer = ScorerSettings(
        model=source,
        dtype=dtype,
        context=context,
        overlap=overlap,
        prefix_id=prefix,
        batch_tokens=config.batch_tokens or (None if gpus else DEFAULT_BATCH_TOKENS),
        signals=tuple(signal for signal in SIGNALS if signal in config.signals),
        compile=config.compile,
        top_k=_top_k(config, vocabulary),
    )
    return scorer, tokenizer, vocabulary


def _manifest(
    config: ScoreConfig, plan: Plan, scorer: ScorerSettings, content: JsonObject, identity: dict[str, str]
) -> JsonObject:
    """Returns the manifest.

    content: the columns, and what counts. identity: what determines the tokens and the model's losses, and the device.
    """
    parts = {
        "schema_version": SCHEMA_VERSION,
        **identity,
        "dtype": scorer.dtype,
        "context": scorer.context,
        "overlap": scorer.overlap,
        "prefix_id": scorer.prefix_id,
        **content,
        "unit_bytes": config.unit_bytes,
        "plan_sha256": plan.digest,
        "batch_tokens": scorer.batch_tokens or "by memory",
        "signals": scorer.signals,
        **({"top_k": scorer.top_k} if "top-k" in scorer.signals else {}),
        "precision": config.precision or ("float32" if content.get("content_kind") == "pair" else "float16"),
        "compile": config.compile,
        "quantize": config.quantize,
    }
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


def _windows(config: ScoreConfig, model_config: Any) -> tuple[int, int]:
    """Returns context and overlap, given or by default, checked against the model."""
    longest = longest_context(model_config)
    context = config.context or default_context(model_config)
    if longest and context > longest:
        raise InputError(
            f"--context {context} is more than the {longest} positions of {config.model}. Give a smaller one."
        )
    overlap = context // 4 if config.overlap is None else config.overlap
    if context < 2 or not 0 <= overlap < context - 1:
        raise InputError(f"--overlap {overlap} does not fit --context {context}: it must lie in 0..{context - 2}.")
    return context, overlap


def _check_vocabulary(model: str, tokenizer: Any, vocabulary: int, prefix: int | None, *, special: bool) -> None:
    """special: True if documents may have special tokens.

    No text becomes one: a text that spells its name is tokenized as plain text.
    """
    never = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special and not special} - {prefix}
    used = max(set(tokenizer.get_vocab().values()) - never, default=0)
    if used >= vocabulary:
        raise InputError(
            f"the tokenizer of {model} has ids up to {used}, but its model has a vocabulary of {vocabulary}: "
            "they do not belong together. Take the model's own tokenizer."
        )


def check_limits(config: ScoreConfig) -> None:
    """Raises InputError for a number that its option does not allow."""
    seconds = config.unit_timeout
    if seconds is not None and not 1 <= seconds < 1e8:
        raise InputError(f"--unit-timeout must be at least 1 second and below 100,000,000; got {seconds:g}.")
    gpus = config.gpus_per_worker
    if gpus is not None and not (0 <= gpus < 1 or (1 <= gpus < 1e4 and gpus == int(gpus))):
        raise InputError(f"--gpus-per-worker must be a share of a GPU below 1 or a whole number of GPUs, got {gpus:g}.")
    for name in ("cpus_per_worker", "batch_tokens"):
        if (value := getattr(config, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")


def worker_range(text: str) -> tuple[int, int]:
    """Returns the (smallest, largest) number in `--workers`. Raises InputError for another form."""
    low, _, high = text.partition(":")
    try:
        found = int(low), int(high or low)
    except ValueError:
        found = (0, 0)
    if not 1 <= found[0] <= found[1]:
        raise InputError(f"--workers must be N or MIN:MAX with 1 <= MIN <= MAX, got {text!r}.")
    return found
