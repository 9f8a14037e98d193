"""Checks and resolves every option of a training run before anything is written."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig

from rho_score.config import TextConfig, TrainConfig
from rho_score.corpus.columns import Columns
from rho_score.corpus.plan import make_plan
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.urls import absolute
from rho_score.models.directory import first_line, model_files, pinned, require_package
from rho_score.models.identity import config_identity, model_identity
from rho_score.models.model_config import load_config, longest_context
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer, prefix_id
from rho_score.stores.framing import Frame
from rho_score.stores.layout import MANIFEST
from rho_score.stores.lineage import noted_run
from rho_score.stores.manifest import new_manifest, read_manifest, relative_url
from rho_score.stores.names import absolute_named, parse_named
from rho_score.stores.score_set import ScoreSet, require_context, require_losses
from rho_score.stores.selection import Selection
from rho_score.training.blocks import frame_of
from rho_score.training.selection import SelectionRule
from rho_score.training.sources import ScoreSource, SelectionSource, Source, TextSource, check_within

SCHEMA_VERSION = 1
GPU_TOKENS, CPU_TOKENS = 8192, 4096

# What does not determine the numbers of a run. The micro-batch does where a ratio is a share of it.
_NO_PART = (
    "model", "output", "text", "scores", "selection", "within", "combine", "text_column", "group_column", "tokenizer", "eval",
    "steps", "epochs", "tokens", "batch_tokens", "micro_batch", "dtype", "save_every", "keep", "log_every", "eval_every",
    "dry_run", "workers", "gpus_per_worker", "cpus_per_worker", "max_failures", "cache", "decay", "weighted",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """Held-out documents."""

    name: str
    source: Source
    frame: Frame


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What every worker must know. It is small, and is sent to all of them."""

    config: TrainConfig
    source: Source
    frame: Frame
    rule: SelectionRule
    evals: tuple[EvalSet, ...]
    tokenizer: str
    """The model whose tokenizer is used."""
    dtype: Literal["float32", "bfloat16"]
    use_gpu: bool
    batch: int
    """Rows in a step, on all workers."""
    micro: int
    """Rows in one forward pass of a worker."""

    @property
    def accumulation(self) -> int:
        """Forward passes of each worker in a step."""
        return self.batch // (self.micro * max(1, self.config.workers))

    def steps(self, n_blocks: int) -> int:
        """The number of optimizer steps over data of so many blocks."""
        config = self.config
        if config.steps is not None:
            return config.steps
        if config.epochs is not None:
            return max(1, round(config.epochs * n_blocks / self.batch))
        assert config.tokens is not None
        return max(1, round(config.tokens / (self.batch * config.block_size)))


def resolve_settings(config: TrainConfig, *, gpu_here: bool) -> tuple[TrainSettings, JsonObject]:
    """Checks the options, opens the data, and resolves every default.

    Returns the settings and the manifest.

    Raises:
        InputError: an option is wrong, or the data and the model do not belong together.
    """
    config = _absolute(config)
    _check_options(config)
    source, store = _source(config)
    config = replace(config, model=config.model if config.from_scratch else pinned(config.model))
    tokenizer = config.tokenizer or config.model
    loaded = load_tokenizer(tokenizer)
    sha256 = hash_tokenizer(loaded)
    if store is not None and store.tokenizer_sha256 != sha256:
        raise InputError(
            f"{store.folder.url} was made with another tokenizer than that of {tokenizer}, so its token ids mean other text. "
            f"Score the corpus with a reference that has this tokenizer, or train a model with the tokenizer in {store.folder.url}."
        )
    if isinstance(source, TextSource):
        source = replace(source, model=tokenizer, tokenizer_sha256=sha256)
        frame = Frame(
            prefix_id=prefix_id(loaded), eos_id=loaded.eos_token_id, train_eos=loaded.eos_token_id is not None
        )
    else:
        assert store is not None
        frame = frame_of(store, eos_id=None, train_eos=config.train_eos)
    if config.within:
        check_within(config.within, sha256, source.unit_names)
    model_config, identity = _model(config)
    _check_model(config, model_config, max(loaded.get_vocab().values()) + 1)
    use_gpu = gpu_here if config.gpus_per_worker is None else config.gpus_per_worker == 1
    batch, micro = _batches(config, use_gpu)
    rule = SelectionRule(config.ratio, config.threshold, config.scope, config.pick)
    settings = TrainSettings(
        config=config,
        source=source,
        frame=frame,
        rule=rule,
        evals=_eval_sets(config, tokenizer, sha256, frame),
        tokenizer=tokenizer,
        dtype=_dtype(config, use_gpu),
        use_gpu=use_gpu,
        batch=batch,
        micro=micro,
    )
    return settings, _manifest(settings, identity, sha256)


