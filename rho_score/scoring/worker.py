"""The worker of the actor pool, which holds one model and scores one unit at a time.

The only files that it writes are its notes, see `attempts`.
"""

import logging
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import torch
import transformers

from rho_score.cluster.ray_cluster import alive_nodes, node_name
from rho_score.config import Precision
from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.inference.scorer import Scorer
from rho_score.models.identity import model_identity
from rho_score.scoring.attempts import Attempts
from rho_score.scoring.heartbeat import AbandonedError, Desk, Heartbeat
from rho_score.scoring.ledger import UnitPurse
from rho_score.scoring.live import Reporter, UnitReporter
from rho_score.scoring.server_settings import ServerSettings
from rho_score.scoring.settings import ScorerSettings
from rho_score.scoring.unit_stats import UnitStats, attach_stats
from rho_score.scoring.unit_work import UnitWork
from rho_score.servers.scorer import ServerScorer
from rho_score.stores.manifest import difference

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What a worker needs to know of its run."""

    scorer: ScorerSettings | ServerSettings
    identity: dict[str, str]
    """What the driver found that determines the model's losses."""
    threads: int
    gpus: float
    precision: Precision
    hide_context: bool
    """True if the model reads only the tokens that count."""
    output: str
    run: str
    """A name for this run of the driver, see `attempts`."""
    limit_s: float
    """Seconds that a unit may take."""
    paid_by_time: bool = False
    """True if the ledger counts the time of workers."""


class ScoreUnit:
    """A worker of the pool. It turns a block of `blocks.TOKENIZED` into one of `blocks.SCORED`.

    A unit that there is no money for passes through it as it is, marked as unpaid. If the time of
    workers is paid, the model loads and runs in a thread of its own, and what is under way when the
    money is gone is left to itself until this process is ended.
    """

    def __init__(self, settings: WorkerSettings, reporter: Reporter, ledger: Any = None) -> None:
        logging.basicConfig(level=logging.WARNING)
        transformers.utils.logging.disable_progress_bar()
        torch.set_num_threads(settings.threads)
        self._precision, self._reporter = settings.precision, reporter
        self._hide_context = settings.hide_context
        self._refusal: RhoScoreError | None = None
        self._attempts = Attempts(
            output=Folder(settings.output),
            run=settings.run,
            node=node_name(),
            alive=alive_nodes,
            limit_s=settings.limit_s,
        )
        self._weight_note = ""
        self._heart = Heartbeat(ledger) if settings.paid_by_time else None
        self._purse = None if ledger is None else UnitPurse(ledger, self._heart.worker if self._heart else "")
        self._desk: Desk | None = None
        self._begun = 0.0
        if self._heart is None:
            self._prepare(settings)
        else:
            self._desk = Desk(self._heart.over)
            self._desk.submit(partial(self._prepare, settings))

    def _prepare(self, settings: WorkerSettings) -> None:
        try:
            torch.set_num_threads(settings.threads)  # also for a thread of its own
            self._scorer = _load(settings, self._reporter, self._purse)
            self._weight_note = self._scorer.weight_note
            self._reporter.phase("waiting for the first unit")
        except RhoScoreError as error:  # an __init__ that fails is tried again on a new node; this would fail there too
            self._refusal = error
        except Exception as error:
            log.exception("the model does not load")
            self._refusal = RhoScoreError(_does_not_load(error, settings.scorer.model.model))

    def __call__(self, unit: pa.Table) -> pa.Table:
        if self._heart is None or self._desk is None or self._purse is None:
            return self._score(unit)
        self._heart.done, self._begun = 0, time.time()
        try:
            return self._desk.run(partial(self._score, unit))
        except AbandonedError:
            self._purse.leave(unit["unit"][0].as_py())
            given_up = UnitStats(paid=False, done=self._heart.done, started=self._begun, ended=time.time())
            return attach_stats(unit, given_up)

    def _score(self, unit: pa.Table) -> pa.Table:
        if self._refusal:
            raise self._refusal
        started = time.time()
        before = time.perf_counter()
        name = unit["unit"][0].as_py()
        work = UnitWork.of(unit, hide_context=self._hide_context)
        distinct = work.distinct
        purse, asked_again = self._purse, Counter(self._retries())
        tokens = sum(map(len, distinct))
        if purse is not None and not purse.begin(name, self._cost(distinct), tokens):
            return attach_stats(unit, UnitStats(paid=False, started=started, ended=time.time()))
        told = self._reporter.unit(name, tokens)
        score = partial(self._scorer.score, on_tokens=self._counted(told))
        if isinstance(self._scorer, ServerScorer):
            score = partial(score, n_documents=len(distinct) + work.n_known)
        scored, poisoned = work.score(lambda ids: self._attempts.score(name, ids, score, n_known=work.n_known))
        told.finished()
        if purse is not None:
            purse.end(name)
        model_s = time.perf_counter() - before
        errors = work.errors(scored, poisoned, self._scorer)
        stats = UnitStats(
            rescored=scored.rescored,
            copied=work.n_copied(errors),
            reused=work.n_known,
            positions=scored.positions,
            padding=scored.padding,
            worker=f"{os.uname().nodename}/{os.getpid()}",
            started=started,
            ended=time.time(),
            model_s=model_s,
            server_retries=orjson.dumps(dict(self._retries() - asked_again)).decode(),
            note=self._weight_note,
        )
        return attach_stats(work.table(scored, errors, self._scorer.signals, self._precision), stats)

    def _counted(self, told: UnitReporter) -> Callable[[int], None]:
        """Returns what is called with the tokens that are done; a heartbeat tells of them as well.

        It raises AbandonedError once the money is gone, so that nothing runs while the process ends.
        """
        heart = self._heart
        if heart is None:
            return told
        heart.done, self._begun = 0, time.time()

        def count(tokens: int) -> None:
            if heart.over.is_set():
                raise AbandonedError("the money is gone")
            told(tokens)
            heart.done += tokens

        return count

    def _cost(self, ids: list[np.ndarray]) -> int:
        return self._scorer.cost(ids) if isinstance(self._scorer, ServerScorer) else 0

    def _retries(self) -> Counter[str]:
        """The requests to a server that this worker made again so far."""
        return self._scorer.connection.client.retries if isinstance(self._scorer, ServerScorer) else Counter()


