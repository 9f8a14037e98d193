"""The training job: trains a model in this process, or on the workers of a cluster.

OUT/manifest.json        what determines the run: model, data, rule, settings, versions
OUT/log.parquet          a row every few steps, see `stores.training_run`
OUT/eval.parquet         the held-out losses, see `stores.training_run`
OUT/tensorboard/         the log as TensorBoard's events
OUT/checkpoints/         the last checkpoints while the run goes on, see `checkpoints`
OUT/model/               the trained model and its tokenizer
OUT/_SUCCESS.json        the totals; written last
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import torch

from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import check_own_cluster, cluster, connected, joined
from rho_score.cluster.throughput import Done
from rho_score.config import TrainConfig
from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.files.paths import check_writable
from rho_score.files.urls import absolute
from rho_score.stores.claim import claim
from rho_score.stores.layout import SUCCESS
from rho_score.stores.signs import signs_of_life
from rho_score.stores.training_run import MODEL, TrainingRun
from rho_score.training.block_files import block_files, cache_folder
from rho_score.training.blocks import ScoredBlocks
from rho_score.training.checkpoints import remove_all
from rho_score.training.on_cluster import check_workers, train_on_cluster
from rho_score.training.settings import TrainSettings, resolve_settings
from rho_score.training.worker import train_worker


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What a run trained."""

    output: str
    model: str
    """The folder of the trained model."""
    steps: int
    computed: int
    """Steps of this call; the others were done before, or all of them with a dry run."""
    blocks: int
    """Rows of the data."""
    tokens_seen: int
    tokens_trained: int
    data: dict[str, int]
    """What was read of the data, see `block_files.BlockCounts`."""
    loss: float | None
    """Mean loss of the last row of the log, nats."""
    evaluations: list[dict[str, Any]]
    """Rows of `stores.training_run.EVAL_SCHEMA`, in the order of steps."""
    wall_s: float


def train(config: TrainConfig) -> TrainSummary:
    """Trains a model, or goes on from the last checkpoint of an earlier run of the same command.

    Raises:
        InputError: an option is wrong, or the model and the data do not belong together.
        RhoScoreError: the run failed. Its checkpoints stay, and the same command goes on from them.
    """
    started = time.monotonic()
    output = Folder(absolute(config.output))
    check_writable("OUTPUT", output.url)
    with joined():
        settings, manifest = resolve_settings(config, gpu_here=torch.cuda.is_available())
        if config.dry_run:
            return _foreseen(settings, started)
        if config.workers > 1:
            check_own_cluster()
        if not output.exists(SUCCESS):
            check_workers(settings)
        claim(output, manifest, {})
        computed = 0
        if not output.exists(SUCCESS):
            with signs_of_life(output, "train"):
                with Progress("train", n_units=0, unit="steps") as progress:
                    progress.workers = config.workers
                    content = _run(settings, progress)
                if not output.names(MODEL):
                    raise RhoScoreError(
                        f"the workers ended, but no model is in {output.url}/{MODEL}. Is OUTPUT on shared storage?"
                    )
                output.publish(SUCCESS, dump_json(content))
            computed = content["steps"] - content["resumed_at"]
        if config.keep:
            remove_all(output)
    return _summary(output, orjson.loads(output.read(SUCCESS)), computed, started)


def _run(settings: TrainSettings, progress: Progress) -> dict[str, Any]:
    """Runs the job; returns the content of `_SUCCESS.json`."""
    tell = _teller(progress, settings)
    if settings.config.workers == 1 and not connected():
        content = train_worker(settings, tell)
    else:
        with cluster(local_cpus=settings.config.workers * settings.config.cpus_per_worker + 1):
            content = train_on_cluster(settings, tell)
    return content


def _teller(progress: Progress, settings: TrainSettings) -> Callable[[str, int, int], None]:
    """Shows what workers tell."""
    tokens = settings.batch * settings.config.block_size
    begun, most = False, 0

    def tell(phase: str, step: int, n_steps: int) -> None:
        nonlocal begun, most
        progress.phase(phase)
        if phase or not n_steps:
            return
        if not begun:
            begun, most = True, step - 1
            progress.begin(n_units=n_steps, size=n_steps, before=Done(step - 1, (step - 1) * tokens, step - 1))
        progress.count(tokens=max(step - most, 0) * tokens, units=max(step - most, 0))
        most = max(most, step)  # workers that start again go back to their checkpoint
        progress.update(Done(step, step * tokens, step))

    return tell


def _foreseen(settings: TrainSettings, started: float) -> TrainSummary:
    """What a dry run says: nothing is trained, but the tokens are read into the local cache."""
    files = block_files(settings.source, settings.frame, cache_folder(settings.config.cache))
    blocks = ScoredBlocks.of_files(files, settings.frame, settings.config.block_size)
    n_steps = settings.steps(len(blocks))
    seen = n_steps * settings.batch * (settings.config.block_size - 1)
    share = files.counts.targets / max(1, len(blocks) * (settings.config.block_size - 1))
    if settings.rule.ratio is not None:
        share *= settings.rule.ratio
    return TrainSummary(
        output=settings.config.output,
        model=f"{settings.config.output}/{MODEL}",
        steps=n_steps,
        computed=0,
        blocks=len(blocks),
        tokens_seen=seen,
        tokens_trained=round(seen * share),
        data=files.counts.numbers(),
        loss=None,
        evaluations=[],
        wall_s=time.monotonic() - started,
    )


def _summary(output: Folder, content: dict[str, Any], computed: int, started: float) -> TrainSummary:
    return TrainSummary(
        output=output.url,
        model=f"{output.url}/{MODEL}",
        steps=content["steps"],
        computed=computed,
        blocks=content["blocks"],
        tokens_seen=content["tokens_seen"],
        tokens_trained=content["tokens_trained"],
        data=content["data"],
        loss=content["loss"],
        evaluations=TrainingRun(output).evaluations().to_pylist(),
        wall_s=time.monotonic() - started,
    )
