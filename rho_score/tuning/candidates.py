"""The candidates of a tuning, and how many steps each gets. No files here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rho_score.config import TuneConfig

FINALISTS = 2
"""Candidates that are trained with several seeds, beside the control."""


@dataclass(frozen=True, order=True)
class Candidate:
    """A rule of selection and a learning rate."""

    kind: str
    """all, live (ranked while the model trains) or stored (a selection's mask)."""
    ratio: float | None
    """The share of tokens; None for all of them."""
    documents: float | None
    """The share of tokens that a selection of documents keeps first; None for all documents."""
    learning_rate: float

    @property
    def rule(self) -> str:
        """The rule as a name: all, live-0.3, stored-0.6, documents-0.3, documents-0.3-live-0.3."""
        tokens = "" if self.ratio is None else f"{self.kind}-{self.ratio:g}"
        documents = "" if self.documents is None else f"documents-{self.documents:g}"
        return "-".join(part for part in (documents, tokens) if part) or "all"

    @property
    def name(self) -> str:
        """The rule and the learning rate."""
        return f"{self.rule}-lr-{self.learning_rate:g}"

    @property
    def is_control(self) -> bool:
        """True if it trains on all tokens."""
        return self.kind == "all"


def candidates_of(config: TuneConfig) -> list[Candidate]:
    """All candidates, the control first. Those that need a base model are left out without one."""
    rules: list[tuple[str, float | None, float | None]] = [("all", None, None)]
    rules += [("live", ratio, None) for ratio in config.ratio]
    if config.base is not None:
        rules += [("stored", ratio, None) for ratio in config.ratio]
        for share in config.documents:
            rules.append(("stored", None, share))
            rules += [("live", ratio, share) for ratio in config.ratio]
    return [Candidate(*rule, rate) for rule in dict.fromkeys(rules) for rate in config.learning_rate]


@dataclass(frozen=True)
class Rung:
    """Runs of one length."""

    n_candidates: int
    doublings: int
    """Their steps are those of the first rung, doubled so many times."""
    n_seeds: int
    """Above 1 in the last rung."""


def rungs_of(n_candidates: int, seeds: int) -> list[Rung]:
    """The rungs: each has half of the candidates of the one before, and runs of twice the length.

    In the last one are the best two and the best control.
    """
    found: list[Rung] = []
    left = n_candidates
    while left > FINALISTS + 1:
        found.append(Rung(left, len(found), 1))
        left = max(FINALISTS + 1, math.ceil(left / 2))
    return [*found, Rung(left, len(found), seeds)]


def total_seconds(rungs: Sequence[Rung], *, steps: int, step_s: float, start_s: float) -> float:
    """The seconds that all runs take if those of the first rung have so many steps."""
    seconds = 0.0
    for rung in rungs:
        seconds += rung.n_candidates * rung.n_seeds * (start_s + float(steps * 2**rung.doublings) * step_s)
    return seconds


def first_steps(rungs: Sequence[Rung], *, budget_s: float, step_s: float, start_s: float) -> float:
    """The steps of a run of the first rung, with which all runs take `budget_s` together.

    step_s: of a step. start_s: of what a run takes beside its steps.
    """
    starts = total_seconds(rungs, steps=0, step_s=step_s, start_s=start_s)
    one = total_seconds(rungs, steps=1, step_s=step_s, start_s=start_s)
    return (budget_s - starts) / (one - starts)


def survivors(ranked: Sequence[Candidate], n: int) -> list[Candidate]:
    """The best `n` of candidates, with the best control in any case. ranked: the best one first."""
    control = next(candidate for candidate in ranked if candidate.is_control)
    best = [candidate for candidate in ranked if candidate is not control][: n - 1]
    return [candidate for candidate in ranked if candidate is control or candidate in best]
