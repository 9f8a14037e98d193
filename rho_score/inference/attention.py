"""Attention over documents packed one behind the other, without padding and without a mask: `attn_implementation=PACKED`.

Sequence i of a pack is [cu_seq_lens_q[i], cu_seq_lens_q[i + 1]) and sees itself alone. On CUDA in half precision it is torch's
own variable-length FlashAttention kernel; elsewhere one `scaled_dot_product_attention` a sequence.
"""

from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED = "rho_score_packed"
MASK_ENTRIES = 1 << 22  # an explicit mask is made for so many queries x keys at a time


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
    """Causal attention in the form that Hugging Face models call; heads are grouped where key has fewer.

    query: Shape (1, H, N, D). key, value: Shape (1, G, M, D); M > N where a cache holds the start of the one sequence.
    cu_seq_lens_q: Shape (n_sequences + 1,), int32. Returns Shape (1, N, H, D).

    Raises:
        ValueError: the model asks for something that this does not do (soft cap, sinks, position bias, a mask).
    """
    for name in ("softcap", "s_aux", "position_bias", "head_mask"):
        if others.get(name) is not None:
            raise ValueError(f"packed attention has no {name}")
    if attention_mask is not None:
        raise ValueError("packed attention takes no mask")
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
    """One opaque operator, so that `torch.compile` sees neither the loop nor the lengths. window: 0 means none."""
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
    """One sequence whose last N of M positions are queries. Returns Shape (1, H, N, D)."""
    n, m = query.shape[2], key.shape[2]
    if n == m and not 0 < window < m:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
    parts = []
    step = max(1, MASK_ENTRIES // m)
    for at in range(0, n, step):
        rows = torch.arange(m - n + at, m - n + min(at + step, n), device=query.device)[:, None]  # the queries' places
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
    # Causal masks of this kernel are aligned to the last key. One split: no sequence's sums depend on its neighbours.
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
