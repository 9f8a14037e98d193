"""Which numbers of a configuration may be lengths after which the computation changes."""

from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import (
    DeepseekV32Config,
    Gemma2Config,
    GPT2Config,
    GPTNeoConfig,
    Llama4TextConfig,
    LlamaConfig,
    MinistralConfig,
    Phi3Config,
    PhimoeConfig,
    Qwen2Config,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from rho_score.inference.lengths import is_choice, special_lengths
from tests.families.sweep import FAMILIES

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [3.0], "rope_theta": 1e4, "factor": 2.0,
            "original_max_position_embeddings": 4096}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("config", "context", "expected"),
    [
        (LlamaConfig(max_position_embeddings=8192), 8192, {}),
        (GPT2Config(), 1024, {}),
        (PhimoeConfig(sliding_window=200), 2048, {200: "sliding_window"}),
        (PhimoeConfig(sliding_window=200), 200, {}),
        (Gemma2Config(sliding_window=512), 2048, {512: "sliding_window"}),
        (GPTNeoConfig(), 2048, {256: "window_size"}),
        (Llama4TextConfig(attention_chunk_size=1000, floor_scale=1500), 2000, {1000: "attention_chunk_size", 1500: "floor_scale"}),
        (Qwen2Config(sliding_window=300), 2048, {}),  # its window is switched off
        (Qwen2Config(sliding_window=300, use_sliding_window=True), 2048, {300: "sliding_window"}),
        (DeepseekV32Config(index_topk=500), 2048, {500: "index_topk"}),
        (LlamaConfig(max_position_embeddings=9000, rope_parameters=YARN), 8192, {}),  # the same in passes of any length
        (LlamaConfig(max_position_embeddings=9000, rope_parameters=YARN | {"llama_4_scaling_beta": 0.1}), 8192,
         {4096: "rope_parameters.original_max_position_embeddings"}),
        (LlamaConfig(max_position_embeddings=9000, rope_parameters=LONGROPE), 8192,
         {4096: "rope_parameters.original_max_position_embeddings"}),
    ],
)  # fmt: skip
def test_lengths_are_found_and_widths_are_not(config: Any, context: int, expected: dict[int, str]) -> None:
    found = special_lengths(config, context)
    assert {length: name for length, name in found.items() if length > 54} == expected


def test_names_that_nobody_foresaw_are_lengths_and_so_are_blocks_of_blocks() -> None:
    config = MinistralConfig(sliding_window=None, glimpse=150, block_size=64, kept_blocks=5)
    assert special_lengths(config, 2048) | {150: "glimpse", 64: "block_size", 320: "kept_blocks x block_size"} == special_lengths(config, 2048)  # fmt: skip
    config = Phi3Config(sliding_window=70, layers_of_mine=[{"window": 90}], of_layer={"3": {"window": 95}})
    assert {90, 95} <= special_lengths(config, 2048).keys()


def test_numbers_that_layers_choose_tokens_by() -> None:
    assert is_choice("index_topk")
    assert is_choice("index_block_size x index_topk_blocks")
    assert not is_choice("sliding_window")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_window_chunk_or_block_of_every_family_counts(family: str) -> None:
    try:
        text = CONFIG_MAPPING[family]().get_text_config()
    except (ValueError, StrictDataclassClassValidationError):
        pytest.skip("its defaults do not go together")
    numbers = {name: value for name, value in text.to_dict().items() if type(value) is int and value >= 2}
    found = special_lengths(text, 1 << 40)
    for name, value in numbers.items():
        if any(word in name for word in ("window", "chunk", "local_attention", "index_topk", "block_size")):
            assert "feed_forward" in name or name.endswith("layers") or value in found, name
