"""The reference model: the base model fine-tuned on the curated slice with the Hugging Face Trainer."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
)

from demo.corpus import curated
from rho_score.cluster.progress import Progress

BLOCK = 512


class Blocks(Dataset[dict[str, torch.Tensor]]):
    """The curated texts, each after a BOS, cut into blocks of `BLOCK` tokens."""

    def __init__(self, tokenizer: Any) -> None:
        ids = [i for text in curated() for i in [tokenizer.bos_token_id, *tokenizer(text.text).input_ids]]
        self._blocks = torch.tensor(ids[: len(ids) // BLOCK * BLOCK]).view(-1, BLOCK)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._blocks[i], "labels": self._blocks[i]}


class _ShowSteps(TrainerCallback):
    """Moves the progress on with every step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._progress.add(tokens=BLOCK)


def fine_tune(base: Path, target: Path, *, steps: int) -> Path:
    """Fine-tune `base`, all but its embeddings, on `steps` blocks of the curated slice; save the model under `target`."""
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.get_input_embeddings().requires_grad_(False)
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=str(target.with_suffix(".training")),
        per_device_train_batch_size=1,
        max_steps=steps,
        learning_rate=2e-4,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=4,
        weight_decay=0.0,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
        use_cpu=not torch.cuda.is_available(),
    )
    with Progress("fine-tune", n_units=steps, unit="steps") as progress:
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Blocks(tokenizer),
            data_collator=default_data_collator,
            callbacks=[_ShowSteps(progress)],
        )
        trainer.remove_callback(PrinterCallback)
        result = trainer.train()
    print(f"fine-tuned on {result.global_step * BLOCK:,} tokens in {result.metrics['train_runtime']:.0f} s")
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target
