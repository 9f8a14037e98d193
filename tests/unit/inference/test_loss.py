import pytest
import torch

from rho_score.inference.loss import Head, token_statistics


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
    (losses,) = token_statistics(hidden, targets, head, block_tokens=32, block_words=50)
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
    ours = (token_statistics(hidden, targets, Head(weight), block_words=128)[0] - exact).abs().mean()
    naive = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none").float()
    assert ours <= (naive - exact).abs().mean()


def test_losses_are_never_negative() -> None:
    hidden = torch.full((1, 4), 100.0)
    weight = torch.cat([torch.ones(1, 4), -torch.ones(3, 4)])
    assert token_statistics(hidden, torch.tensor([0]), Head(weight)).item() == 0.0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("soft_cap", [None, 5.0])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_entropy_and_rank_are_those_of_whole_logits(bias: bool, soft_cap: float | None, scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight = (
        torch.randn(90, 24, generator=generator) * 2,
        torch.randn(211, 24, generator=generator),
    )
    head = Head(weight, torch.randn(211, generator=generator) if bias else None, scale, soft_cap)
    logits = head.logits(hidden, 0, 211).double()
    targets = torch.randint(0, 211, (90,), generator=generator)
    targets[:30] = logits[:30].argmax(dim=1)
    losses, entropy, rank = token_statistics(
        hidden, targets, head, entropy=True, rank=True, block_tokens=32, block_words=50
    )
    log_p = logits.log_softmax(dim=1)
    expected_rank = (logits > logits.gather(1, targets[:, None])).sum(dim=1)
    assert (rank[:30] == 0).all()
    assert (rank == expected_rank).all()
    torch.testing.assert_close(entropy, -(log_p.exp() * log_p).sum(dim=1).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(losses, -log_p.gather(1, targets[:, None])[:, 0].float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 8, 211])
@pytest.mark.parametrize(("bias", "scale", "soft_cap"), [(False, 1.0, None), (True, 0.25, 5.0)])
def test_the_likeliest_words_are_those_of_whole_logits(
    k: int, bias: bool, scale: float, soft_cap: float | None
) -> None:
    generator = torch.Generator().manual_seed(4)
    hidden, weight = (torch.randn(n, 24, generator=generator) * 2 for n in (70, 211))
    head = Head(weight, torch.randn(211, generator=generator) if bias else None, scale, soft_cap)
    targets = torch.randint(0, 211, (70,), generator=generator)
    plain = token_statistics(hidden, targets, head, rank=True, block_tokens=32, block_words=50)
    found = token_statistics(hidden, targets, head, rank=True, top_k=k, block_tokens=32, block_words=50)
    assert torch.equal(found[:2], plain)
    values, words = head.logits(hidden, 0, 211).double().log_softmax(dim=1).topk(k, dim=1)
    torch.testing.assert_close(found[2 : 2 + k].T, values.float(), atol=3e-5, rtol=1e-5)
    assert torch.equal(found[2 + k :].T.long(), words)


def test_entropy_of_certainty_is_zero_and_of_ignorance_the_logarithm_of_the_vocabulary() -> None:
    sure = torch.cat([torch.ones(1, 4), -torch.ones(999, 4)])
    for weight, expected in ((sure, 0.0), (torch.zeros(1000, 4), 6.907755)):
        _, entropy = token_statistics(torch.full((2, 4), 50.0), torch.tensor([0, 5]), Head(weight), entropy=True)
        torch.testing.assert_close(entropy, torch.full((2,), expected), atol=1e-5, rtol=1e-5)
