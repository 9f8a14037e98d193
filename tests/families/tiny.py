"""A tiny random model of any causal family that transformers has, with every length of its configuration made short.

Lengths after which the computation changes (windows, chunks, top-k, tables) are made LENGTH or so: longer than the documents
that models without such lengths are proved on, shorter than the sweep's.
"""

import inspect
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.families.peculiar import PECULIAR

VOCABULARY, CONTEXT, LENGTH = 128, 320, 140
LAYERS = 2

SIZES: dict[str, Any] = {
    # depth and width
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "emb_dim", "embedding_dim"), 64),
    **dict.fromkeys(("word_embed_proj_dim", "attention_hidden_size", "lru_width", "input_embedding_size"), 64),
    **dict.fromkeys(("output_embedding_size", "input_size", "hidden_size_global"), 64),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("swa_num_attention_heads", "index_n_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "num_query_groups"), 2),
    **dict.fromkeys(("head_dim", "d_head", "dim_head", "kv_channels", "swa_head_dim", "index_head_dim"), 16),
    **dict.fromkeys(("attention_head_size", "linear_head_dim", "rotary_dim", "d_kv"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("o_lora_rank", "qk_head_dim", "hc_lowrank", "laurel_rank", "adapter_rank"), 16),
    **dict.fromkeys(("n_inner", "intermediate_size", "ffn_hidden_size", "feed_forward_size", "d_inner", "dff"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "dim_ff", "intermediate_size_mlp"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("shared_intermediate_size", "dense_intermediate_size", "shared_experts_intermediate_size"), 32),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "router_hidden_size"), 32),
    # experts
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "zero_expert_num"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k"), 2),
    **dict.fromkeys(("topk_group", "n_group", "num_expert_group"), 1),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    # state spaces
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 16),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank"), 8),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "mamba_ngroups"), 1),
    # tables of positions and vocabularies
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), CONTEXT),
    **dict.fromkeys(("max_target_positions", "context_length"), CONTEXT),
    **dict.fromkeys(
        ("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size", "unpadded_vocab_size"), VOCABULARY
    ),
    "hidden_size_per_layer_input": 16,
    # lengths
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size", "window_size"), LENGTH),
    **dict.fromkeys(("attention_chunk_size", "local_attention", "floor_scale", "keep_window_size"), LENGTH),
    **dict.fromkeys(("index_topk", "rel_extent", "log_scaling_n_floor", "position_bias_max_distance"), LENGTH),
    **dict.fromkeys(("original_max_position_embeddings", "local_attention_window_len"), LENGTH),
    "relative_max_distance": LENGTH,
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 64),
    # switches without which a length would not count, or that make a decoder of both
    "use_sliding_window": True,
    "max_window_layers": 1,
    "is_decoder": True,
    "use_cache": True,
    "initializer_range": 0.2,
    # ids of tokens
    **dict.fromkeys(("bos_token_id", "decoder_start_token_id"), 1),
    **dict.fromkeys(("eos_token_id", "eod_token_id", "sep_token_id", "forced_eos_token_id"), 2),
    **dict.fromkeys(("pad_token_id", "cls_token_id", "mask_token_id"), 0),
}


def tiny_config(family: str, **overrides: Any) -> PreTrainedConfig:
    """A configuration of the family, small and with short lengths; `overrides` win over all."""
    return _tiny(CONFIG_MAPPING[family], {**PECULIAR.get(family, {}), **overrides})


def _tiny(kind: type[PreTrainedConfig], overrides: dict[str, Any]) -> PreTrainedConfig:
    names = _names(kind)
    given = {name: value for name, value in SIZES.items() if name in names}
    if "kv_lora_rank" in names:  # latent attention has as many heads of keys as of queries
        given |= {"num_key_value_heads": 4, "head_dim": 16, "qk_head_dim": 32}
    for depth in ("num_hidden_layers", "num_layers", "n_layer", "n_layers"):
        if depth in names:
            given[depth] = _depth(kind)
    if "max_position_embeddings" in names and "bos_token_id" in names and {"type_vocab_size", "ngram"} & names:
        given["max_position_embeddings"] = CONTEXT + 2  # RoBERTa's tables begin behind the padding's id
    for name, part in (getattr(kind, "sub_configs", None) or {}).items():
        if name in overrides or part is PreTrainedConfig:
            continue
        default = getattr(_default(kind), name, None)  # which kind an "auto" part is
        if isinstance(default, PreTrainedConfig):
            given[name] = _tiny(type(default), PECULIAR.get(default.model_type, {})).to_dict()
    return kind(**{**given, **overrides})


def _depth(kind: type[PreTrainedConfig]) -> int:
    """Layers enough for one of each kind that the family has by default, at most eight."""
    default, most = _default(kind), LAYERS
    for name in ("layer_types", "mlp_layer_types", "no_rope_layers", "attention_layers"):
        kinds = list(getattr(default, name, None) or [])
        most = max([most, *(kinds.index(one) + 1 for one in set(kinds))])
    return most if most <= 8 else LAYERS


def _default(kind: type[PreTrainedConfig]) -> PreTrainedConfig | None:
    try:
        return kind()
    except (ValueError, TypeError):  # its defaults do not go together
        return None


def _names(kind: type) -> set[str]:
    own = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    return own | set(inspect.signature(kind.__init__).parameters)


def tiny_model(config: PreTrainedConfig, seed: int = 0) -> Any:
    """A model with random weights, float32, in evaluation mode."""
    torch.manual_seed(seed)
    auto = (
        AutoModelForCausalLM if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else AutoModelForImageTextToText
    )
    return auto.from_config(config, dtype=torch.float32).eval()
