"""The scoring pipeline on Ray Data: read → tokenize → score (a pool of model workers) → publish, a block a unit."""

import logging
import uuid
from collections.abc import Iterator

import orjson
import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from rho_score.corpus.units import Unit
from rho_score.files.retries import add_retries
from rho_score.scoring.publish import publish_unit
from rho_score.scoring.read import CorpusUnits
from rho_score.scoring.settings import Job
from rho_score.scoring.tokenize import tokenize_unit
from rho_score.scoring.unit_stats import Passage
from rho_score.scoring.worker import ScoreUnit
from rho_score.stores.counts import Accounts

# Reading, tokenizing and writing ask for half a CPU: half their time they wait for storage, and a request unlike the
# model worker's keeps Ray from fusing them into it, where they would stop the model.
IO_CPUS = 0.5


def configure_data() -> None:
    """Set Ray Data up for a run of a block a unit on nodes that vanish."""
    from ray.data import DataContext  # a second to import, for those who need it

    context = DataContext.get_current()
    context.target_max_block_size = None  # a block is never split: block == unit
    context.execution_no_progress_timeout_s = -1  # spot nodes may be away for an hour
    context.max_consecutive_actor_init_deaths = 20  # nodes die while a model loads; a broken model is found before
    context.enable_progress_bars = False  # ours counts units, documents and tokens
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off


# Read and tokenized before a worker asks: a thread tokenizes 300,000 tokens a second, a GPU scores twice as many (docs/decisions/006).
UNITS_AHEAD_OF_A_GPU = 4


def _pipeline(job: Job, todo: list[Unit]) -> Iterator[tuple[Accounts, Passage]]:
    """The whole job: a block is a unit from the read task to its published file. Yields accounts as units finish."""
    low, high = job.workers
    ahead = TaskPoolStrategy(size=high * (UNITS_AHEAD_OF_A_GPU if job.gpus else 1))
    dataset = ray.data.read_datasource(
        CorpusUnits(job.plan.root, todo, job.columns),
        override_num_blocks=len(todo),
        num_cpus=IO_CPUS,
        compute=ahead,
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
        compute=ahead,
    )
    dataset = dataset.map_batches_internal(  # with GPUs, `map_batches` refuses batches that are whole blocks
        ScoreUnit,
        fn_constructor_kwargs={
            "scorer": job.scorer,
            "identity": job.identity,
            "threads": job.cpus,
            "gpus": job.gpus,
            "precision": job.config.precision,
            "output": job.config.output,
            "run": uuid.uuid4().hex[:8],
            "limit_s": job.unit_timeout_s,
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
            "prefix": job.manifest["parts"]["prefix_id"] is not None,
            "again": job.config.only_quarantined,
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
