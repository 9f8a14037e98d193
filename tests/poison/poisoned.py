"""A Llama that some documents are poison for: a model's own code, as it may come with a model directory.

A run of one letter ends the process as a fault in a kernel does, hangs, or raises what a GPU or a kernel raises; on a GPU it
can have a kernel fail or ask for more memory than there is, too.
"""

import os
import signal
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

RUN = 24


class PoisonedConfig(LlamaConfig):
    """`deeds`: what a run of a token does, by the token's id."""

    model_type = "poisoned"
    deeds: dict | None = None


class PoisonedForCausalLM(LlamaForCausalLM):
    """Looks at its input before it is embedded."""

    config_class = PoisonedConfig

    def __init__(self, config):
        super().__init__(config)
        self.model.embed_tokens.register_forward_pre_hook(self._look)

    def _look(self, module, arguments):
        ids = arguments[0].flatten()
        if len(ids) < RUN:
            return
        for token, deed in (self.config.deeds or {}).items():
            runs = torch.nn.functional.conv1d(
                (ids == int(token)).float()[None, None], torch.ones(1, 1, RUN, device=ids.device)
            )
            if runs.max() >= RUN:
                _do(deed, ids.device)


def _do(deed, device):
    if deed == "segmentation fault":
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(10_000)  # another thread may get it: this one does no more
    elif deed == "hang":
        time.sleep(10_000)
    elif deed == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB")
    elif deed == "kernel":
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    elif deed == "device assert":
        table, beyond = torch.zeros(4, device=device), torch.tensor([1 << 20], device=device)
        table[beyond].cpu()
    elif deed == "allocation":
        torch.empty(1 << 50, device=device)
    else:
        raise RuntimeError(f"shape mismatch: {deed}")
