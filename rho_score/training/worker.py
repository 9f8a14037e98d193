"""What one process of a training run does. It is the only one, or one of several ranks."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import orjson
import transformers
from transformers import PrinterCallback, ProgressCallback

from rho_score.cluster import metrics
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.models.tokenizer import load_tokenizer
from rho_score.models.vocabulary import Vocabulary
from rho_score.stores.framing import Frame
from rho_score.stores.layout import MANIFEST
from rho_score.stores.manifest import read_manifest
from rho_score.stores.training_run import MODEL
from rho_score.training.arguments import arguments
from rho_score.training.block_files import BlockFiles, block_files, cache_folder
from rho_score.training.blocks import ScoredBlocks
from rho_score.training.checkpoints import checkpoints, complete, download, upload
from rho_score.training.events import TENSORBOARD, Events
from rho_score.training.held_out import HeldOut
from rho_score.training.log import RunLog
from rho_score.training.model import check_isolation
from rho_score.training.order import Order, RankPlaces
from rho_score.training.ranks import Ranks
from rho_score.training.selection import TokenSelection
from rho_score.training.settings import EvalSet, TrainSettings
from rho_score.training.sources import Source
from rho_score.training.start_model import start_model
from rho_score.training.trainer import BetweenSteps, RankBlocks, SelectiveTrainer

STATE = "selection.json"
SHARES = 10
"""Evaluations and checkpoints of a run, where the user does not say how many."""
LEAST_SAVED, MOST_SAVED = 100, 1000
"""Steps between two checkpoints, then, at least and at most."""

Tell = Callable[[str, int, int], None]
"""Shows progress: what is going on, or "" for a step; steps that are done; steps in all."""


def train_worker(settings: TrainSettings, tell: Tell) -> dict[str, Any]:
    """Trains to the end, from the last checkpoint on; returns what the run's totals are made of.

    Raises:
        InputError: the data or the model turn out to be unfit.
        RhoScoreError: a unit or a checkpoint is damaged, or the loss is not a number any more.
    """
    config, ranks, run = settings.config, Ranks(), Folder(settings.config.output)
    _quiet()
    blocks, held_out = ranks.together(lambda: _data(settings, tell))
    metrics.begin(run.url, read_manifest(run)["fingerprint"], "train")
    n_steps = settings.steps(len(blocks))
    with tempfile.TemporaryDirectory(prefix="rho-score-train-") as temporary, ExitStack() as end:
        # Rank 0 looks for all: a listing may lag on one of them.
        (last,) = ranks.gather(checkpoints(run)[-1:] if ranks.rank == 0 else [])[0] or (None,)
        begun = last.step if last else 0
        selection = TokenSelection(settings.rule)
        log = RunLog.resume(run, begun)
        if ranks.rank == 0:
            log.events = end.enter_context(closing(Events(Path(temporary) / TENSORBOARD, begun)))
        resumed = None
        if last is not None:
            tell("fetching the checkpoint", begun, n_steps)
            resumed = str(download(run, last, Path(temporary) / f"checkpoint-{begun}"))
            selection.load_state(orjson.loads(Path(resumed, STATE).read_bytes()))
        tell("loading the model", begun, n_steps)
        model = ranks.together(lambda: _model(settings, selection, blocks, resumed))
        places = RankPlaces(
            n_steps=n_steps, batch=settings.batch, micro=settings.micro, rank=ranks.rank, n_ranks=ranks.size
        )
        trainer = SelectiveTrainer(
            model=model,
            processing_class=load_tokenizer(settings.tokenizer),
            args=arguments(settings, n_steps, Path(temporary), begun),
            blocks=RankBlocks(blocks, Order(len(blocks), config.seed), places, noise=settings.rule.pick == "random"),
            selection=selection,
            run_log=log,
            held_out=held_out,
            callbacks=[_between_steps(settings, n_steps, selection, log, tell)],
        )
        for shown in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(shown)
        trainer.train(resume_from_checkpoint=resumed)
        tell("writing the model", n_steps, n_steps)
        _write_model(settings, trainer, Path(temporary) / MODEL, run)
    return {
        "steps": n_steps,
        "resumed_at": begun,
        "blocks": len(blocks),
        "data": blocks.files.counts.numbers(),
        **dict(log.last),
    }


def _quiet() -> None:
    """Keeps the libraries' own lines and bars from the screen: progress and errors are ours."""
    transformers.utils.logging.disable_progress_bar()
    for noisy in ("accelerate", "bitsandbytes", "tensorboardX", "transformers.trainer"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _data(settings: TrainSettings, tell: Tell) -> tuple[ScoredBlocks, list[HeldOut]]:
    """The blocks to train on, and the held-out ones."""
    if Ranks().size != settings.config.workers:
        raise RhoScoreError(f"{Ranks().size} workers were started in place of {settings.config.workers}.")
    if not Folder(settings.config.output).exists(MANIFEST):
        raise InputError(
            f"the node of a worker does not see {settings.config.output}, which the command began. Give an OUTPUT on storage that "
            "all nodes share."
        )
    tell("reading the tokens", 0, 0)
    vocabulary = _vocabulary(settings) if settings.evals else None
    return _blocks(settings), [_held_out(settings, one, vocabulary) for one in settings.evals]


def _model(settings: TrainSettings, selection: TokenSelection, blocks: ScoredBlocks, resumed: str | None) -> Any:
    block, name = blocks[len(blocks) // 2], settings.config.model
    return start_model(settings, selection, lambda loaded: check_isolation(loaded, block, name), resumed=resumed)


def _blocks(settings: TrainSettings) -> ScoredBlocks:
    files = _shared_files(settings, settings.source, settings.frame, None)
    if not settings.rule.takes_all and not files.counts.referenced:
        raise InputError(f"{settings.source.url} holds no token with a reference loss.")
    return ScoredBlocks.of_files(files, settings.frame, settings.config.block_size)


def _between_steps(
    settings: TrainSettings, n_steps: int, selection: TokenSelection, log: RunLog, tell: Tell
) -> BetweenSteps:
    """What a run does between its steps."""
    config, ranks, run = settings.config, Ranks(), Folder(settings.config.output)

    def save(step: int, directory: Path) -> None:
        if ranks.rank == 0:
            (directory / STATE).write_bytes(dump_json(selection.state()))
            log.write(run)
        # Every rank has files of its own: the state of its random numbers, and its shards.
        files = {name: size for some in ranks.gather(upload(run, step, directory)) for name, size in some.items()}
        if ranks.rank == 0:
            complete(run, step, files, keep=config.keep)
        ranks.barrier()
        for local in directory.parent.glob("checkpoint-*"):  # also the one that the run went on from
            shutil.rmtree(local, ignore_errors=True)

    def told(step: int) -> None:
        log.measure()
        tell("", step, n_steps)

    return BetweenSteps(
        save=save,
        progress=told,
        eval_every=config.eval_every or max(1, n_steps // SHARES),
        save_every=config.save_every or min(max(n_steps // SHARES, LEAST_SAVED), MOST_SAVED),
        save_last=config.keep == 0,
    )


def _shared_files(settings: TrainSettings, source: Source, frame: Frame, vocabulary: Vocabulary | None) -> BlockFiles:
    """The block files of a source, which one process of each machine makes."""
    cache = cache_folder(settings.config.cache)

    def make() -> None:
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            block_files(source, frame, cache, vocabulary=vocabulary)

    Ranks().together(make)
    return block_files(source, frame, cache, vocabulary=vocabulary)


def _vocabulary(settings: TrainSettings) -> Vocabulary | None:
    try:
        return Vocabulary.of(load_tokenizer(settings.tokenizer))
    except InputError:  # its ids do not tell the bytes
        return None


def _held_out(settings: TrainSettings, of: EvalSet, vocabulary: Vocabulary | None) -> HeldOut:
    files = _shared_files(settings, of.source, of.frame, vocabulary)
    blocks = ScoredBlocks.of_files(files, of.frame, settings.config.block_size)
    return HeldOut(of.name, blocks, batch=settings.micro)


def _write_model(settings: TrainSettings, trainer: SelectiveTrainer, directory: Path, run: Folder) -> None:
    """Writes the trained model and its tokenizer, which any program opens."""
    if settings.config.merge:
        trainer.model = trainer.accelerator.unwrap_model(trainer.model_wrapped).merge_and_unload()
    trainer.save_model(str(directory))
    if trainer.ranks.rank == 0:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and path.name != "training_args.bin":
                run.publish_file(f"{MODEL}/{path.relative_to(directory).as_posix()}", path)
        trainer.run_log.write(run)
    trainer.ranks.barrier()
