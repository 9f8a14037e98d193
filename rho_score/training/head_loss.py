"""Losses of tokens in training, without the matrix of tokens by vocabulary.

The head is that of the model, as `inference.loss.Head` describes it. The work goes over chunks of
tokens. With gradients, the gradient of a chunk is computed together with its losses, as fused heads
do (Hsu et al. 2024, arXiv 2410.10989, section 3.2), so that no chunk is computed twice.
"""

from typing import Any

import torch

from rho_score.inference.loss import Head

CHUNK_BYTES = 64 << 20
"""Bytes of the logits of one chunk, in float32."""


@torch.no_grad()
def losses_of(hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    """Returns the loss of each target, nats, float32[N], without gradients.

    hidden: shape (N, D). targets: int64[N].
    """
    hidden = _as_autocast(hidden)
    losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    weight = head.weight.to(hidden.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        for at in _chunks(len(targets), head):
            logits = _logits(hidden[at], weight, head)
            losses[at] = logits.logsumexp(dim=1) - logits.gather(1, targets[at][:, None])[:, 0]
    return losses


def weighted_loss(
    hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, head: Head
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the weighted sum of the losses, a float32 scalar with gradients, and the losses.

    The losses are in nats, float32[N], without gradients. Gradients flow into `hidden` and into the
    head's weight and bias.

    hidden: shape (N, D). targets: int64[N]. weights: float32[N]; 0 leaves a token out.
    """
    bias = head.bias if head.bias is not None else hidden.new_zeros(0)
    with torch.autocast(hidden.device.type, enabled=False):
        total, losses = _WeightedLoss.apply(_as_autocast(hidden), head.weight, bias, targets, weights, head)
    return total, losses


def _as_autocast(hidden: torch.Tensor) -> torch.Tensor:
    """The hidden states in the type that autocast computes products in; else as they are."""
    kind = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else hidden


class _WeightedLoss(torch.autograd.Function):
    """`sum(weights * losses)`, whose gradients are computed in the forward pass.

    With z = cap(scale * (h W' + b)) and loss = logsumexp(z) - z[target], the derivative by z is
    softmax(z) - onehot(target).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        head: Head,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cast = weight.to(hidden.dtype)
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        by_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        by_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] and len(bias) else None
        for at in _chunks(len(targets), head):
            logits, target = _logits(hidden[at], cast, head), targets[at][:, None]
            peak = logits.logsumexp(dim=1, keepdim=True)
            losses[at] = (peak - logits.gather(1, target))[:, 0]
            slope = _slope(logits, head)
            gradient = logits.sub_(peak).exp_()
            gradient.scatter_add_(1, target, gradient.new_full((), -1.0).expand_as(target))
            gradient *= weights[at][:, None]
            gradient = (gradient if slope is None else gradient.mul_(slope)).to(hidden.dtype)
            if by_hidden is not None:
                torch.mm(gradient, cast, out=by_hidden[at])
            if by_weight is not None:
                by_weight += gradient.T @ hidden[at]
            if by_bias is not None:
                by_bias += gradient.sum(dim=0)
        ctx.save_for_backward(by_hidden, None if by_weight is None else by_weight.to(weight.dtype), by_bias)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, by_total: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = [None if one is None else one * by_total.to(one.dtype) for one in ctx.saved_tensors]
        return (*scaled, None, None, None)


def _chunks(n_tokens: int, head: Head) -> list[slice]:
    rows = max(16, CHUNK_BYTES // (4 * head.weight.shape[0]))
    return [slice(first, min(first + rows, n_tokens)) for first in range(0, n_tokens, rows)]


def _logits(hidden: torch.Tensor, weight: torch.Tensor, head: Head) -> torch.Tensor:
    if hidden.is_cuda and hidden.dtype != torch.float32:
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)
    else:
        logits = torch.nn.functional.linear(hidden, weight).float()
    if head.bias is not None:
        logits += head.bias
    if head.scale != 1.0:
        logits *= head.scale
    if head.soft_cap is not None:
        logits = logits.div_(head.soft_cap).tanh_().mul_(head.soft_cap)
    return logits


def _slope(logits: torch.Tensor, head: Head) -> torch.Tensor | float | None:
    """The derivative of capped and scaled logits by the products that they are made from."""
    if head.soft_cap is not None:
        return (1 - (logits / head.soft_cap).square()) * head.scale
    return None if head.scale == 1.0 else head.scale
