"""Token losses from hidden states, without the tokens x vocabulary matrix."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Head:
    """What stands between a causal LM's last hidden state and its logits: `cap(scale * (hidden @ weight.T + bias))`.

    weight: Shape (V, D). bias: Shape (V,) or None. soft_cap: c in `c * tanh(x / c)` (Gemma), or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    @classmethod
    def of(cls, model: Any) -> "Head":
        """The head of a Hugging Face causal LM, as its configuration describes it; to be proved against its logits."""
        config = model.config.get_text_config()
        linear = model.get_output_embeddings()
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
            getattr(config, "logits_scaling", None) or 1.0
        )
        return cls(
            linear.weight,
            getattr(linear, "bias", None),
            scale,
            getattr(config, "final_logit_softcapping", None),
        )

    def logits(self, hidden: torch.Tensor, first: int, stop: int) -> torch.Tensor:
        """Logits of the words [first, stop), float32. hidden: Shape (N, D). Returns Shape (N, stop - first)."""
        bias = None if self.bias is None else self.bias[first:stop]
        logits = torch.nn.functional.linear(hidden, self.weight[first:stop], bias).float()
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.soft_cap is not None:
            logits = logits.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return logits


def token_losses(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: Head,
    *,
    block_tokens: int = 1024,
    block_words: int = 1024,
) -> torch.Tensor:
    """`loss = logsumexp(logits) - logits[target]` in float32, over blocks of tokens and of the vocabulary.

    The log-sum-exp and the target's logit come from the same product. Peak memory beside the inputs is about
    2 x block_tokens x block_words x 4 bytes; on a CPU the default block, 4 MiB, stays in the cache.

    hidden: Shape (N, D). targets: Shape (N,), int64. Returns Shape (N,), float32, nats, >= 0.
    """
    n_words = head.weight.shape[0]
    losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    for at in range(0, len(targets), block_tokens):
        rows, target = hidden[at : at + block_tokens], targets[at : at + block_tokens]
        total = torch.full(target.shape, -torch.inf, dtype=torch.float32, device=hidden.device)
        target_logit = torch.zeros_like(total)
        for first in range(0, n_words, block_words):
            stop = min(first + block_words, n_words)
            logits = head.logits(rows, first, stop)
            inside = (target >= first) & (target < stop)
            column = (target - first).clamp(0, stop - first - 1)
            target_logit = torch.where(inside, logits.gather(1, column[:, None])[:, 0], target_logit)
            total = torch.logaddexp(total, logits.logsumexp(dim=1))
        losses[at : at + block_tokens] = (total - target_logit).clamp_min(0)
    return losses
