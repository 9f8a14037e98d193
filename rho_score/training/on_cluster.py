"""Runs the processes of a training run with Ray Train.

Checkpoints are written by the workers themselves (`checkpoints`), and a worker group that starts
again goes on from the last one. So Ray Train keeps no state of a run, and a driver that dies costs
no more than a worker does.
"""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import torch
from pyarrow.fs import FSSpecHandler, PyFileSystem

from rho_score.cluster.ray_cluster import actor_here, connected, own_error
from rho_score.cluster.room import lost_nodes, n_that_fit, room_for, youngest_node
from rho_score.errors import InputError, RhoScoreError, StorageError
from rho_score.files.folder import Folder
from rho_score.training.arguments import PATIENCE_S
from rho_score.training.settings import TrainSettings

log = logging.getLogger(__name__)

POLL_S = 0.5
NODES_JOIN_S = 30.0  # nodes of a new cluster join one after the other


class StepBoard:
    """An actor that holds what rank 0 said last."""

    def __init__(self) -> None:
        self._said: tuple[str, int, int] = ("starting the workers", 0, 0)

    def tell(self, phase: str, step: int, n_steps: int) -> None:
        """Rank 0 is so far."""
        self._said = phase, step, n_steps

    def said(self) -> tuple[str, int, int]:
        """What rank 0 said last."""
        return self._said


def check_workers(settings: TrainSettings) -> None:
    """Refuses workers that can never start, for which Ray Train would wait without an end.

    Raises:
        InputError: the message says what is needed and what to lower.
    """
    workers, resources = settings.config.workers, _resources(settings)
    if not connected():
        have = torch.cuda.device_count()
        if settings.use_gpu and have < workers:
            raise InputError(
                f"{workers} workers of one GPU each need {workers}, but this machine has {have}. Set RAY_ADDRESS to a cluster that "
                "has them, or lower --workers."
            )
        return
    answer = room_for([resources] * workers)
    while answer in ("never", "silent") and time.time() < youngest_node() + NODES_JOIN_S:
        answer = room_for([resources] * workers)
    needs = f"{workers} workers with {_listed(resources)} each"
    lower = "Lower --workers or --cpus-per-worker, or give the cluster more or larger nodes."
    if answer == "never":
        raise InputError(
            f"{needs} can never start on this cluster: its autoscaler can start no nodes that would be enough. {lower}"
        )
    if answer == "silent" and n_that_fit(resources) < workers and not lost_nodes():
        raise InputError(f"{needs} never fit this cluster, whose nodes hold {n_that_fit(resources)} of them. {lower}")
    if answer not in ("there", "coming"):
        log.warning("%s have no room yet. Waiting for nodes to join or to be free.", needs)


def _resources(settings: TrainSettings) -> dict[str, int]:
    return {"CPU": settings.config.cpus_per_worker, **({"GPU": 1} if settings.use_gpu else {})}


def train_on_cluster(settings: TrainSettings, tell: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Runs `train_worker` on every worker; returns what rank 0 returned.

    Raises:
        InputError: the data or the model turned out to be unfit.
        RhoScoreError: workers died more often than --max-failures allows, or failed.
    """
    # Ray Train reads it when it is imported.
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    config = settings.config
    board = actor_here(StepBoard)
    run = Folder(config.output)
    state = f"{run.path}/.ray-train-{uuid.uuid4().hex[:8]}"
    resources = _resources(settings)
    train: Any = _train_fn  # Ray's types know no results
    trainer = TorchTrainer(
        train,
        train_loop_config={"settings": settings, "board": board},
        torch_config=TorchConfig(timeout_s=PATIENCE_S),
        scaling_config=ScalingConfig(
            num_workers=config.workers, use_gpu=settings.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="run",
            storage_path=state,
            storage_filesystem=PyFileSystem(FSSpecHandler(run.fs)),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, tell, stop), daemon=True)
    watcher.start()
    try:
        result: Any = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise RhoScoreError(_reason(error)) from error
    finally:
        stop.set()
        watcher.join()
        ray.kill(board)
        with contextlib.suppress(OSError):
            run.fs.rm(state, recursive=True)
    found = result.return_value
    if "unfit" in found:
        raise InputError(found["unfit"])
    if "failed" in found:
        raise RhoScoreError(found["failed"])
    return dict(found)


def _listed(resources: dict[str, int]) -> str:
    return " and ".join(f"{n} {kind}{'s' * (n != 1)}" for kind, n in resources.items())


def _train_fn(given: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs.

    An error that a new start cannot mend is returned, so that none is made. All ranks raise these
    errors together.
    """
    from ray.exceptions import RayError

    from rho_score.training.worker import train_worker

    board, rank = given["board"], int(os.environ.get("RANK", "0"))

    def tell(phase: str, step: int, n_steps: int) -> None:
        if rank == 0:
            with contextlib.suppress(RayError):  # the display must not end the run
                board.tell.options(num_returns=0).remote(phase, step, n_steps)

    try:
        return train_worker(given["settings"], tell)
    except InputError as error:
        return {"unfit": str(error)}
    except StorageError:
        raise
    except RhoScoreError as error:
        return {"failed": str(error)}


def _watch(board: Any, tell: Callable[[str, int, int], None], stop: threading.Event) -> None:
    """Shows what rank 0 says, until `stop` is set."""
    import ray
    from ray.exceptions import RayError

    last: tuple[str, int, int] | None = None
    while not stop.wait(POLL_S):
        with contextlib.suppress(RayError):
            said = ray.get(board.said.remote(), timeout=10)
            if said != last:
                tell(*said)
                last = said


def _reason(error: Exception) -> str:
    """What made the workers fail: the project's own error if there is one, else all that Ray says."""
    failures = getattr(error, "worker_failures", None) or {}
    own = next(filter(None, map(own_error, failures.values())), None)
    return (
        str(own)
        if own is not None
        else (f"the workers failed. Run the same command again to go on from the last checkpoint.\n{error}")
    )
