"""The scoring job: plan → read → tokenize → Scorer (actor pool) → publish. One unit in, one file out."""

import itertools
import logging
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from rho_score.attempts import clear
from rho_score.claims import claim, refuse_changed_input
from rho_score.config import ScoreConfig
from rho_score.contents import Totals, read_json
from rho_score.engine import IO_CPUS, cluster, configure_data
from rho_score.errors import InputError, RhoScoreError
from rho_score.model import (
    ModelSource,
    default_context,
    hash_tokenizer,
    load_config,
    load_tokenizer,
    model_identity,
    pinned,
    resolve_dtype,
    tokenizer_files,
)
from rho_score.passage import Passage, busy_share
from rho_score.plan import Plan, Unit, make_plan
from rho_score.progress import Progress
from rho_score.publish import publish_unit
from rho_score.read import Columns, CorpusUnits
from rho_score.retries import add_retries, retries_counted
from rho_score.schema import SCHEMA_VERSION, SIGNALS
from rho_score.scorer import DEFAULT_BATCH_TOKENS
from rho_score.storage import Folder
from rho_score.store import (
    MANIFEST,
    PLAN,
    SUCCESS,
    Accounts,
    accounts_of,
    dump_json,
    footers,
    new_manifest,
    published_units,
    quarantined_units,
    read_manifest,
    relative_url,
)
from rho_score.tokens import prefix_id, tokenize_unit
from rho_score.verify import Comparison
from rho_score.verify import verify as compare_with_plain
from rho_score.worker import ScoreUnit

log = logging.getLogger(__name__)

NODES_JOIN_S = 30.0  # nodes of a cluster that was just started join one after the other


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What a run did. `computed` counts this run's units only, `accounts` the whole score set."""

    output: str
    units: int
    computed: int
    computed_tokens: int
    accounts: Accounts
    wall_s: float
    busy_share: float
    """Share of the workers' time, from the first unit of each to its last, that the model ran."""
    padding_share: float
    """Share of padding in the positions that went through the model."""
    retries: dict[str, int]
    """Storage calls that were made again, by kind of error: the driver's, and those of the units that were published."""


@dataclass(frozen=True, kw_only=True)
class _Job:
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
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])


