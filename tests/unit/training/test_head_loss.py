"""The fused head: its losses and gradients are those of a plain cross entropy, in little memory."""

from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from rho_score.errors import InputError
from rho_score.inference.loss import Head
from rho_score.training import head_loss
from rho_score.training.head_loss import losses_of, weighted_loss
from rho_score.training.model import check_isolation

N, D, V = 50, 16, 301


def parts(bias: bool, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Hidden states, weight, bias, targets and weights of tokens."""
    torch.manual_seed(0)
    hidden = torch.randn(N, D).to(dtype).requires_grad_()
    weight = (torch.randn(V, D) / 2).requires_grad_()
    offset = torch.randn(V).requires_grad_() if bias else torch.zeros(0)
    return hidden, weight, offset, torch.randint(0, V, (N,)), torch.rand(N).round(decimals=1)


@pytest.mark.parametrize("chunk_bytes", [16 * 4 * V, 1 << 20])
@pytest.mark.parametrize(
    ("bias", "scale", "soft_cap"), [(False, 1.0, None), (True, 1.0, None), (False, 0.25, None), (True, 2.0, 5.0)]
)
def test_losses_and_gradients_are_those_of_a_plain_head(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, bias: bool, scale: float, soft_cap: float | None
) -> None:
    monkeypatch.setattr(head_loss, "CHUNK_BYTES", chunk_bytes)
    hidden, weight, offset, targets, weights = parts(bias)
    head = Head(weight, offset if bias else None, scale, soft_cap)
    total, losses = weighted_loss(hidden, targets, weights, head)
    (3 * total).backward()
    inputs = [hidden, weight, *([offset] if bias else [])]
    found = [one.grad.clone() for one in inputs]
    for one in inputs:
        one.grad = None
    logits = torch.nn.functional.linear(hidden, weight, offset if bias else None) * scale
    logits = logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    (3 * (expected * weights).sum()).backward()
    torch.testing.assert_close(losses, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses_of(hidden, targets, head), expected.detach(), atol=1e-5, rtol=1e-5)
    for one, gradient in zip(inputs, found, strict=True):
        torch.testing.assert_close(gradient, one.grad, atol=1e-5, rtol=1e-4)


def test_in_half_precision_losses_stay_in_float32() -> None:
    hidden, weight, _, targets, weights = parts(bias=False, dtype=torch.bfloat16)
    total, losses = weighted_loss(hidden, targets, weights, Head(weight))
    total.backward()
    assert losses.dtype == total.dtype == torch.float32
    assert hidden.grad.dtype == torch.bfloat16
    assert weight.grad.dtype == torch.float32
    exact = torch.nn.functional.cross_entropy(hidden.detach().float() @ weight.detach().T, targets, reduction="none")
    torch.testing.assert_close(losses, exact, atol=0.1, rtol=0.02)


def test_the_matrix_of_tokens_by_vocabulary_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    plain = torch.nn.functional.linear

    def watched(*arguments: Any) -> torch.Tensor:
        product = plain(*arguments)
        made.append(product.numel() * 4)
        return product

    monkeypatch.setattr(head_loss, "CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    hidden, weight = torch.randn(4096, 8, requires_grad=True), torch.randn(20_000, 8, requires_grad=True)
    weighted_loss(hidden, torch.zeros(4096, dtype=torch.int64), torch.ones(4096), Head(weight))[0].backward()
    assert max(made) <= 20_000 * 4 * 16  # 16 rows, the fewest that a chunk has
    assert len(made) == 256


def block(lengths: list[int]) -> dict[str, Any]:
    """A block of random documents."""
    ids = torch.randint(0, 99, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    places = torch.cat([torch.arange(n) for n in lengths])
    return {"input_ids": ids, "position_ids": places, "seq_lengths": lengths}


def test_documents_that_do_not_see_each_other_pass() -> None:
    config = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    check_isolation(LlamaForCausalLM(config), block([5, 1, 20, 9]), "a model")
    capped = Gemma2Config(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, final_logit_softcapping=3.0, attn_implementation="eager",
    )  # fmt: skip
    check_isolation(Gemma2ForCausalLM(capped), block([5, 1, 20, 9]), "a model")


def test_a_model_in_which_documents_see_each_other_is_refused() -> None:
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config)
    own = model.model.forward

    def without_places(input_ids: torch.Tensor, position_ids: Any = None, **rest: Any) -> Any:
        return own(input_ids, **rest)

    model.model.forward = without_places
    with pytest.raises(InputError, match="documents see each other"):
        check_isolation(model, block([5, 20, 9]), "a model")
