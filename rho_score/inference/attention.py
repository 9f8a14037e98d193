"""Attention over documents that are packed one after the other, without padding and without a mask.

A model uses it with `attn_implementation=PACKED`. Sequence i of a pack has the positions
[cu_seq_lens_q[i], cu_seq_lens_q[i + 1]) and attends to itself alone. On CUDA in half precision this
is torch's variable-length FlashAttention kernel. Elsewhere it is one call of
`scaled_dot_product_attention` per sequence.
"""

from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED = "rho_score_packed"
MASK_ENTRIES = 1 << 22  # largest explicit mask, queries x keys


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Returns causal attention, shape (1, N, H, D), with the arguments of Hugging Face models.

    query: shape (1, H, N, D). key, value: shape (1, G, M, D). Heads are grouped if G < H. M is
    larger than N if a cache holds the start of the one sequence. cu_seq_lens_q: int32, shape
    (n_sequences + 1,).

    Raises:
        ValueError: the model asks for something that packed attention does not support (soft cap,
            sinks, position bias, a mask).
    """
    for name in ("softcap", "s_aux", "position_bias", "head_mask"):
        if others.get(name) is not None:
            raise ValueError(f"packed attention does not support {name}")
    if attention_mask is not None:
        raise ValueError("packed attention does not support a mask")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    return _packed(query, key, value, cu_seq_lens_q, max_length_q, scale, sliding_window or 0), None


@torch.library.custom_op("rho_score::packed_attention", mutates_args=())
def _packed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    max_length: int,
    scale: float,
    window: int,
) -> torch.Tensor:
    """Returns packed attention as one opaque operator: `torch.compile` sees no loop and no lengths.

    window: the sliding window in tokens, 0 for none.
    """
    if query.is_cuda and query.dtype != torch.float32:
        return _flash(query, key, value, cu_seq_lens, max_length, scale, window)
    _, heads, n, _ = query.shape
    out = query.new_empty(1, n, heads, value.shape[-1])
    ends = cu_seq_lens.tolist()
    past = key.shape[2] - n
    for start, stop in pairwise(ends):
        sequence = query[:, :, start:stop]
        keys, values = key[:, :, start : stop + past], value[:, :, start : stop + past]
        out[:, start:stop] = _attend(sequence, keys, values, scale, window).transpose(1, 2)
    return out


@_packed.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> torch.Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int) -> torch.Tensor:
    """Returns the attention of one sequence's last N positions, shape (1, H, N, D)."""
    n, m = query.shape[2], key.shape[2]
    if n == m and not 0 < window < m:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
    parts = []
    step = max(1, MASK_ENTRIES // m)
    for at in range(0, n, step):
        # the positions of the queries
        rows = torch.arange(m - n + at, m - n + min(at + step, n), device=query.device)[:, None]
        last = int(rows[-1]) + 1
        first = max(0, int(rows[0]) - window + 1) if window else 0
        columns = torch.arange(first, last, device=query.device)
        seen = (columns <= rows) & (columns > rows - window) if window else columns <= rows
        parts.append(
            scaled_dot_product_attention(
                query[:, :, at : at + step],
                key[:, :, first:last],
                value[:, :, first:last],
                attn_mask=seen,
                scale=scale,
                enable_gqa=True,
            )
        )
    return torch.cat(parts, dim=2)


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    max_length: int,
    scale: float,
    window: int,
) -> torch.Tensor:
    past = key.shape[2] - query.shape[2]
    # The kernel aligns causal masks to the last key. With one split, the sums of a sequence do not
    # depend on its neighbours.
    found = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens,
        torch.cat([cu_seq_lens[:1], cu_seq_lens[1:] + past]),
        max_length,
        max_length + past,
        scale=scale,
        window_size=(window - 1, 0) if window else (-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
        num_splits=1,
    )
    assert isinstance(found, torch.Tensor)
    return found[None]


AttentionInterface.register(PACKED, packed_attention)
