"""The scoring pipeline on Ray Data: read → tokenize → score → publish. Each block is a unit.

A pool of model workers does the scoring.
"""

import logging
import uuid
from collections.abc import Generator
from typing import Any

import orjson
import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from rho_score.corpus.units import Unit
from rho_score.files.retries import add_retries
from rho_score.scoring.live import Reporter
from rho_score.scoring.publish import PublishSettings, publish_unit
from rho_score.scoring.read import CorpusUnits
from rho_score.scoring.reuse import add_known, find_known
from rho_score.scoring.settings import ScoringSettings
from rho_score.scoring.tokenize import tokenize_unit
from rho_score.scoring.unit_stats import UnitStats
from rho_score.scoring.worker import ScoreUnit, WorkerSettings
from rho_score.stores.counts import ScoreCounts

# Reading, tokenizing and writing ask for half a CPU, because they wait for storage half of the
# time. A request that differs from the model worker's also keeps Ray from fusing them into the
# worker, where they would hold up the model.
IO_CPUS = 0.5
# Units that are read and tokenized at a time for each worker with a GPU or a server: a thread tokenizes 300,000 tokens
# a second, and a GPU scores twice as many (docs/decisions/006).
UNITS_AHEAD_OF_A_GPU = 4


def configure_data() -> None:
    """Sets up Ray Data for a run in which each block is a unit and nodes may vanish."""
    from ray.data import DataContext  # imported here because it takes a second

    context = DataContext.get_current()
    context.target_max_block_size = None  # a block is never split: block == unit
    context.execution_no_progress_timeout_s = -1  # spot nodes may be away for an hour
    context.max_consecutive_actor_init_deaths = 20  # nodes may die while a model loads
    context.enable_progress_bars = False  # `Progress` shows units and tokens
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # It warns that its bars are off.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def scored_units(
    settings: ScoringSettings, todo: list[Unit], reporter: Reporter, ledger: Any = None
) -> Generator[tuple[str, ScoreCounts, UnitStats]]:
    """Runs the pipeline; yields each unit's name, counts and statistics once it is published.

    ledger: the actor that pays units and workers (`rho_score.scoring.ledger.Ledger`), if they cost money.
    """
    low, high = settings.workers
    per_row = settings.columns.documents_per_row
    ahead_of_each = UNITS_AHEAD_OF_A_GPU if settings.gpus or settings.config.server else 1
    ahead = TaskPoolStrategy(size=min(high * ahead_of_each, len(todo)))
    dataset = ray.data.read_datasource(
        CorpusUnits(settings.plan.root, todo, settings.columns),
        override_num_blocks=len(todo),
        num_cpus=IO_CPUS,
        compute=ahead,
    )
    dataset = dataset.map_batches(
        tokenize_unit,
        fn_kwargs={
            "model": settings.scorer.model.model,
            "trust_remote_code": settings.config.trust_remote_code,
            "tokenizer_sha256": settings.manifest["parts"]["tokenizer_sha256"],
            "encoder": settings.encoder,
            "reporter": reporter,
        },
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=IO_CPUS,
        compute=ahead,
    )
    if settings.reuse is not None:
        dataset = dataset.map_batches(
            add_known,
            fn_kwargs={
                "known": ray.put(find_known(settings.reuse)),
                "signals": settings.scorer.signals,
                "prefix": settings.scorer.prefix_id is not None,
                "hidden": settings.config.hide_context,
            },
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=IO_CPUS,
            compute=ahead,
        )
    # With GPUs, `map_batches` refuses batches that are whole blocks.
    dataset = dataset.map_batches_internal(
        ScoreUnit,
        fn_constructor_kwargs={
            "settings": _worker_settings(settings),
            "reporter": reporter,
            "ledger": ledger,
        },
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=settings.cpus,
        num_gpus=settings.gpus or None,
        compute=ActorPoolStrategy(min_size=low, max_size=high, max_tasks_in_flight_per_actor=2),
    )
    dataset = dataset.map_batches(
        publish_unit,
        fn_kwargs={
            "settings": _publish_settings(settings),
            "expected_rows": {unit.unit: unit.rows * per_row for unit in todo if unit.rows is not None},
        },
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=IO_CPUS,
        compute=TaskPoolStrategy(),
    )
    for row in dataset.iter_rows():
        add_retries(orjson.loads(row["retries"]))
        yield row["unit"], ScoreCounts(**row["counts"]), UnitStats(**row["stats"])


def _worker_settings(settings: ScoringSettings) -> WorkerSettings:
    return WorkerSettings(
        scorer=settings.scorer,
        identity=settings.identity,
        threads=settings.cpus,
        gpus=settings.gpus,
        precision=settings.precision,
        hide_context=settings.config.hide_context,
        output=settings.config.output,
        run=uuid.uuid4().hex[:8],
        limit_s=settings.unit_timeout_s,
        paid_by_time=settings.config.price_per_hour is not None,
    )


def _publish_settings(settings: ScoringSettings) -> PublishSettings:
    return PublishSettings(
        output=settings.config.output,
        fingerprint=settings.fingerprint,
        grouped=settings.config.group_column is not None,
        signals=settings.scorer.signals,
        prefix=settings.scorer.prefix_id is not None,
        whole=settings.encoder.counts_all,
        hidden=settings.config.hide_context,
        again=settings.config.only_quarantined,
    )
