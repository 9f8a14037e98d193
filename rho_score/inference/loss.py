"""Token losses, entropies and ranks from hidden states, without the tokens x vocabulary matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Accumulate = Callable[..., State]


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

    @property
    def rounds(self) -> bool:
        """Whether products come out rounded: those of half precision on a CPU do, all others are float32."""
        return not self.weight.is_cuda and self.weight.dtype != torch.float32

    def logits(self, hidden: torch.Tensor, first: int, stop: int) -> torch.Tensor:
        """Logits of the words [first, stop), float32. hidden: Shape (N, D). Returns Shape (N, stop - first)."""
        weight = self.weight[first:stop]
        if self.weight.is_cuda and self.weight.dtype != torch.float32:
            product = torch.mm(hidden, weight.T, out_dtype=torch.float32)
        else:
            product = torch.nn.functional.linear(hidden, weight).float()
        if self.bias is not None:
            product += self.bias[first:stop]
        return self._transform(product)

    def target_logits(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Logit of one word a row, in float32 whatever the dtype. targets: Shape (N,). Returns Shape (N,)."""
        product = (hidden.float() * self.weight[targets].float()).sum(dim=1)
        if self.bias is not None:
            product += self.bias[targets]
        return self._transform(product)

    def _transform(self, logits: torch.Tensor) -> torch.Tensor:
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.soft_cap is not None:
            logits = logits.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return logits


def accumulate(
    logits: torch.Tensor,
    column: torch.Tensor,
    bar: torch.Tensor | None,
    state: State,
    *,
    entropy: bool,
) -> State:
    """Take a block of logits into the running sums of each row.

    logits: Shape (N, W). column: Shape (N,), the target's column in this block, outside [0, W) where it is in another.
    bar: Shape (N,), count the other words above this logit; None: don't. State, each of Shape (N,):
    peak = max z, total = sum exp(z - peak), weighted = sum (z - peak) exp(z - peak), above = count, target = z[column].
    """
    peak, total, weighted, above, target = state
    inside = (column >= 0) & (column < logits.shape[1])
    place = column.clamp(0, logits.shape[1] - 1)[:, None]
    target = torch.where(inside, logits.gather(1, place)[:, 0], target)
    new = torch.maximum(peak, logits.amax(dim=1))
    shifted = logits - new[:, None]
    weights = shifted.exp()
    fade = (peak - new).exp()
    if entropy:
        weighted = fade * (weighted + (peak - new) * total) + (shifted * weights).sum(dim=1)
    total = fade * total + weights.sum(dim=1)
    if bar is not None:
        itself = inside & (logits.gather(1, place)[:, 0] > bar)
        above = above + (logits > bar[:, None]).sum(dim=1).float() - itself.float()
    return new, total, weighted, above, target


def token_statistics(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: Head,
    *,
    entropy: bool = False,
    rank: bool = False,
    block_tokens: int = 1024,
    block_words: int = 1024,
    accumulate: Accumulate = accumulate,
) -> torch.Tensor:
    """Loss and, on request, entropy and rank of each target, over blocks of tokens and of the vocabulary.

    `loss = logsumexp(z) - z[target]` in nats, >= 0, both from the same z; where products come out rounded to half precision
    the target's is put in its place unrounded. `entropy = -sum p log p` of the next-token
    distribution in nats. `rank` = words with a higher logit than the target's, 0 where it is the argmax; where another word's
    logit is the target's up to the rounding of the product, either may count as the higher one.

    Sums are float32. Peak memory beside the inputs is about 4 x block_tokens x block_words x 4 bytes: 16 MiB at the
    default, which stays in a CPU's cache.

    hidden: Shape (N, D). targets: Shape (N,), int64. Returns Shape (1 + entropy + rank, N), float32.
    """
    n_words = head.weight.shape[0]
    found = torch.empty(1 + entropy + rank, len(targets), dtype=torch.float32, device=hidden.device)
    for at in range(0, len(targets), block_tokens):
        rows, target = hidden[at : at + block_tokens], targets[at : at + block_tokens]
        exact = head.target_logits(rows, target) if rank or head.rounds else None
        bar = exact if rank else None
        total, weighted, above, target_logit = torch.zeros(4, len(target), dtype=torch.float32, device=hidden.device)
        peak = torch.full_like(total, torch.finfo(torch.float32).min)
        state: State = (peak, total, weighted, above, target_logit)
        for first in range(0, n_words, block_words):
            logits = head.logits(rows, first, min(first + block_words, n_words))
            if exact is not None and head.rounds:
                inside = torch.nonzero((target >= first) & (target < first + logits.shape[1]))[:, 0]
                logits[inside, target[inside] - first] = exact[inside]
            state = accumulate(logits, target - first, bar, state, entropy=entropy)
        peak, total, weighted, above, target_logit = state
        columns = [(total.log() + peak - target_logit).clamp_min(0)]
        if entropy:
            columns.append((total.log() - weighted / total).clamp_min(0))
        if rank:
            columns.append(above)
        found[:, at : at + block_tokens] = torch.stack(columns)
    return found
