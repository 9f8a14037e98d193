"""The worker of the actor pool, which holds one model and scores one unit at a time.

The only files that it writes are its notes, see `attempts`.
"""

import logging
import os
import time
import traceback
from collections import Counter
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
from rho_score.files.arrow import as_numpy, flat_values, list_column, list_lengths
from rho_score.files.folder import Folder
from rho_score.inference.scorer import Scorer
from rho_score.models.identity import model_identity
from rho_score.scoring.attempts import Attempts
from rho_score.scoring.blocks import SCORED
from rho_score.scoring.copies import first_of_each, score_once
from rho_score.scoring.hidden import in_place, without_context
from rho_score.scoring.live import Reporter
from rho_score.scoring.reuse import KNOWN
from rho_score.scoring.server_settings import ServerSettings
from rho_score.scoring.settings import ScorerSettings
from rho_score.scoring.spending import UnitPurse
from rho_score.scoring.unit_stats import UnitStats, attach_stats
from rho_score.servers.scorer import ServerScorer
from rho_score.stores.manifest import difference
from rho_score.stores.schema import signal_fields

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


class ScoreUnit:
    """A worker of the pool. It turns a block of `blocks.TOKENIZED` into one of `blocks.SCORED`.

    A unit that there is no money for passes through it as it is, marked as unpaid.
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
        self._purse = None if ledger is None else UnitPurse(ledger)
        try:
            self._scorer = _load(settings, reporter, self._purse)
            self._weight_note = self._scorer.weight_note
            reporter.phase("waiting for the first unit")
        except RhoScoreError as error:  # an __init__ that fails is tried again on a new node; this would fail there too
            self._refusal = error
        except Exception as error:
            log.exception("the model does not load")
            self._refusal = RhoScoreError(_does_not_load(error, settings.scorer.model.model))

    def __call__(self, unit: pa.Table) -> pa.Table:
        if self._refusal:
            raise self._refusal
        started = time.time()
        lengths = list_lengths(unit["input_ids"])
        tokens = as_numpy(flat_values(unit["input_ids"]))
        counts = as_numpy(flat_values(unit["counts"])) if "counts" in unit.column_names else None
        ids = _documents(tokens, lengths)
        which = None if counts is None or not self._hide_context else _documents(counts, lengths)
        read = ids if which is None else without_context(ids, which)
        before = time.perf_counter()
        name = unit["unit"][0].as_py()
        known = as_numpy(unit[KNOWN]) if KNOWN in unit.column_names else np.zeros(len(ids), bool)
        todo = np.flatnonzero(~known).tolist()
        todo_ids = [read[i] for i in todo]
        first = first_of_each(todo_ids)
        purse, asked_again = self._purse, Counter(self._retries())
        if purse is not None and not purse.begin(name, self._cost([todo_ids[i] for i in sorted(set(first))])):
            return attach_stats(unit, UnitStats(paid=False, started=started, ended=time.time()))
        told = self._reporter.unit(name, sum(len(todo_ids[i]) for i in set(first)))
        score = partial(self._scorer.score, on_tokens=told)
        scored, poisoned = score_once(todo_ids, first, lambda distinct: self._attempts.score(name, distinct, score))
        told.finished()
        if purse is not None:
            purse.end(name)
        model_s = time.perf_counter() - before
        errors = unit["error"].to_pylist()
        for at, (i, loss) in enumerate(zip(todo, scored.loss, strict=True)):
            if at in poisoned:
                errors[i] = f"the model fails on it: {poisoned[at]}"
            elif at in scored.refused:
                errors[i] = scored.refused[at]
            elif not self._scorer.is_finite(loss):
                errors[i] = self._scorer.overflow
        unit = unit.set_column(
            unit.schema.get_field_index("error"), SCORED.field("error"), pa.array(errors, pa.string())
        )
        of = {"loss": scored.loss, **scored.signals}
        none = [np.full(len(document), np.nan, np.float32) for document in todo_ids]  # if the only document fails
        for field in (SCORED.field("loss"), *signal_fields(self._scorer.signals)):
            values = of.get(field.name, none)
            placed = values if which is None else in_place(values, [which[i] for i in todo])
            every = _with_known(unit, field.name, todo, placed, ids)
            stored = _as_stored(every, counts, field.type.value_type, self._precision)
            unit = unit.append_column(field, list_column(stored, lengths))
        stats = UnitStats(
            rescored=scored.rescored,
            copied=sum(
                of != at and errors[i] is None and len(todo_ids[at]) > 0
                for at, (i, of) in enumerate(zip(todo, first, strict=True))
            ),
            reused=len(ids) - len(todo),
            positions=scored.positions,
            padding=scored.padding,
            worker=f"{os.uname().nodename}/{os.getpid()}",
            started=started,
            ended=time.time(),
            model_s=model_s,
            server_retries=orjson.dumps(dict(self._retries() - asked_again)).decode(),
            note=self._weight_note,
        )
        return attach_stats(unit, stats)

    def _cost(self, ids: list[np.ndarray]) -> int:
        return self._scorer.cost(ids) if isinstance(self._scorer, ServerScorer) else 0

    def _retries(self) -> Counter[str]:
        """The requests to a server that this worker made again so far."""
        return self._scorer.connection.client.retries if isinstance(self._scorer, ServerScorer) else Counter()


def _documents(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The values of each document, from those of all tokens."""
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _does_not_load(error: Exception, model: str) -> str:
    """The message for an unforeseen error while the model loads, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{model} does not load on {os.uname().nodename}: {type(error).__name__}: {str(error).strip()[:500]} "
        f"({Path(place.filename).name}, line {place.lineno}). Nothing was scored by this worker. Where it is about memory, give "
        "larger nodes or --gpus-per-worker; else look whether `transformers` by itself loads the model, and whether every node has "
        "the packages that it needs."
    )


def _with_known(
    unit: pa.Table, name: str, todo: list[int], values: list[np.ndarray], ids: list[np.ndarray]
) -> list[np.ndarray]:
    """The values of all documents: of the documents `todo` those that were computed, of the others the known ones."""
    if len(todo) == len(ids):
        return values
    known = as_numpy(flat_values(unit[f"{KNOWN}_{name}"]))
    every = np.split(known, np.cumsum([len(document) for document in ids])[:-1])
    for i, value in zip(todo, values, strict=True):
        every[i] = value
    return every


def _as_stored(
    values: list[np.ndarray], counts: np.ndarray | None, kind: pa.DataType, precision: Precision
) -> pa.Array:
    """The values of all documents as one array, with null for NaN and for tokens that do not count.

    values: float32[n] for each document, or float32[n, k] where a token has a list of k. counts:
    bool[n_tokens]; None if all tokens count. Floats are rounded to `precision`, and ids and ranks
    are integers.
    """
    if pa.types.is_list(kind):
        rows = np.concatenate([np.atleast_2d(of.T).T for of in values]) if values else np.zeros((0, 1), np.float32)
        return _as_lists(rows, counts, kind, precision)
    flat = np.concatenate([np.zeros(0, np.float32), *values])
    missing = np.isnan(flat) if counts is None else np.isnan(flat) | ~counts
    if pa.types.is_integer(kind):
        return pa.array(np.where(missing, 0, flat).astype(np.int32), kind, mask=missing)
    return pa.array(flat.astype(precision).astype(np.float32), kind, mask=missing)


def _as_lists(values: np.ndarray, counts: np.ndarray | None, kind: pa.DataType, precision: Precision) -> pa.Array:
    """What `_as_stored` returns for float32[n_tokens, k]."""
    n, k = values.shape
    missing = np.isnan(values).any(axis=1)
    if counts is not None:
        missing |= ~counts
    known = np.where(missing[:, None], 0, values).ravel()
    is_integer = pa.types.is_integer(kind.value_type)
    items = known.astype(np.int32) if is_integer else known.astype(precision).astype(np.float32)
    offsets = pa.array(np.arange(0, (n + 1) * k, k, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(items), mask=pa.array(missing))


def _load(settings: WorkerSettings, reporter: Reporter, purse: UnitPurse | None) -> Scorer | ServerScorer:
    """Loads the scorer.

    Raises:
        RhoScoreError: this node does not have the model, the versions or the GPU of the run; or the
            server is not the one that the driver checked.
    """
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
