"""What single families want beside the sizes that all take."""

from typing import Any

_ALIKE = {"num_key_value_heads": 4}
_INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 140,
    "indexer_compress_ratio": 4,
}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
PECULIAR: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 64},
    },
    "dots3_note": {
        **_ALIKE,
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "adapter_in_dim": 64,
            "adapter_out_dim": 64,
        },
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 64, "adapter_out_dim": 64},
    "dots3_note_text": _ALIKE,
    "falcon_h1": {"mamba_d_ssm": 128},
    **{name: {"num_kv_shared_layers": 0} for name in ("gemma3n_text", "gemma4_unified_text", "gemma4_text")},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_hidden_layers": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    **dict.fromkeys(("qwen4_exp", "qwen4_exp_text"), _INDEXER),
    **{
        f"{name}_text": _MROPE
        for name in ("qwen2_vl", "qwen2_5_vl", "glm4v", "glm_ocr", "glmga", "paddleocr_vl", "qwen2_5_omni")
    },
    "glm4v_moe_text": {"rope_parameters": {**_MROPE["rope_parameters"], "mrope_section": [2, 1, 1]}},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [16, 20],
        "axial_pos_embds_dim": [24, 40],
        "num_buckets": 4,
        "hash_seed": 0,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "n_mamba_heads": 2,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
    },
    "zaya": {"num_experts_per_tok": 1},
}
