"""The loss of Selective Language Modeling: the mean over the tokens that score best in a batch.

    loss = SelectiveLoss(ratio=0.6)(token_loss, ref_loss, valid)

A token's score is its excess loss, `token_loss - ref_loss`, where `token_loss` is that of the model
in training (Rho-1, arXiv 2404.07965, equation 4). The selection carries no gradient: the gradient
is that of the mean loss of the selected tokens.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist

from rho_score.errors import InputError
from rho_score.training.ranks import Ranks

Scope = Literal["micro", "ema"]

_HALF = 1 << 16
_SIGN = 1 << 31


class Selected(NamedTuple):
    """What a selection takes of a batch."""

    mask: torch.Tensor
    """True for each selected token, bool, shape of the scores."""
    threshold: torch.Tensor
    """The score of the last selected token or, with scope ema or a fixed threshold, the score from
    which on tokens are taken. A float32 scalar in nats; +inf if nothing is selected."""
    n_selected: torch.Tensor
    """The number of selected tokens on all ranks, an int64 scalar."""


class SelectiveLoss(torch.nn.Module):
    """The mean loss of the tokens with the highest excess loss.

    ratio: the share of the eligible tokens to select, from 0 to 1. With scope "micro" it is exact:
    `round(ratio * n)` of the n eligible tokens of this call on all ranks; tokens that tie at the
    cut are taken in the order of ranks and places. With scope "ema" the tokens are those at or
    above a threshold that earlier calls left: an exponential moving average of the exact cuts, with
    `decay`. The first call has no earlier one and takes its own cut.

    threshold: the excess in nats from which on tokens are selected, in place of a ratio.

    group: the process group over which a batch is spread; by default all ranks, if
    torch.distributed is initialised.

    Raises InputError if not exactly one of ratio and threshold is given, or one is out of range.
    """

    ema: torch.Tensor
    """The threshold that earlier calls left, a float32 scalar; NaN before the first call."""

    def __init__(
        self,
        *,
        ratio: float | None = None,
        threshold: float | None = None,
        scope: Scope = "micro",
        decay: float = 0.9,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        if (ratio is None) == (threshold is None):
            raise InputError("give exactly one of ratio and threshold.")
        if ratio is not None and not 0 < ratio <= 1:
            raise InputError(f"the ratio must be above 0 and at most 1, got {ratio}.")
        if threshold is not None and not math.isfinite(threshold):
            raise InputError(f"the threshold must be a finite number of nats, got {threshold}.")
        if scope == "ema" and ratio is None:
            raise InputError("scope ema averages the cuts of a ratio: give a ratio in place of the threshold.")
        if not 0 <= decay < 1:
            raise InputError(f"the decay must be at least 0 and below 1, got {decay}.")
        self.ratio, self.threshold, self.scope, self.decay = ratio, threshold, scope, decay
        self._ranks = Ranks(group)
        self.register_buffer("ema", torch.tensor(math.nan))

    def forward(
        self,
        token_loss: torch.Tensor,
        ref_loss: torch.Tensor,
        valid: torch.Tensor,
        divisor: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        """Returns the sum of the selected losses divided by their number on all ranks, a scalar.

        It is multiplied by the number of ranks, because data parallelism averages gradients: the
        mean of what the ranks return is the mean loss of the tokens that are selected on all.

        token_loss: loss of each token under the model in training, nats, float[...]; gradients flow
        into it. ref_loss: loss of the same tokens under the reference, float[...]; NaN where there
        is none, and such a token is never selected. valid: False for tokens that are no targets,
        bool[...]. divisor: what the sum is divided by, in place of the number of tokens selected in
        this call. Under gradient accumulation, give the number of tokens that all calls of the step
        select together; `expected` tells it beforehand.
        """
        eligible = valid & ~torch.isnan(ref_loss)
        selected = self.select(token_loss.detach() - ref_loss, eligible)
        kept = torch.where(selected.mask, token_loss, torch.zeros((), dtype=token_loss.dtype, device=token_loss.device))
        by = selected.n_selected.clamp_min(1) if divisor is None else divisor
        return kept.float().sum() * self._ranks.size / by

    def expected(self, n_eligible: torch.Tensor) -> torch.Tensor:
        """Returns how many of so many eligible tokens on all ranks a ratio selects, int64[...].

        It is exact with scope micro. Without a ratio it is the number itself.
        """
        if self.ratio is None:
            return n_eligible.to(torch.int64)
        return torch.round(n_eligible.to(torch.float64) * self.ratio).to(torch.int64)

    @torch.no_grad()
    def select(self, scores: torch.Tensor, eligible: torch.Tensor) -> Selected:
        """Selects by any scores, the highest first.

        scores: float32[...], nats. A NaN score of an eligible token counts as the highest, so that
        a model that diverged does not go on unseen. eligible: bool[...].
        """
        scores = scores.detach().float()
        if self.threshold is not None:
            cut = torch.full((), self.threshold, dtype=torch.float32, device=scores.device)
            return self._from(scores, eligible, cut)
        exact = self._exact(scores, eligible)
        if self.scope == "micro":
            return exact
        before = torch.where(torch.isnan(self.ema), exact.threshold, self.ema)
        following = self.decay * before + (1 - self.decay) * exact.threshold
        # A batch without eligible tokens has an infinite cut, which says nothing.
        self.ema.copy_(torch.where(torch.isfinite(following), following, self.ema))
        return self._from(scores, eligible, before)

    def _from(self, scores: torch.Tensor, eligible: torch.Tensor, cut: torch.Tensor) -> Selected:
        mask = eligible & ~(scores < cut)
        return Selected(mask, cut, self._ranks.sum(mask.sum()))

    def _exact(self, scores: torch.Tensor, eligible: torch.Tensor) -> Selected:
        """The best `ratio` of the eligible scores on all ranks.

        The cut is found in two passes over histograms of 65,536 counters each, one of the upper and
        one of the lower half of a 32-bit key, which are summed over the ranks.
        """
        keys = _keys(scores.flatten())
        flat = eligible.flatten()
        upper, lower = keys // _HALF, keys % _HALF
        counts = self._ranks.sum(_histogram(upper, flat))
        k = self.expected(counts.sum())
        upper_bin, above = _bin_of(counts, k)
        inside = flat & (upper == upper_bin)
        fine = self._ranks.sum(_histogram(lower, inside))
        lower_bin, more = _bin_of(fine, k - above)
        cut = upper_bin * _HALF + lower_bin
        ties = flat & (keys == cut)
        left = k - above - more
        taken = ties & (torch.cumsum(ties, 0) + self._ranks.before(ties.sum()) <= left)
        mask = (flat & (keys > cut)) | taken
        lowest = torch.where(mask, scores.flatten(), torch.inf).amin() if len(flat) else scores.new_tensor(torch.inf)
        return Selected(mask.view(scores.shape), self._ranks.min(lowest), k)


def _keys(scores: torch.Tensor) -> torch.Tensor:
    """Keys of float32 scores, int64[n] from 0 to 2**32 - 1, in the order of the scores.

    -0.0 has the key of 0.0, and NaN has the highest of all.
    """
    scores = torch.where(torch.isnan(scores), torch.full_like(scores, torch.nan).abs(), scores)
    bits = scores.contiguous().view(torch.int32).to(torch.int64)
    return torch.where(bits >= 0, bits, -_SIGN - bits) + _SIGN


def _histogram(places: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros(_HALF, dtype=torch.int64, device=places.device)
    return counts.scatter_add_(0, places, of.to(torch.int64))


def _bin_of(counts: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The bin of the k-th highest item, and how many items are in higher bins; int64 scalars.

    With k = 0 the bin is the highest one, and no item of it is wanted.
    """
    falling = counts.flip(0)
    from_top = torch.cumsum(falling, 0)
    place = torch.searchsorted(from_top, k.clamp_min(1).reshape(1)).clamp_max(_HALF - 1)
    higher = from_top.gather(0, place) - falling.gather(0, place)
    return (_HALF - 1 - place).squeeze(0), higher.squeeze(0)
