"""The arguments of Hugging Face's Trainer for a run."""

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from rho_score.training.settings import TrainSettings

PATIENCE_S = 86_400
"""How long ranks wait for each other: while one reads a corpus, or writes a model."""


def arguments(settings: TrainSettings, n_steps: int, directory: Path, begun: int) -> TrainingArguments:
    """Returns the arguments of a run of so many steps, of which `begun` are done.

    directory: a local folder, where the Trainer writes checkpoints.
    """
    config = settings.config
    schedules: dict[str, dict[str, Any]] = {
        "cosine": {"lr_scheduler_type": "cosine"},
        "constant": {"lr_scheduler_type": "constant_with_warmup"},
        "wsd": {
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": {"num_decay_steps": round(config.decay * n_steps), "min_lr_ratio": 0.0},
        },
    }
    sharding: dict[str, Any] = {}
    if config.fsdp:
        sharding = {"fsdp": True, "fsdp_config": {"fsdp_version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}}
    found = TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=settings.micro,
        gradient_accumulation_steps=settings.accumulation,
        max_steps=n_steps,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup * n_steps),
        weight_decay=config.weight_decay,
        adam_beta2=config.beta2,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        bf16=settings.dtype == "bfloat16",
        ddp_find_unused_parameters=False,
        ddp_timeout=PATIENCE_S,
        eval_strategy="no",
        eval_on_start=bool(settings.evals) and not begun,
        logging_strategy="steps",
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not settings.use_gpu,
        dataloader_pin_memory=settings.use_gpu,
        **schedules[config.schedule],
        **sharding,
    )
    # One process drives one GPU. The Trainer would spread the rows of a process over all that it sees.
    if found.device.type == "cuda":
        found._n_gpu = 1
    return found
