"""Which tokens of a micro-batch a run trains on, and the sums that its log needs."""

from typing import Literal, NamedTuple

import numpy as np
import torch

from rho_score.files.json import JsonObject
from rho_score.training.ranks import Ranks
from rho_score.training.selective_loss import Scope, Selected, SelectiveLoss

Pick = Literal["excess", "random", "high-loss", "low-reference"]


class SelectionRule(NamedTuple):
    """What a run selects by. All targets are taken if there is neither ratio nor threshold."""

    ratio: float | None = None
    threshold: float | None = None
    scope: Scope = "micro"
    pick: Pick = "excess"

    @property
    def takes_all(self) -> bool:
        """True if every target is trained on. Otherwise one without a reference loss never is."""
        return self.ratio is None and self.threshold is None


class TokenSelection:
    """Chooses tokens by a rule, and counts what it chose."""

    SUMS = ("targets", "loss", "kept", "kept_loss", "threshold", "calls")
    """What `statistics` holds: targets, the sum of their losses, selected tokens, the sum of their
    losses, the threshold, and 1 if there is one. All but the last two are sums over this rank's
    tokens alone."""

    def __init__(self, rule: SelectionRule) -> None:
        self.rule = rule
        self.loss = None
        if not rule.takes_all:
            self.loss = SelectiveLoss(ratio=rule.ratio, threshold=rule.threshold, scope=rule.scope)

    def choose(self, losses: torch.Tensor, reference: torch.Tensor, noise: torch.Tensor | None) -> Selected:
        """The tokens to train on. losses, reference: nats, float32[N]. noise: float32[N]."""
        if self.loss is None:
            every = torch.ones(len(losses), dtype=torch.bool, device=losses.device)
            return Selected(every, losses.new_tensor(float("nan")), every.sum())
        if self.rule.pick == "random":
            assert noise is not None
            scores = noise
        else:
            scores = {
                "excess": losses - reference,
                "high-loss": losses,
                "low-reference": -reference,
            }[self.rule.pick]
        self.loss.to(losses.device)
        return self.loss.select(scores, ~torch.isnan(reference))

    def state(self) -> JsonObject:
        """What later micro-batches depend on, besides the model."""
        return {"ema": None if self.loss is None or torch.isnan(self.loss.ema) else float(self.loss.ema)}

    def load_state(self, state: JsonObject) -> None:
        """Goes on from a state."""
        if self.loss is not None and state["ema"] is not None:
            self.loss.ema.fill_(state["ema"])

    def planned(self, eligible: list[float], ranks: Ranks, device: torch.device) -> torch.Tensor:
        """How many tokens the micro-batches of a step will select on all ranks, a float64 scalar.

        It is exact for all rules but a threshold and scope ema, where it is the number of eligible
        tokens, or the ratio of it. 1 in place of 0.

        eligible: the eligible tokens of this rank in each micro-batch, or the sum of their weights.
        """
        counts = ranks.sum(torch.tensor(eligible, dtype=torch.float64, device=device))
        if self.loss is not None:
            counts = self.loss.expected(counts)
        planned = counts.sum().to(torch.float64)
        return torch.where(planned > 0, planned, torch.ones_like(planned))

    def is_planned_exactly(self) -> bool:
        """True if `planned` is what will be selected."""
        return self.rule.takes_all or (self.rule.threshold is None and self.rule.scope == "micro")

    @staticmethod
    def statistics(losses: torch.Tensor, chosen: Selected) -> torch.Tensor:
        """The sums of a micro-batch, float64[len(SUMS)]."""
        exact = losses.double()
        kept = chosen.mask.sum().double()
        threshold = chosen.threshold.double()
        known = torch.isfinite(threshold)  # it is infinite if nothing was selected, and NaN without a rule
        return torch.stack(
            [
                torch.tensor(float(len(losses)), dtype=torch.float64, device=losses.device),
                exact.sum(),
                kept,
                exact[chosen.mask].sum(),
                torch.where(known, threshold, torch.zeros_like(threshold)),
                known.double(),
            ]
        )


def token_noise(seed: int, place: int, size: int) -> np.ndarray:
    """Uniform random numbers for the tokens of the block at a place of the run's order, float32[size].

    They depend on the seed and the place alone, not on the rank that reads the block.
    """
    return np.random.Generator(np.random.Philox([seed, place])).random(size, dtype=np.float32)