def _does_not_load(error: Exception, model: str) -> str:
    """The message for an unforeseen error while the model loads, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{model} does not load on {os.uname().nodename}: {type(error).__name__}: {str(error).strip()[:500]} "
        f"({Path(place.filename).name}, line {place.lineno}). Nothing was scored by this worker. Where it is about memory, give "
        "larger nodes or --gpus-per-worker; else look whether `transformers` by itself loads the model, and whether every node has "
        "the packages that it needs."
    )


def _load(settings: WorkerSettings, reporter: Reporter, purse: UnitPurse | None) -> Scorer | ServerScorer:
    """Loads the scorer.

    Raises:
        RhoScoreError: this node does not have the model, the versions or the GPU of the run; or the
            server is not the one that the driver checked.
    """
    reporter.stay()
    if isinstance(settings.scorer, ServerSettings):
        return settings.scorer.load(on_phase=reporter.phase, purse=purse)
    if settings.gpus and not torch.cuda.is_available():
        raise RhoScoreError(
            "a worker was given a GPU but its torch sees none; install a CUDA build of torch on the nodes."
        )
    reporter.phase("reading the model's files")
    here = model_identity(settings.scorer.model.model)
    if differs := difference(settings.identity, here, "the driver", "this worker"):
        raise RhoScoreError(
            f"a worker would score with something else than the run was begun with:\n{differs}\n"
            "Give every node the same model files and the same versions."
        )
    return settings.scorer.load(gpu=settings.gpus > 0, on_phase=reporter.phase)