def _absolute(config: TrainConfig) -> TrainConfig:
    """The configuration with absolute paths, since workers have another working directory."""

    def named(given: tuple[str, ...], option: str) -> tuple[str, ...]:
        return tuple(f"{name}={url}" for name, url in absolute_named(given, option).items())

    def maybe(url: str | None) -> str | None:
        return None if url is None else absolute(url)

    def model(name: str) -> str:
        return absolute(name) if Path(name).expanduser().exists() else name

    return replace(
        config,
        model=model(config.model),
        tokenizer=None if config.tokenizer is None else model(config.tokenizer),
        output=absolute(config.output),
        text=maybe(config.text),
        selection=maybe(config.selection),
        within=maybe(config.within),
        scores=named(config.scores, "--scores"),
        eval=named(config.eval, "--eval"),
        cache=maybe(config.cache),
    )


def _check_options(config: TrainConfig) -> None:
    given = [name for name in ("text", "scores", "selection") if getattr(config, name)]
    if len(given) != 1:
        raise InputError(f"give exactly one of --text, --scores and --selection, got {', '.join(given) or 'none'}.")
    lengths = [name for name in ("steps", "epochs", "tokens") if getattr(config, name) is not None]
    if len(lengths) != 1:
        raise InputError(f"give exactly one of --steps, --epochs and --tokens, got {', '.join(lengths) or 'none'}.")
    together = {
        "--ratio and --threshold exclude each other": config.ratio is not None and config.threshold is not None,
        "--ratio, --threshold and --pick are for --scores, which are ranked live": not config.scores
        and (config.ratio is not None or config.threshold is not None or config.pick != "excess"),
        "--pick needs --ratio": config.pick != "excess" and config.ratio is None,
        "--scope ema needs --ratio": config.scope == "ema" and config.ratio is None,
        "--weighted is for --selection": config.weighted and config.selection is None,
        "--within is for --scores and --selection": config.within is not None and config.text is not None,
        "--combine needs several --scores": config.combine != "min" and len(config.scores) < 2,
        "--train-eos is for --scores and --selection; --text always trains on it": config.train_eos
        and config.text is not None,
        "--fsdp needs several --workers": config.fsdp and config.workers == 1,
        "--fsdp does not go with --lora-rank": config.fsdp and config.lora_rank is not None,
        "--warmup and --decay are shares of one run, and must not be above 1 together": config.schedule == "wsd"
        and config.warmup + config.decay > 1,
        "--merge needs --lora-rank": config.merge and config.lora_rank is None,
        "--lora-rank needs a trained model, not --from-scratch": config.lora_rank is not None and config.from_scratch,
    }
    for message, wrong in together.items():
        if wrong:
            raise InputError(f"{message}.")
    _check_numbers(config)


def _check_numbers(config: TrainConfig) -> None:
    least = {
        "steps": 1, "tokens": 1, "block_size": 2, "batch_tokens": 1, "micro_batch": 1, "eval_every": 1, "save_every": 1,
        "keep": 0, "log_every": 1, "workers": 1, "cpus_per_worker": 1, "max_failures": 0, "lora_rank": 1,
    }  # fmt: skip
    for name, lowest in least.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            raise InputError(f"--{name.replace('_', '-')} must be at least {lowest}, got {value}.")
    if config.gpus_per_worker not in (None, 0, 1):
        raise InputError(
            f"--gpus-per-worker must be 0 or 1, got {config.gpus_per_worker}. Give more workers for more GPUs."
        )
    if config.ratio is not None and not 0 < config.ratio <= 1:
        raise InputError(f"--ratio must be above 0 and at most 1, got {config.ratio}.")
    if config.threshold is not None and not math.isfinite(config.threshold):
        raise InputError(f"--threshold must be a finite number of nats, got {config.threshold}.")
    if config.epochs is not None and not config.epochs > 0:
        raise InputError(f"--epochs must be above 0, got {config.epochs}.")
    for name in ("warmup", "decay"):
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"--{name} is a share of the steps, from 0 to 1, got {getattr(config, name)}.")
    for name in ("learning_rate", "weight_decay", "max_grad_norm"):
        if not 0 <= getattr(config, name) < math.inf:
            raise InputError(f"--{name.replace('_', '-')} must not be negative, got {getattr(config, name)}.")
    if not 0 <= config.beta2 < 1:
        raise InputError(f"--beta2 must be at least 0 and below 1, got {config.beta2}.")


def _source(config: TrainConfig) -> tuple[Source, ScoreSet | Selection | None]:
    """The documents to train on, and the store that they are from; None for text."""
    if config.text is not None:
        return _text_source(config.text, config), None
    if config.selection is not None:
        selection = SelectionSource(config.selection, config.within, weighted=config.weighted)
        selection.check()
        return selection, selection.store
    named = parse_named(config.scores, "--scores")
    scores = ScoreSource(named, config.combine, config.within)
    first = next(iter(scores.sets.values()))
    for url, other in zip(named.values(), scores.sets.values(), strict=True):
        for require in (require_losses, require_context):
            require(other, "--scores, whose losses are subtracted from the model's,")
        if other.tokenizer_sha256 != first.tokenizer_sha256 or other.plan_names() != first.plan_names():
            raise InputError(
                f"{url} and {scores.url} are not of one corpus and tokenizer, cut into the same units. Score the same corpus with "
                "the same tokenizer and --unit-bytes."
            )
    return scores, first


