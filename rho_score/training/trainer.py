"""Hugging Face's Trainer with the selective loss, and what a run does between its steps."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rho_score.errors import RhoScoreError
from rho_score.stores.framing import IGNORED
from rho_score.stores.schema import WEIGHT
from rho_score.training.blocks import Block, ScoredBlocks, collate_blocks
from rho_score.training.held_out import HeldOut
from rho_score.training.log import RunLog, mean
from rho_score.training.order import Order, RankPlaces
from rho_score.training.ranks import Ranks
from rho_score.training.selection import TokenSelection, token_noise


class RankBlocks(Dataset[Block]):
    """The blocks that one rank reads over a whole run, in order."""

    def __init__(self, blocks: ScoredBlocks, order: Order, places: RankPlaces, *, noise: bool) -> None:
        self._blocks, self._order, self._places, self._noise = blocks, order, places, noise

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Block:
        place = self._places[index]
        index = self._order.at(place)
        block = {**self._blocks[index], "n_read": self._blocks.n_read(index)}
        if self._noise:
            block["noise"] = torch.from_numpy(token_noise(self._order.seed, place, self._blocks.block_size))
        return block


def _collate(blocks: list[Block]) -> Block:
    batch = collate_blocks(blocks)
    del batch["seq_lengths"]
    batch["n_read"] = sum(block["n_read"] for block in blocks)
    if "noise" in blocks[0]:
        batch["noise"] = torch.stack([block["noise"] for block in blocks])
    return batch


class SelectiveTrainer(Trainer):
    """A Trainer of a model that `select_in_forward` changed.

    The loss of a step is the sum over its selected tokens on all ranks and in all micro-batches,
    divided by their number or, if they have weights, the weighted mean.
    """

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        args: TrainingArguments,
        processing_class: PreTrainedTokenizerBase,
        blocks: RankBlocks,
        selection: TokenSelection,
        run_log: RunLog,
        held_out: Sequence[HeldOut],
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(
            model=model, args=args, train_dataset=blocks, processing_class=processing_class, callbacks=callbacks
        )
        if (plugin := getattr(self.accelerator.state, "fsdp_plugin", None)) is not None and args.bf16:
            # By default every number that goes in and out is rounded, reference losses and counts among them.
            plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
        self.loss_is_scaled_for_ga = True  # `compute_loss` divides by the count of the whole step
        self.model_accepts_loss_kwargs = False
        self.selection, self.run_log, self.held_out, self.ranks = selection, run_log, held_out, Ranks()
        # On the device: to fetch them after each micro-batch would keep a GPU waiting.
        self._sums = torch.zeros(len(TokenSelection.SUMS), dtype=torch.float64, device=args.device)
        self._read = 0
        self._step_kept = torch.zeros((), dtype=torch.float64, device=args.device)
        self._started = time.monotonic() - run_log.last["seconds"]

    def get_train_dataloader(self) -> DataLoader[Block]:
        """This rank's own blocks, which accelerate must not divide again."""
        assert isinstance(self.train_dataset, RankBlocks)
        return DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            shuffle=False,
            collate_fn=_collate,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Block], num_batches: int, device: torch.device
    ) -> tuple[list[Block], torch.Tensor]:
        """The micro-batches of a step, and how many tokens they will select on all ranks.

        If tokens have weights, it is the sum of these.
        """
        batches = list(itertools.islice(epoch_iterator, num_batches))
        eligible: list[float] = []
        for batch in batches:
            self._read += batch.pop("n_read")
            valid = batch["labels"][:, 1:] != IGNORED
            if not self.selection.rule.takes_all:
                valid &= ~torch.isnan(batch["ref_loss"][:, 1:])
            counted = valid if WEIGHT not in batch else batch[WEIGHT][:, 1:].double()[valid]
            eligible.append(float(counted.sum()))
        self._step_kept.zero_()
        return batches, self.selection.planned(eligible, self.ranks, device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """This rank's share of the step's loss, times the ranks, over which gradients are averaged."""
        outputs = model(**inputs)
        statistics = outputs["statistics"].detach()
        self._sums += statistics
        self._step_kept += statistics[TokenSelection.SUMS.index("kept")]
        loss = outputs["loss"] * self.ranks.size / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Adds the gradients of a micro-batch; after the last one of a step they are those of the mean."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients and not self.selection.is_planned_exactly():
            kept = float(self.ranks.sum(self._step_kept))
            if kept:
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(float(num_items_in_batch or 1) / kept)
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Computes the held-out losses, and adds their rows to the run's log."""
        started = time.monotonic()
        last = self.run_log.last
        about = {"step": self.state.global_step, **{k: last[k] for k in ("tokens_seen", "tokens_trained")}}
        losses: dict[str, float] = {}
        for held_out in self.held_out:
            rows = held_out.rows(self.model_wrapped, self.ranks, self.args.device)
            for row in rows:
                self.run_log.add_held_out({**about, **row})
            losses[f"eval_{held_out.name}_loss"] = rows[0]["loss"]
        self._started += time.monotonic() - started  # the log's seconds are those of training
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, losses)
        return losses

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds a row to the run's log. It is called on every rank."""
        if "learning_rate" not in logs:
            return
        read = torch.tensor([self._read], dtype=torch.float64, device=self._sums.device)
        seen, targets, loss, kept, kept_loss, threshold, calls = self.ranks.sum(torch.cat([read, self._sums])).tolist()
        self._sums.zero_()
        self._read = 0
        if math.isnan(loss):
            raise RhoScoreError(
                f"the loss is not a number any more at step {self.state.global_step}. Begin another run with a lower "
                "--learning-rate or a longer --warmup."
            )
        last, seconds = self.run_log.last, time.monotonic() - self._started
        took = seconds - last["seconds"]
        self.run_log.add_row(
            {
                "step": self.state.global_step,
                "tokens_seen": last["tokens_seen"] + int(seen),
                "tokens_trained": last["tokens_trained"] + int(kept),
                "loss": mean(loss, targets),
                "loss_kept": mean(kept_loss, kept),
                "loss_dropped": mean(loss - kept_loss, targets - kept),
                "threshold": mean(threshold, calls),
                "learning_rate": logs["learning_rate"],
                "grad_norm": logs.get("grad_norm"),
                "seconds": seconds,
                "tokens_per_second": seen / took if took else None,
            }
        )


class BetweenSteps(TrainerCallback):
    """Says what is due after each step, and hands checkpoints on."""

    def __init__(
        self,
        *,
        save: Callable[[int, Path], None],
        progress: Callable[[int], None],
        eval_every: int,
        save_every: int,
        save_last: bool,
    ) -> None:
        """save_last: True if a checkpoint is also written at the last step, where the model is."""
        self._save, self._progress = save, progress
        self._eval_every, self._save_every, self._save_last = eval_every, save_every, save_last

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Every evaluation and every checkpoint has a row of the log at its step."""
        last, step = state.global_step >= state.max_steps, state.global_step
        control.should_evaluate = last or step % self._eval_every == 0
        control.should_save = step % self._save_every == 0 and (not last or self._save_last)
        control.should_log |= last or control.should_evaluate or control.should_save
        self._progress(step)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Writes the checkpoint to storage."""
        self._save(state.global_step, Path(args.output_dir or ".") / f"checkpoint-{state.global_step}")
