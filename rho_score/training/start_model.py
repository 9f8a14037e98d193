"""The model that a run begins with, ready to be trained."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rho_score.errors import InputError
from rho_score.models.load import ModelSource, load_model
from rho_score.training.model import select_in_forward
from rho_score.training.selection import TokenSelection
from rho_score.training.settings import TrainSettings


def start_model(
    settings: TrainSettings, selection: TokenSelection, check: Callable[[Any], None], *, resumed: str | None = None
) -> Any:
    """Returns the model in float32, with an adapter if one is to be trained.

    check: is called with the model before its forward pass is replaced. resumed: the directory of a
    checkpoint. A whole model is loaded from it here, because the Trainer would leave out weights that
    have other names in files than in memory.

    Raises:
        InputError: the model does not load, or `check` raises it.
    """
    config = settings.config
    torch.manual_seed(config.seed)
    whole = resumed if config.lora_rank is None and not config.fsdp else None
    if config.from_scratch and whole is None:
        described = AutoConfig.from_pretrained(config.model)
        model = AutoModelForCausalLM.from_config(described, attn_implementation=config.attention).float()
    else:
        model = load_model(ModelSource(model=whole or config.model), torch.float32, torch.device("cpu"))
        model.requires_grad_(True)
        try:
            model.set_attn_implementation(config.attention)
        except (ValueError, ImportError) as error:
            raise InputError(f"--attention {config.attention} does not work for {config.model}: {error}") from error
    if settings.use_gpu and not config.fsdp:  # a sharded model may not fit on one GPU; it is checked on the CPU
        model.to(torch.device("cuda", torch.cuda.current_device()))
    check(model)
    model.train()
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if config.lora_rank is not None:
            model.enable_input_require_grads()  # frozen embeddings would end the graph before the layers
    select_in_forward(model, selection)
    if config.lora_rank is None:
        return model
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(
        r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, adapter)
    name, _, revision = config.model.partition("@")  # not the place where this machine keeps a model of the hub
    adapted.peft_config["default"].base_model_name_or_path = name
    adapted.peft_config["default"].revision = revision or None
    return adapted
