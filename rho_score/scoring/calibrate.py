"""Measures the speed of one worker on a sample of a corpus, with the pipeline of a run. Nothing is written."""

import random
import threading
import time
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import torch

from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import actor_here, check_own_cluster, cluster, joined
from rho_score.config import CorpusConfig, PlanConfig, ScoreConfig
from rho_score.corpus.plan import Plan, make_plan
from rho_score.errors import InputError, RhoScoreError
from rho_score.scoring.ledger import Ledger
from rho_score.scoring.limits import check_limits
from rho_score.scoring.live import LiveProgress
from rho_score.scoring.money import Budget
from rho_score.scoring.pipeline import configure_data, scored_units
from rho_score.scoring.preflight import check_pool
from rho_score.scoring.projection import Finished, Speed, measured
from rho_score.scoring.settings import ScoringSettings, resolve_settings
from rho_score.scoring.worker_time import WorkerTime

NOWHERE = "memory://rho-score-calibrate"
"""The output: the memory of each process."""
UNIT_BYTES, GPU_UNIT_BYTES = 100_000, 4_000_000
"""Units of the sample are smaller than those of a run, so that several are finished in a minute."""
MOST_UNITS = 5000
"""The sample is cut into about so many units at most."""
SAMPLED = 2000
LOOK_S = 0.25
_OF_THE_RUN = (
    "trust_remote_code", "context", "overlap", "prefix", "hide_context", "gpus_per_worker", "cpus_per_worker",
    "batch_tokens", "dtype", "quantize", "compile",
)  # fmt: skip


def check_calibrate(config: PlanConfig) -> None:
    """Raises InputError for options that do not go together with --calibrate."""
    if config.calibrate is None or not 1 <= config.calibrate <= 86400:
        raise InputError(f"--calibrate takes between 1 and 86400 seconds, got {config.calibrate}.")
    if config.model is None:
        raise InputError("--calibrate runs a model: name it with --model.")
    for name, default in (("price_per_million_tokens", None), ("tokens_per_second", None), ("server_kind", "vllm")):
        if getattr(config, name) != default:
            raise InputError(f"--calibrate measures a model that is loaded here: leave --{name.replace('_', '-')} out.")
    if not config.workers or min(config.workers) < 1:
        raise InputError(f"--workers takes numbers of at least 1, got {' '.join(map(str, config.workers))}.")
    check_limits(_score_config(config))


def calibrate(config: PlanConfig, plan: Plan) -> Speed:
    """Scores units of the corpus with one worker for about `config.calibrate` seconds, and returns its speed.

    plan: of the run.

    Raises:
        InputError: an option is wrong, or the model cannot be scored with.
        RhoScoreError: the run failed, or not one pass was done in that time.
    """
    wanted = _score_config(config)
    with Progress("calibrate") as progress, joined():
        check_own_cluster()
        progress.phase("cutting a sample")
        sample = _sample(wanted, plan)
        progress.phase("reading the model's files")
        settings = resolve_settings(wanted, sample, None, (1, 1))
        check_pool(workers=1, cpus=settings.cpus, gpus=settings.gpus)
        progress.phase("starting Ray")
        with cluster(local_cpus=settings.cpus + 2):
            speed = _measure(settings, config.calibrate or 0.0, progress)
    return replace(speed, cpus=settings.cpus, gpus=settings.gpus)


def _score_config(config: PlanConfig) -> ScoreConfig:
    corpus = {field.name: getattr(config, field.name) for field in fields(CorpusConfig)}
    of_the_run = {name: getattr(config, name) for name in _OF_THE_RUN}
    # with a price, the worker tells what it does, and can be stopped
    return ScoreConfig(**corpus, **of_the_run, output=NOWHERE, model=config.model or "", price_per_hour=1.0)


def _sample(config: ScoreConfig, plan: Plan) -> Plan:
    """Returns some units of the corpus, the same each time, in random order."""
    gpus = torch.cuda.is_available() if config.gpus_per_worker is None else config.gpus_per_worker > 0
    least = GPU_UNIT_BYTES if gpus else UNIT_BYTES
    size = min(config.unit_bytes, max(least, sum(unit.text_bytes for unit in plan.units) // MOST_UNITS))
    units = plan.units if size == config.unit_bytes else make_plan(replace(config, unit_bytes=size)).units
    return replace(plan, units=tuple(random.Random(0).sample(units, min(len(units), SAMPLED))))


def _measure(settings: ScoringSettings, seconds: float, progress: Progress) -> Speed:
    import ray

    configure_data()
    workers = WorkerTime(opened=time.monotonic(), workers=(1, 1))
    ledger = actor_here(Ledger, NOWHERE, Budget(hour_price="1", limit=None), workers)
    stop = threading.Event()
    threading.Thread(target=_stop_after, args=(ledger, seconds, stop), daemon=True).start()
    sizes = {unit.unit: float(max(unit.text_bytes, 1)) for unit in settings.plan.units}
    done: list[Finished] = []
    part: Finished | None = None
    try:
        with (
            LiveProgress(progress, sizes=sizes, before=(), most_workers=1) as live,
            closing(scored_units(settings, list(settings.plan.units), live.reporter, ledger)) as units,
        ):
            for unit, counts, stats in units:
                if not stats.paid:
                    part = Finished(tokens=stats.done, started=stats.started, ended=stats.ended)
                    break
                done.append(Finished(tokens=counts.tokens, started=stats.started, ended=stats.ended))
                live.publish(unit, counts.tokens, stats.ended - stats.started)
        start_s = float(ray.get(ledger.ready_s.remote()))
    finally:
        stop.set()
    done = sorted((one for one in done if one.tokens), key=lambda one: one.ended)
    if done:
        return measured(done, start_s)
    if part is None or not part.tokens:
        raise RhoScoreError(f"not one pass was done in {seconds:g} seconds. Give --calibrate more.")
    return replace(measured([part], start_s), units=0)


def _stop_after(ledger: Any, seconds: float, stop: threading.Event) -> None:
    """Tells the worker to end once it has worked for so long."""
    import ray
    from ray.exceptions import RayError

    while not stop.wait(LOOK_S):
        try:
            if ray.get(ledger.working_s.remote()) >= seconds:
                ray.get(ledger.stop.remote())
                return
        except RayError:  # it starts again, or the run has ended
            continue
