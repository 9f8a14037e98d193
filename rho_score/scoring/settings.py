"""What a scoring run is made of: every option resolved, every wrong one refused, before anything is run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rho_score.config import ScoreConfig
from rho_score.corpus.columns import Columns
from rho_score.corpus.plan import Plan
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.inference.scorer import DEFAULT_BATCH_TOKENS
from rho_score.models.directory import pinned
from rho_score.models.identity import model_identity
from rho_score.models.load import (
    ModelSource,
    default_context,
    load_config,
    longest_context,
    refuse_quantizing_twice,
    resolve_dtype,
)
from rho_score.models.quantized import check_quantized
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer, resolve_prefix
from rho_score.scoring.preflight import default_cpus
from rho_score.stores.manifest import new_manifest, relative_url
from rho_score.stores.schema import SCHEMA_VERSION, SIGNALS

UNIT_TIMEOUT_S, CPU_UNIT_TIMEOUT_S = 4 * 3600.0, 24 * 3600.0  # two cores take four hours for a unit of 16 MB


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a run is made of, resolved: what the driver decides and the workers obey."""

    config: ScoreConfig
    plan: Plan
    manifest: dict[str, Any]
    scorer: dict[str, Any]
    identity: dict[str, str]
    columns: Columns
    workers: tuple[int, int]
    cpus: int
    gpus: float

    @property
    def unit_timeout_s(self) -> float:
        """Seconds that a worker may have a unit in hand."""
        return self.config.unit_timeout or (UNIT_TIMEOUT_S if self.gpus else CPU_UNIT_TIMEOUT_S)

    @property
    def fingerprint(self) -> str:
        """Of the manifest."""
        return str(self.manifest["fingerprint"])


def prepare_job(config: ScoreConfig, plan: Plan, found: dict[str, Any] | None, workers: tuple[int, int]) -> Job:
    """Resolve every default, and the fingerprint with it. `found`: the manifest of the run that is resumed, if any."""
    gpus = float(torch.cuda.is_available()) if config.gpus_per_worker is None else config.gpus_per_worker
    cpus = config.cpus_per_worker or default_cpus(workers[0], gpus=gpus)
    trust = config.trust_remote_code
    model_config = load_config(config.model, trust_remote_code=trust)
    source = ModelSource(
        model=pinned(config.model), trust_remote_code=trust, quantize=config.quantize, n_gpus=max(1, int(gpus))
    )
    refuse_quantizing_twice(source, model_config)
    check_quantized(model_config, config.model, gpu=gpus > 0, here=False)
    tokenizer = load_tokenizer(config.model, trust_remote_code=trust)
    context, overlap = _windows(config, model_config)
    vocabulary = model_config.get_text_config().vocab_size
    prefix = resolve_prefix(config.prefix, tokenizer, vocabulary)
    _check_vocabulary(config.model, tokenizer, vocabulary, prefix)
    if config.dtype == "auto" and found is not None:
        dtype = str(found.get("parts", {}).get("dtype"))  # a resumed run goes on in the dtype it has
    else:
        dtype = resolve_dtype(config.dtype, gpu=gpus > 0)
    identity = model_identity(config.model)
    batch_tokens = config.batch_tokens or (None if gpus else DEFAULT_BATCH_TOKENS)
    signals = [signal for signal in SIGNALS if signal in config.signals]
    parts = {
        "schema_version": SCHEMA_VERSION,
        **identity,
        "tokenizer_sha256": hash_tokenizer(tokenizer),
        "device": "cuda" if gpus else "cpu",
        "dtype": dtype,
        "context": context,
        "overlap": overlap,
        "prefix_id": prefix,
        "text_column": config.text_column,
        "id_column": config.id_column,
        "group_column": config.group_column,
        "unit_bytes": config.unit_bytes,
        "plan_sha256": plan.digest,
        "batch_tokens": batch_tokens or "by memory",
        "signals": signals,
        "precision": config.precision,
        "compile": config.compile,
        "quantize": config.quantize,
    }
    manifest = new_manifest(
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
    )
    scorer = {
        "model": source,
        "dtype": dtype,
        "context": context,
        "overlap": overlap,
        "prefix_id": prefix,
        "batch_tokens": batch_tokens,
        "signals": signals,
        "compile": config.compile,
    }
    columns = Columns(config.text_column, config.id_column, config.group_column)
    return Job(
        config=config,
        plan=plan,
        manifest=manifest,
        scorer=scorer,
        identity=identity,
        columns=columns,
        workers=workers,
        cpus=cpus,
        gpus=gpus,
    )


def _windows(config: ScoreConfig, model_config: Any) -> tuple[int, int]:
    """Context and overlap, given or by default, checked against the model."""
    longest = longest_context(model_config)
    context = config.context or default_context(model_config)
    if longest and context > longest:
        raise InputError(f"--context {context} is more than the {longest} positions of {config.model}.")
    overlap = context // 4 if config.overlap is None else config.overlap
    if context < 2 or not 0 <= overlap < context - 1:
        raise InputError(f"--overlap {overlap} does not fit --context {context}: it must lie in 0..{context - 2}.")
    return context, overlap


def _check_vocabulary(model: str, tokenizer: Any, vocabulary: int, prefix: int | None) -> None:
    never = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {prefix}
    used = max(set(tokenizer.get_vocab().values()) - never, default=0)  # a text that spells a special token is text
    if used >= vocabulary:
        raise InputError(
            f"the tokenizer of {model} has ids up to {used}, its model a vocabulary of {vocabulary}: "
            "they do not belong together."
        )


def check_limits(config: ScoreConfig) -> None:
    """Raises InputError for a number that is none of what it stands for."""
    seconds = config.unit_timeout
    if seconds is not None and not 1 <= seconds < 1e8:
        raise InputError(f"--unit-timeout is a number of seconds from 1 on, got {seconds:g}.")
    gpus = config.gpus_per_worker
    if gpus is not None and not (0 <= gpus < 1 or (1 <= gpus < 1e4 and gpus == int(gpus))):
        raise InputError(f"--gpus-per-worker is a share of a GPU below 1 or a whole number of GPUs, got {gpus:g}.")
    for name in ("cpus_per_worker", "batch_tokens"):
        if (value := getattr(config, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is at least 1, got {value}.")


def worker_range(text: str) -> tuple[int, int]:
    """(least, most) of `--workers`; raises InputError."""
    low, _, high = text.partition(":")
    try:
        found = int(low), int(high or low)
    except ValueError:
        found = (0, 0)
    if not 1 <= found[0] <= found[1]:
        raise InputError(f"--workers is N or MIN:MAX with 1 <= MIN <= MAX, got {text!r}.")
    return found


def refuse_output_in_input(output: Folder, corpus: Folder) -> None:
    """An output inside the corpus would be read as a part of it by the next run."""
    if output.fs == corpus.fs and f"{output.path}/".startswith(f"{corpus.path}/"):
        raise InputError(f"the output {output.url} lies inside the corpus {corpus.url}. Write it beside the corpus.")
