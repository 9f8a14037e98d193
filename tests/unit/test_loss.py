import pytest
import torch

from rho_score.loss import Head, token_losses


def _plain(hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    logits = hidden.double() @ head.weight.double().T
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits * head.scale
    if head.soft_cap is not None:
        logits = head.soft_cap * torch.tanh(logits / head.soft_cap)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none").float()


@pytest.mark.parametrize("n_tokens", [0, 1, 7, 130])
@pytest.mark.parametrize("n_words", [2, 63, 257])
@pytest.mark.parametrize(
    ("bias", "scale", "soft_cap"),
    [(False, 1.0, None), (True, 1.0, None), (False, 0.0625, None), (False, 1.0, 5.0)],
)
def test_blocks_change_nothing(n_tokens: int, n_words: int, bias: bool, scale: float, soft_cap: float | None) -> None:
    generator = torch.Generator().manual_seed(n_tokens * 1000 + n_words)
    hidden = torch.randn(n_tokens, 24, generator=generator) * 3
    weight = torch.randn(n_words, 24, generator=generator)
    targets = torch.randint(0, n_words, (n_tokens,), generator=generator)
    head = Head(weight, torch.randn(n_words, generator=generator) if bias else None, scale, soft_cap)
    losses = token_losses(hidden, targets, head, block_tokens=32, block_words=50)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, _plain(hidden, targets, head), atol=3e-5, rtol=1e-5)


def test_our_error_in_float16_is_no_more_than_the_naive_one() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(200, 64, generator=generator).half(),
        torch.randn(1000, 64, generator=generator).half(),
    )
    targets = torch.randint(0, 1000, (200,), generator=generator)
    exact = _plain(hidden.float(), targets, Head(weight.float()))
    ours = (token_losses(hidden, targets, Head(weight), block_words=128) - exact).abs().mean()
    naive = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none").float()
    assert ours <= (naive - exact).abs().mean()


def test_losses_are_never_negative() -> None:
    hidden = torch.full((1, 4), 100.0)
    weight = torch.cat([torch.ones(1, 4), -torch.ones(3, 4)])
    assert token_losses(hidden, torch.tensor([0]), Head(weight)).item() == 0.0
