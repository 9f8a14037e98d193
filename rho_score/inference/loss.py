"""Token losses, entropies, ranks and likeliest words from hidden states, without the tokens x vocabulary matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Accumulate = Callable[..., State]
Top = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Head:
    """The map from a causal LM's last hidden state to its logits.

    The logits are `cap(scale * (hidden @ weight.T + bias))`. weight: shape (V, D). bias: shape (V,)
    or None. soft_cap: c in `c * tanh(x / c)` (Gemma), or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    @classmethod
    def of(cls, model: Any) -> "Head":
        """Returns the head of a Hugging Face causal LM as its configuration describes it.

        The caller must compare it with the model's own logits before relying on it.
        """
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
        """True if products come out rounded: in half precision on a CPU. All others are float32."""
        return not self.weight.is_cuda and self.weight.dtype != torch.float32

    def logits(self, hidden: torch.Tensor, first: int, stop: int) -> torch.Tensor:
        """Returns the logits of the words [first, stop), float32, shape (N, stop - first).

        hidden: shape (N, D).
        """
        weight = self.weight[first:stop]
        if self.weight.is_cuda and self.weight.dtype != torch.float32:
            product = torch.mm(hidden, weight.T, out_dtype=torch.float32)
        else:
            product = torch.nn.functional.linear(hidden, weight).float()
        if self.bias is not None:
            product += self.bias[first:stop]
        return self._transform(product)

    def target_logits(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns the logit of one word per row, computed in float32 for any dtype, shape (N,).

        hidden: shape (N, D). targets: shape (N,), int64.
        """
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
    """Returns the running sums of each row with a block of logits added.

    logits: shape (N, W). column: shape (N,), the target's column in this block, below 0 or at least
    W if the target is in another block. bar: shape (N,), the logit above which other words are
    counted; None to count nothing. The state holds five tensors of shape (N,):
    peak = max z, total = sum exp(z - peak), weighted = sum (z - peak) exp(z - peak), above = count,
    target = z[column].
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


def merge_top(top: Top, logits: torch.Tensor, first: int) -> Top:
    """Returns the k highest logits of each row and their words, with a block of logits added.

    top: the logits so far in falling order, shape (N, k), and their words, int64 of the same shape.
    logits: shape (N, W), of the words from `first` on.
    """
    k = top[0].shape[1]
    values, columns = logits.topk(min(k, logits.shape[1]), dim=1)
    every, words = torch.cat([top[0], values], dim=1), torch.cat([top[1], columns + first], dim=1)
    values, places = every.topk(k, dim=1)
    return values, words.gather(1, places)


def token_statistics(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: Head,
    *,
    entropy: bool = False,
    rank: bool = False,
    top_k: int = 0,
    block_tokens: int = 1024,
    block_words: int = 1024,
    accumulate: Accumulate = accumulate,
) -> torch.Tensor:
    """Returns the loss and, on request, the entropy, the rank and the likeliest words of each target.

    `loss = logsumexp(z) - z[target]` in nats, >= 0, with both terms from the same z. Where products
    come out rounded to half precision, the target's unrounded logit takes the place of its rounded
    one. `entropy = -sum p log p` of the next-token distribution, in nats. `rank` is the number of
    words with a higher logit than the target's, 0 if the target is the argmax. Where another word's
    logit equals the target's up to the rounding of the product, either may count as the higher one.
    With `top_k`, there are k rows with the log-probabilities of the k likeliest words in falling
    order, in nats, and k rows with these words. k is at most V, and V is at most 2**24, up to which a
    float32 holds every word exactly.

    The computation goes over blocks of tokens and of the vocabulary, and sums are float32. Besides
    the inputs it takes about 4 x block_tokens x block_words x 4 bytes at its peak: 16 MiB by
    default, which stays in a CPU's cache.

    hidden: shape (N, D). targets: shape (N,), int64. Returns shape (1 + entropy + rank + 2 top_k, N),
    float32.
    """
    n_words = head.weight.shape[0]
    found = torch.empty(1 + entropy + rank + 2 * top_k, len(targets), dtype=torch.float32, device=hidden.device)
    for at in range(0, len(targets), block_tokens):
        rows, target = hidden[at : at + block_tokens], targets[at : at + block_tokens]
        exact = head.target_logits(rows, target) if rank or head.rounds else None
        bar = exact if rank else None
        total, weighted, above, target_logit = torch.zeros(4, len(target), dtype=torch.float32, device=hidden.device)
        peak = torch.full_like(total, torch.finfo(torch.float32).min)
        top = (peak[:, None].repeat(1, top_k), torch.zeros(len(target), top_k, dtype=torch.int64, device=hidden.device))
        state: State = (peak, total, weighted, above, target_logit)
        for first in range(0, n_words, block_words):
            logits = head.logits(rows, first, min(first + block_words, n_words))
            if exact is not None and head.rounds:
                inside = torch.nonzero((target >= first) & (target < first + logits.shape[1]))[:, 0]
                logits[inside, target[inside] - first] = exact[inside]
            state = accumulate(logits, target - first, bar, state, entropy=entropy)
            if top_k:
                top = merge_top(top, logits, first)
        peak, total, weighted, above, target_logit = state
        columns = [(total.log() + peak - target_logit).clamp_min(0)]
        if entropy:
            columns.append((total.log() - weighted / total).clamp_min(0))
        if rank:
            columns.append(above)
        log_p = (top[0] - (total.log() + peak)[:, None]).clamp_max(0)
        columns += [*log_p.unbind(dim=1), *top[1].float().unbind(dim=1)]
        found[:, at : at + block_tokens] = torch.stack(columns)
    return found