def score(config: ScoreConfig) -> ScoreSummary:
    """Score a corpus, or go on where an earlier run of the same command stopped.

    Raises:
        InputError: wrong usage or input, found before anything was run.
        RhoScoreError: the run failed; what it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    with retries_counted() as retries:
        workers = _worker_range(config.workers)
        _check_timeout(config.unit_timeout)
        plan = make_plan(config)
        output = Folder(config.output)
        _refuse_output_in_input(output, Folder(config.input.partition("**")[0].rstrip("/") or "."))
        found = read_manifest(output) if output.exists(MANIFEST) else None
        refuse_changed_input(output, found, plan)
        summary = _run(_prepare(config, plan, found, workers), output, started)
    return replace(summary, retries=dict(retries))


def verify(config: ScoreConfig) -> Comparison:
    """Compare what `score` would compute with a plain float32 forward, on `config.verify` random documents.

    Raises:
        InputError: as `score`.
    """
    if config.verify is None or config.verify < 1:
        raise InputError(f"--verify takes a number of documents, got {config.verify}.")
    plan = make_plan(config)
    job = _prepare(config, plan, None, _worker_range(config.workers))
    torch.set_num_threads(job.cpus)
    return compare_with_plain(config, plan, job.scorer, gpu=job.gpus > 0)


def _run(job: _Job, output: Folder, started: float) -> ScoreSummary:
    tokenizer = {f"tokenizer/{path.name}": path.read_bytes() for path in tokenizer_files(job.config.model)}
    claim(output, job.manifest, {PLAN: job.plan.to_parquet(), **tokenizer})
    done = _done(job, output)
    todo = [unit for unit in job.plan.units if unit.unit not in done]
    earlier = [unit.unit for unit in job.plan.units if unit.unit in done]
    computed: list[Accounts] = []
    passages: list[Passage] = []
    if todo:
        if earlier:
            log.info(
                "resuming: %d of %d units are published, %d to do",
                len(earlier),
                len(job.plan.units),
                len(todo),
            )
        with (
            cluster(local_cpus=job.workers[1] * job.cpus + 2),
            Progress("score", n_units=len(todo)) as progress,
        ):
            configure_data()
            _preflight(job)
            for accounts, passage in _pipeline(job, todo):
                computed.append(accounts)
                passages.append(passage)
                progress.add(documents=accounts.documents, tokens=accounts.tokens)
        clear(output)
    if not todo and output.exists(SUCCESS):
        written = read_json(output, SUCCESS, Totals)
        total = Accounts(**{name: value for name, value in written.items() if name != "units"})
    else:
        before = (
            accounts_of(output, unit, found) for unit, found in zip(earlier, footers(output, earlier), strict=True)
        )
        total = Accounts.total(itertools.chain(computed, before))
    if missing := len(todo) - len(computed):
        raise RhoScoreError(f"{missing} units were not published. Run the same command again to resume.")
    if not output.exists(SUCCESS):
        output.publish(SUCCESS, dump_json({"units": len(job.plan.units), **asdict(total)}))
    return ScoreSummary(
        output=output.url,
        units=len(job.plan.units),
        computed=len(computed),
        computed_tokens=sum(accounts.tokens for accounts in computed),
        accounts=total,
        wall_s=time.monotonic() - started,
        busy_share=busy_share(passages),
        padding_share=sum(p.padding for p in passages) / max(sum(p.positions for p in passages), 1),
        retries={},
    )


def _done(job: _Job, output: Folder) -> set[str]:
    """The units that this run need not score."""
    done = published_units(output)
    if job.config.only_quarantined:
        if left := len(job.plan.units) - len(done):
            raise InputError(
                f"--only-quarantined is for a finished run, and {left} units are left. Run without it first."
            )
        if again := quarantined_units(output):
            output.remove(SUCCESS)
            done -= again
    return done


def _pipeline(job: _Job, todo: list[Unit]) -> Iterator[tuple[Accounts, Passage]]:
    """The whole job: a block is a unit from the read task to its published file. Yields accounts as units finish."""
    low, high = job.workers
    dataset = ray.data.read_datasource(
        CorpusUnits(job.plan.root, todo, job.columns),
        override_num_blocks=len(todo),
        num_cpus=IO_CPUS,
        compute=TaskPoolStrategy(size=high),  # one unit ahead of each worker
    )
    dataset = dataset.map_batches(
        tokenize_unit,
        fn_kwargs={
            "model": job.scorer["model"].model,
            "trust_remote_code": job.config.trust_remote_code,
            "tokenizer_sha256": job.manifest["parts"]["tokenizer_sha256"],
        },
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=IO_CPUS,
        compute=TaskPoolStrategy(size=high),
    )
    dataset = dataset.map_batches(
        ScoreUnit,
        fn_constructor_kwargs={
            "scorer": job.scorer,
            "identity": job.identity,
            "threads": job.cpus,
            "gpus": job.gpus,
            "precision": job.config.precision,
            "output": job.config.output,
            "run": uuid.uuid4().hex[:8],
            "limit_s": job.config.unit_timeout,
        },
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=job.cpus,
        num_gpus=job.gpus or None,
        compute=ActorPoolStrategy(min_size=low, max_size=high, max_tasks_in_flight_per_actor=2),
    )
    dataset = dataset.map_batches(
        publish_unit,
        fn_kwargs={
            "output": job.config.output,
            "fingerprint": job.fingerprint,
            "grouped": job.config.group_column is not None,
            "signals": job.manifest["parts"]["signals"],
            "expected_rows": {unit.unit: unit.rows for unit in todo if unit.rows is not None},
        },
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=IO_CPUS,
        compute=TaskPoolStrategy(),
    )
    for row in dataset.iter_rows():
        add_retries(orjson.loads(row["retries"]))
        yield Accounts(**row["accounts"]), Passage(**row["passage"])


def _prepare(config: ScoreConfig, plan: Plan, found: dict[str, Any] | None, workers: tuple[int, int]) -> _Job:
    """Resolve every default, and the fingerprint with it. `found`: the manifest of the run that is resumed, if any."""
    gpus = float(torch.cuda.is_available()) if config.gpus_per_worker is None else config.gpus_per_worker
    if gpus > 1 and gpus != int(gpus):
        raise InputError(f"--gpus-per-worker above 1 is a whole number of GPUs, got {gpus}.")
    cpus = config.cpus_per_worker or (2 if gpus else os.cpu_count() or 1)
    trust = config.trust_remote_code
    model_config = load_config(config.model, trust_remote_code=trust)
    tokenizer = load_tokenizer(config.model, trust_remote_code=trust)
    context, overlap = _windows(config, model_config)
    _check_vocabulary(config.model, tokenizer, model_config.get_text_config().vocab_size)
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
        "prefix_id": prefix_id(tokenizer),
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
        "model": ModelSource(
            model=pinned(config.model), trust_remote_code=trust, quantize=config.quantize, n_gpus=max(1, int(gpus))
        ),
        "dtype": dtype,
        "context": context,
        "overlap": overlap,
        "prefix_id": parts["prefix_id"],
        "batch_tokens": batch_tokens,
        "signals": signals,
        "compile": config.compile,
    }
    columns = Columns(config.text_column, config.id_column, config.group_column)
    return _Job(
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
    longest = getattr(model_config, "max_position_embeddings", None)
    context = config.context or default_context(model_config)
    if longest and context > longest:
        raise InputError(f"--context {context} is more than the {longest} positions of {config.model}.")
    overlap = context // 4 if config.overlap is None else config.overlap
    if context < 2 or not 0 <= overlap < context - 1:
        raise InputError(f"--overlap {overlap} does not fit --context {context}: it must lie in 0..{context - 2}.")
    return context, overlap


def _check_vocabulary(model: str, tokenizer: Any, vocabulary: int) -> None:
    used = max(tokenizer.get_vocab().values())
    if used >= vocabulary:
        raise InputError(
            f"the tokenizer of {model} has ids up to {used}, its model a vocabulary of {vocabulary}: "
            "they do not belong together."
        )


def _check_timeout(seconds: float) -> None:
    if not 1 <= seconds < 1e8:
        raise InputError(f"--unit-timeout is a number of seconds from 1 on, got {seconds:g}.")


def _worker_range(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    try:
        found = int(low), int(high or low)
    except ValueError:
        found = (0, 0)
    if not 1 <= found[0] <= found[1]:
        raise InputError(f"--workers is N or MIN:MAX with 1 <= MIN <= MAX, got {text!r}.")
    return found


def _refuse_output_in_input(output: Folder, corpus: Folder) -> None:
    """An output inside the corpus would be read as a part of it by the next run."""
    if output.fs == corpus.fs and f"{output.path}/".startswith(f"{corpus.path}/"):
        raise InputError(f"the output {output.url} lies inside the corpus {corpus.url}. Write it beside the corpus.")


def _preflight(job: _Job) -> None:
    """Refuse a pool that leaves a fixed cluster no CPU for reading: it would wait for ever.

    A cluster that is starting has fewer nodes at first, and one that lost some has them again later: that is waited for.
    """
    need = job.workers[0] * job.cpus + 1
    have = _resources_in_time(need if not job.gpus else 0)
    if not job.gpus and 0 < have.get("CPU", 0) < need:
        short = (
            f"{job.workers[0]} workers of {job.cpus} CPUs and one CPU for reading need {need}, the cluster has "
            f"{have['CPU']:.0f}"
        )
        if all(node["Alive"] for node in ray.nodes()):
            raise InputError(f"{short}. Lower --workers or --cpus-per-worker.")
        log.warning("%s. It has lost nodes; waiting for others. Else lower --workers or --cpus-per-worker.", short)
    if not job.gpus and have.get("GPU", 0):
        log.warning("the cluster has GPUs and this run uses none; give --gpus-per-worker 1 to use them")
    if have.get("GPU", 0) < job.gpus:
        log.warning("the cluster has %s GPUs now; waiting for its autoscaler to add nodes", have.get("GPU", 0))


def _resources_in_time(cpus: int) -> dict[str, float]:
    """The cluster's resources, once it has so many CPUs or `NODES_JOIN_S` passed."""
    end = time.monotonic() + NODES_JOIN_S
    while 0 < (have := ray.cluster_resources()).get("CPU", 0) < cpus and time.monotonic() < end:
        time.sleep(1)
    return dict(have)
