"""The numbers of a comparison of bits per byte."""

import math
from dataclasses import dataclass
from typing import Literal

from rho_score.ranking.effects import (
    Estimate,
    Matched,
    matched,
    mean_difference,
    ratio_difference,
    share_estimate,
    superiority,
)
from rho_score.ranking.histogram import Group
from rho_score.ranking.rates import Rates
from rho_score.reporting.shown_documents import ShownDocument

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TAILS = (0.01, 0.99)
NEGLIGIBLE, SMALL, MEDIUM = 0.147, 0.33, 0.474
"""Bounds of the absolute value of Cliff's delta (Romano et al. 2006)."""
COMMON = 0.5
"""The share of documents that must have a counterpart of like length for the verdict to be about those."""
FAR = 0.05
"""The share of documents outside `TAILS` from which on a sample is said to be more spread."""

Verdict = Literal["alike", "more spread", "harder", "easier", "undecided"]


@dataclass(frozen=True, kw_only=True)
class PartStats:
    """The documents of a score set, or of one of its groups."""

    name: str
    """The score set's name."""
    group: Group
    """None for documents without a group, and in `CompareSummary.sets`."""
    label: str
    """The set and its group in words."""
    documents: int
    tokens: int
    """Tokens with a loss."""
    bytes: int
    """UTF-8 bytes of these tokens."""
    bits_per_byte: float
    """Their loss in bits divided by their bytes."""
    mean_loss: float
    """Their loss in nats divided by their number."""
    mean: float
    """The mean of the documents' bits per byte, in which each document has the same weight."""
    quantiles: tuple[float, ...]
    """The documents' bits per byte at `QUANTILES`, with the precision of float16."""

    @classmethod
    def of(cls, rates: Rates, name: str, group: Group, label: str) -> "PartStats":
        """The numbers of at least one document."""
        sums = rates.added
        return cls(
            name=name,
            group=group,
            label=label,
            documents=rates.documents,
            tokens=round(sums.tokens),
            bytes=round(sums.n_bytes),
            bits_per_byte=sums.bits / sums.n_bytes,
            mean_loss=sums.bits * math.log(2) / sums.tokens,
            mean=sums.rates / sums.documents,
            quantiles=tuple(rates.quantiles(QUANTILES)),
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A set or a group beside the first set, or a group beside the rest of its set."""

    name: str
    group: Group
    """None if `whole`, and for documents without a group."""
    whole: bool
    """True if all documents of the set are compared."""
    label: str
    against: str
    """What the first is called in words."""
    difference: Estimate
    """Bits per byte of a document, the mean of this minus that of the first."""
    weighted_difference: Estimate
    """Bits per byte of all text, this minus the first: every byte has the same weight."""
    superiority: Estimate
    """The probability that a random document of this is harder than one of the first; ties are half."""
    matched: Matched | None
    """The same at like length; None if no length has two documents of both."""
    below: float
    """The share of documents below the 1 % quantile of the first."""
    above: float
    """The share of documents above the 99 % quantile of the first."""
    outside: Estimate
    """The sum of both; 0.02 is as in the first."""

    @classmethod
    def of(
        cls, first: Rates, other: Rates, *, name: str, group: Group, whole: bool, label: str, against: str
    ) -> "Comparison":
        """The comparison of two samples, each with at least one document."""
        low, high = first.quantiles(TAILS)
        below, above = other.outside(low, high)
        return cls(
            name=name,
            group=group,
            whole=whole,
            label=label,
            against=against,
            difference=mean_difference(first, other),
            weighted_difference=ratio_difference(first, other),
            superiority=superiority(first, other),
            matched=matched(first, other),
            below=below / other.documents,
            above=above / other.documents,
            outside=share_estimate(below + above, other.documents),
        )

    @property
    def cliffs_delta(self) -> float:
        """Cliff's delta: the probability of being harder minus that of being easier."""
        return 2 * self.superiority.value - 1

    @property
    def at_like_length(self) -> bool:
        """True if the verdict is about documents of like length."""
        return self.matched is not None and self.matched.share >= COMMON

    @property
    def verdict(self) -> Verdict:
        """What the interval of Cliff's delta, at like length if possible, says of the difference."""
        basis = self._basis
        low, high = 2 * basis.low - 1, 2 * basis.high - 1
        if low >= NEGLIGIBLE:
            return "harder"
        if high <= -NEGLIGIBLE:
            return "easier"
        if not -NEGLIGIBLE < low <= high < NEGLIGIBLE:
            return "undecided"
        return "more spread" if self.outside.low > FAR else "alike"

    @property
    def size(self) -> str:
        """Cliff's delta, at like length if possible, in a word."""
        delta = abs(2 * self._basis.value - 1)
        return next((word for bound, word in _SIZES if delta < bound), "large")

    @property
    def _basis(self) -> Estimate:
        return self.matched.superiority if self.matched is not None and self.at_like_length else self.superiority


_SIZES = ((NEGLIGIBLE, "negligible"), (SMALL, "small"), (MEDIUM, "medium"))


@dataclass(frozen=True, kw_only=True)
class CompareSummary:
    """How far each score set, or each group, is from the first."""

    sets: list[PartStats]
    """In the order in which they were given."""
    groups: list[PartStats]
    """By set and by the name of the group; empty without `per_group`."""
    comparisons: list[Comparison]
    """Of each set but the first, each followed by its groups; of the groups, if there is one set."""
    documents: list[ShownDocument]
    left_out: dict[str, int]
    """Documents without bits per byte, by set: they have no token with a loss, no byte of text, or
    an infinite loss."""
    units: dict[str, tuple[int, int]]
    """The units that were used and those of the plan, by set."""
