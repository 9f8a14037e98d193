"""The worker of the actor pool: one model, one unit at a time. Of the storage it knows only its notes, see `attempts`."""

import logging
import os
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
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
from rho_score.scoring.unit_stats import Passage, noted
from rho_score.stores.manifest import difference
from rho_score.stores.schema import SIGNALS

log = logging.getLogger(__name__)


class ScoreUnit:
    """A worker of the pool: holds the model, adds the column `loss`; `schema.TOKENIZED` → `schema.SCORED`."""

    def __init__(
        self,
        *,
        scorer: dict[str, Any],
        identity: dict[str, str],
        threads: int,
        gpus: float,
        precision: Precision,
        output: str,
        run: str,
        limit_s: float,
    ) -> None:
        logging.basicConfig(level=logging.WARNING)
        transformers.utils.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self._precision = precision
        self._refusal: RhoScoreError | None = None
        self._attempts = Attempts(output=Folder(output), run=run, node=node_name(), alive=alive_nodes, limit_s=limit_s)
        self._note = ""
        try:
            self._scorer = _load(scorer, identity, gpus)
            self._note = self._scorer.weight_note
        except RhoScoreError as error:  # an __init__ that fails is tried again on a new node; this would fail there too
            self._refusal = error
        except Exception as error:
            log.exception("the model does not load")
            self._refusal = RhoScoreError(_does_not_load(error, scorer["model"].model))

    def __call__(self, unit: pa.Table) -> pa.Table:
        if self._refusal:
            raise self._refusal
        started = time.time()
        lengths = list_lengths(unit["input_ids"])
        tokens = as_numpy(flat_values(unit["input_ids"]))
        ids = np.split(tokens, np.cumsum(lengths)[:-1]) if len(lengths) else []
        before = time.perf_counter()
        scored, poisoned = self._attempts.score(unit["unit"][0].as_py(), ids, self._scorer.score)
        model_s = time.perf_counter() - before
        errors = unit["error"].to_pylist()
        for i, loss in enumerate(scored.loss):
            if i in poisoned:
                errors[i] = f"the model fails on it: {poisoned[i]}"
            elif not self._scorer.is_finite(loss):
                errors[i] = self._scorer.overflow
        unit = unit.set_column(
            unit.schema.get_field_index("error"), SCORED.field("error"), pa.array(errors, pa.string())
        )
        for name, values in (("loss", scored.loss), *scored.signals.items()):
            field = SIGNALS.get(name, SCORED.field("loss"))
            unit = unit.append_column(
                field, list_column(_as_stored(values, field.type.value_type, self._precision), lengths)
            )
        passage = Passage(
            rescored=scored.rescored,
            positions=scored.positions,
            padding=scored.padding,
            worker=f"{os.uname().nodename}/{os.getpid()}",
            started=started,
            ended=time.time(),
            model_s=model_s,
            note=self._note,
        )
        return noted(unit, passage)


def _does_not_load(error: Exception, model: str) -> str:
    """What is to be said of an error that nobody foresaw, with the place that it came from."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{model} does not load on {os.uname().nodename}: {type(error).__name__}: {str(error).strip()[:500]} "
        f"({Path(place.filename).name}, line {place.lineno}). Nothing was scored by this worker. Where it is about memory, give "
        "larger nodes or --gpus-per-worker; else look whether `transformers` by itself loads the model, and whether every node has "
        "the packages that it needs."
    )


def _as_stored(values: list[np.ndarray], kind: pa.DataType, precision: Precision) -> pa.Array:
    """Values of all documents in a row, null for NaN: floats in this precision, ranks as integers."""
    flat = np.concatenate([np.zeros(0, np.float32), *values])
    missing = np.isnan(flat)
    if pa.types.is_integer(kind):
        return pa.array(np.where(missing, 0, flat).astype(np.int32), kind, mask=missing)
    return pa.array(flat.astype(precision).astype(np.float32), kind, mask=missing)


def _load(scorer: dict[str, Any], identity: dict[str, str], gpus: float) -> Scorer:
    """The scorer, if this node has what the run was begun with."""
    if gpus and not torch.cuda.is_available():
        raise RhoScoreError(
            "a worker was given a GPU but its torch sees none; install a CUDA build of torch on the nodes."
        )
    if differs := difference(identity, model_identity(scorer["model"].model), "the driver", "this worker"):
        raise RhoScoreError(
            f"a worker would score with something else than the run was begun with:\n{differs}\n"
            "Give every node the same model files and the same versions."
        )
    return Scorer(**scorer, device="cuda" if gpus else "cpu")