def _text_source(url: str, config: TrainConfig) -> TextSource:
    corpus = TextConfig(input=url, text_column=config.text_column, group_column=config.group_column)
    columns = Columns(config.text_column, None, config.group_column)
    return TextSource(make_plan(corpus), columns, model="", tokenizer_sha256="")


def _eval_sets(config: TrainConfig, tokenizer: str, sha256: str, frame: Frame) -> tuple[EvalSet, ...]:
    found = []
    for name, url in parse_named(config.eval, "--eval").items():
        source: Source
        if Folder(url).exists(MANIFEST) and read_manifest(Folder(url))["kind"] == "score set":
            source = ScoreSource({name: url})
            if source.sets[name].tokenizer_sha256 != sha256:
                raise InputError(f"--eval {name}={url} was made with another tokenizer than that of {tokenizer}.")
        else:
            source = replace(_text_source(url, config), model=tokenizer, tokenizer_sha256=sha256)
        found.append(EvalSet(name=name, source=source, frame=replace(frame, train_eos=False)))
    return tuple(found)


def _model(config: TrainConfig) -> tuple[Any, JsonObject]:
    """The model's configuration, and what identifies the model that the run begins with."""
    if not config.from_scratch:
        if config.lora_rank is not None:
            require_package("peft", "--lora-rank", extra="adapters")
            if model_files(config.model, weights=False).adapter is not None and not config.merge:
                raise InputError(
                    f"{config.model} is an adapter itself. A second one would be written without it: give --merge, which writes "
                    "the whole model."
                )
        return load_config(config.model), dict(model_identity(config.model))
    try:
        found = AutoConfig.from_pretrained(config.model)
    except Exception as error:  # a damaged file makes transformers raise errors of any kind
        raise InputError(f"there is no readable configuration at {config.model}: {first_line(error)}") from error
    return found, dict(config_identity(found))


def _check_model(config: TrainConfig, model_config: Any, n_ids: int) -> None:
    longest = longest_context(model_config)
    if longest is not None and config.block_size > longest:
        raise InputError(
            f"--block-size {config.block_size} is beyond the {longest} positions that {config.model} was made for. Give at most "
            f"{longest}."
        )
    rows = model_config.get_text_config().vocab_size
    if rows < n_ids:
        raise InputError(
            f"{config.model} has {rows} words, but the ids of the tokenizer go up to {n_ids - 1}. Give the model's own tokenizer."
        )


def _batches(config: TrainConfig, use_gpu: bool) -> tuple[int, int]:
    """Rows in a step, and in one forward pass of a worker."""
    batch = max(1, round(config.batch_tokens / config.block_size))
    if batch % config.workers:
        lower, upper = batch // config.workers * config.workers, -(-batch // config.workers) * config.workers
        choices = " or ".join(str(rows * config.block_size) for rows in (lower, upper) if rows)
        raise InputError(
            f"--batch-tokens {config.batch_tokens} is {batch} rows of {config.block_size} tokens, which {config.workers} workers "
            f"cannot share evenly. Give {choices}."
        )
    share = batch // config.workers
    most = config.micro_batch or max(1, (GPU_TOKENS if use_gpu else CPU_TOKENS) // config.block_size)
    micro = next(rows for rows in range(min(most, share), 0, -1) if share % rows == 0)
    if config.micro_batch is not None and micro != config.micro_batch:
        raise InputError(
            f"--micro-batch {config.micro_batch} does not divide the {share} rows that each worker reads in a step. Give {micro}."
        )
    return batch, micro


def _dtype(config: TrainConfig, use_gpu: bool) -> Literal["float32", "bfloat16"]:
    if config.dtype != "auto":
        return config.dtype
    return "bfloat16" if use_gpu else "float32"


def _manifest(settings: TrainSettings, identity: JsonObject, tokenizer_sha256: str) -> JsonObject:
    config = settings.config
    parts = {
        "schema_version": SCHEMA_VERSION,
        **identity,
        "tokenizer_sha256": tokenizer_sha256,
        "data": settings.source.key,
        "frame": asdict(settings.frame),
        "dtype": settings.dtype,
        "batch_rows": settings.batch,
        "ranked_rows": settings.micro * config.workers if settings.rule.ratio is not None else None,
        "decay": config.decay if config.schedule == "wsd" else None,
        "eval": {one.name: one.source.key for one in settings.evals},
        "length": {name: getattr(config, name) for name in ("steps", "epochs", "tokens")},
        **{name: value for name, value in asdict(config).items() if name not in _NO_PART},
    }
    places = {
        "text": config.text, "selection": config.selection, "within": config.within,
        "scores": parse_named(config.scores, "--scores"),
    }  # fmt: skip
    noted = {
        name: {key: relative_url(url, config.output) for key, url in value.items()}
        if isinstance(value, dict)
        else relative_url(value, config.output)
        for name, value in places.items()
        if value
    }
    model = Path(config.model).name if Path(config.model).exists() else config.model
    return new_manifest("training run", parts, model=model, data=noted, **noted_run(config.model, config.output))
