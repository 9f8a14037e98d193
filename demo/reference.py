"""The reference model: the base model fine-tuned on the curated slice with the Hugging Face Trainer, for a fixed time."""

import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
)

from demo.corpus import curated

BLOCK = 512
SECONDS = 65
FEWEST_STEPS = 20


class Blocks(Dataset[dict[str, torch.Tensor]]):
    """The curated texts, each after a BOS, cut into blocks of `BLOCK` tokens."""

    def __init__(self, tokenizer: Any) -> None:
        ids = [i for text in curated() for i in [tokenizer.bos_token_id, *tokenizer(text.text).input_ids]]
        self._blocks = torch.tensor(ids[: len(ids) // BLOCK * BLOCK]).view(-1, BLOCK)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._blocks[i], "labels": self._blocks[i]}


class _StopAfter(TrainerCallback):
    """Ends training when the time is over, and the machine, which may be busy, has made enough steps."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_training_stop = time.monotonic() > self._end and state.global_step >= FEWEST_STEPS


def fine_tune(base: Path, target: Path, *, seconds: float = SECONDS) -> Path:
    """Fine-tune `base`, all but its embeddings, on the curated slice for about `seconds`; save the model under `target`."""
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.get_input_embeddings().requires_grad_(False)
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=str(target.with_suffix(".training")),
        per_device_train_batch_size=1,
        max_steps=400,
        learning_rate=2e-4,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=4,
        weight_decay=0.0,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Blocks(tokenizer),
        data_collator=default_data_collator,
        callbacks=[_StopAfter(seconds)],
    )
    result = trainer.train()
    print(f"fine-tuned on {result.global_step * BLOCK:,} tokens in {result.metrics['train_runtime']:.0f} s")
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target
