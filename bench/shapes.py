"""Models of the shapes of larger ones, with random weights: what they compute takes as long as what trained ones do."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from demo.model import base_model
from demo.packages import cache_folder

# hidden, intermediate, layers, heads, key-value heads, tied: of Llama 3.2 1B and Llama 3.1 8B, which have 128,256 words
SHAPES = {"1B": (2048, 8192, 16, 32, 8, True), "8B": (4096, 14336, 32, 32, 8, False)}
VOCABULARY = 128_256


def random_llama(shape: str) -> Path:
    """Directory of a random float16 Llama of this shape with the tokenizer of SmolLM2 (a part of its words), made once."""
    target = cache_folder() / f"random-{shape}"
    if target.exists():
        return target
    width, inner, layers, heads, key_heads, tied = SHAPES[shape]
    config: Any = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=key_heads, max_position_embeddings=8192,
        bos_token_id=0, tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    building = target.with_suffix(".building")
    model.save_pretrained(building)
    for file in base_model().glob("*token*"):
        shutil.copy(file, building)
    shutil.move(building, target)
    return target
