import numpy as np
import pytest
import torch

from rho_score.inference import attention
from rho_score.inference.attention import packed_attention


def _plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: list[int], scale: float, window: int | None
) -> torch.Tensor:
    """Attention from its definition in float64, one query at a time. Shape (N, H, D)."""
    n, past, groups = query.shape[2], key.shape[2] - query.shape[2], query.shape[1] // key.shape[1]
    out = torch.zeros(n, query.shape[1], value.shape[-1], dtype=torch.float64)
    for i in range(n):
        start = max(end for end in ends if end <= i)
        first = start if past == 0 else 0
        if window is not None:
            first = max(first, i + past - window + 1)
        for h in range(query.shape[1]):
            keys = key[0, h // groups, first : i + past + 1].double()
            weights = torch.softmax(keys @ query[0, h, i].double() * scale, dim=0)
            out[i, h] = weights @ value[0, h // groups, first : i + past + 1].double()
    return out


@pytest.mark.parametrize("window", [None, 1, 5, 100])
@pytest.mark.parametrize(("lengths", "past"), [([7], 0), ([1, 9, 4], 0), ([6], 11), ([1], 3)])
@pytest.mark.parametrize("mask_entries", [1 << 22, 20])
def test_each_sequence_sees_itself_alone(
    lengths: list[int], past: int, window: int | None, mask_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MASK_ENTRIES", mask_entries)
    generator = torch.Generator().manual_seed(sum(lengths))
    n, ends = sum(lengths), [0, *np.cumsum(lengths).tolist()]
    query = torch.randn(1, 4, n, 8, generator=generator)
    key, value = (torch.randn(1, 2, n + past, 8, generator=generator) for _ in range(2))
    found, _ = packed_attention(
        torch.nn.Identity(), query, key, value, None,
        cu_seq_lens_q=torch.tensor(ends, dtype=torch.int32), max_length_q=max(lengths), scaling=0.3, sliding_window=window,
    )  # fmt: skip
    torch.testing.assert_close(found[0].double(), _plain(query, key, value, ends, 0.3, window), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("what", ["softcap", "s_aux", "position_bias"])
def test_what_it_does_not_do_is_refused(what: str) -> None:
    one = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match=what):
        packed_attention(
            torch.nn.Identity(), one, one, one, None,
            cu_seq_lens_q=torch.tensor([0, 2], dtype=torch.int32), max_length_q=2, **{what: 1.0},
        )  # fmt: skip
