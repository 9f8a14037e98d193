"""Runs the processes of a training run with Ray Train.

Checkpoints are written by the workers themselves (`checkpoints`), and a worker group that starts
again goes on from the last one. So Ray Train keeps no state of a run, and a driver that dies costs
no more than a worker does.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Callable
from typing import Any

from pyarrow.fs import FSSpecHandler, PyFileSystem

from rho_score.cluster.ray_cluster import actor_here, own_error
from rho_score.cluster.room import room_for
from rho_score.errors import InputError, RhoScoreError, StorageError
from rho_score.files.folder import Folder
from rho_score.training.arguments import PATIENCE_S
from rho_score.training.settings import TrainSettings

POLL_S = 0.5


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
    resources = {"CPU": config.cpus_per_worker, **({"GPU": 1} if settings.use_gpu else {})}
    if room_for([resources] * config.workers) == "never":
        raise InputError(
            f"{config.workers} workers with {_listed(resources)} each can never start on this cluster: its autoscaler can start no "
            "nodes that would be enough. Lower --workers or --cpus-per-worker, or give the cluster more or larger nodes."
        )
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
