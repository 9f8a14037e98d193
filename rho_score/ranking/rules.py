"""The rules of a selection: where a rule cuts a ranking, and how parts of a corpus share the ties.

Pure functions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.errors import InputError
from rho_score.ranking.cuts import BudgetCut, Cut, cut_budget, cut_items, cut_threshold
from rho_score.ranking.keys import Bits


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How much of a ranking is kept.

    Exactly one of ratio (a share of the items), tokens and threshold (nats) is given. drop_top is
    the share of the items that is left out first, at the kept end.
    """

    ratio: float | None = None
    tokens: int | None = None
    threshold: float | None = None
    drop_top: float = 0.0


@dataclass(frozen=True)
class KeptRange:
    """The items of a ranking that are kept: those before `keep`, without those before `drop`."""

    keep: Cut
    drop: Cut | None = None

    def kept(self, at_the_cut: int = 0) -> int:
        """The number of items. at_the_cut: with a budget, the documents at the cut that fit it."""
        return max(0, self.keep.kept + at_the_cut - (self.drop.kept if self.drop else 0))

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """`keep`, and `drop` if there is one."""
        return (self.keep, self.drop) if self.drop else (self.keep,)


def drop_cut(histogram: pa.Table, rule: Rule, *, high: bool) -> Cut | None:
    """The cut that ends the items which `rule.drop_top` leaves out; None if it leaves out none."""
    if not rule.drop_top:
        return None
    return cut_items(histogram, round(rule.drop_top * n_items(histogram)), high=high)


def kept_range(
    histogram: pa.Table, rule: Rule, *, high: bool, bits: Bits, whole_documents: bool, dropped_tokens: int = 0
) -> KeptRange:
    """The items of one ranking that a rule keeps.

    whole_documents: True if the items are documents, so that a budget of tokens is filled with
    whole ones. dropped_tokens: for such a budget, the tokens of the documents that `drop_cut`
    leaves out.
    """
    drop = drop_cut(histogram, rule, high=high)
    before = drop.kept if drop else 0
    if rule.threshold is not None:
        keep = cut_threshold(histogram, rule.threshold, high=high, bits=bits)
    elif rule.ratio is not None:
        keep = cut_items(histogram, before + round(rule.ratio * n_items(histogram)) if rule.ratio else 0, high=high)
    else:
        assert rule.tokens is not None
        if whole_documents:
            keep = cut_budget(histogram, rule.tokens + dropped_tokens, high=high)
        else:
            keep = cut_items(histogram, before + rule.tokens if rule.tokens else 0, high=high)
    return KeptRange(keep, drop)


def n_items(histogram: pa.Table) -> int:
    """The number of items in a histogram."""
    return int(pc.sum(histogram["count"]).as_py() or 0)


def share_ties(cut: Cut, counts: Sequence[int] | np.ndarray) -> list[int]:
    """How many of its items at the cut each part of the corpus keeps.

    Together they keep `cut.ties` items, the first in corpus order. counts: the number of items at
    the cut in each part, in corpus order.
    """
    found = np.asarray(counts, np.int64)
    before = np.cumsum(found) - found
    shares: list[int] = np.clip(cut.ties - before, 0, found).tolist()
    return shares


def share_budget(cut: BudgetCut, lengths: Sequence[Sequence[int]]) -> list[int]:
    """How many of its documents at the cut each part of the corpus keeps.

    Documents are kept in corpus order, up to the first that does not fit the budget. lengths: the
    tokens of each document at the cut, by part, in corpus order.
    """
    shares, left = [0] * len(lengths), cut.budget
    for i, part in enumerate(lengths):
        tokens = np.asarray(part, np.int64)
        shares[i] = int(np.searchsorted(np.cumsum(tokens), left, side="right"))
        left -= int(tokens[: shares[i]].sum())
        if shares[i] < len(tokens):
            break
    return shares


def local_mask(values: np.ndarray, runs: np.ndarray, rule: Rule, *, high: bool) -> np.ndarray:
    """True for the items that are kept if each run of `values` is ranked by itself, bool[n].

    A run keeps the share `rule.ratio` of its items, after leaving out the first `rule.drop_top`.
    Both numbers are rounded in each run, and ties go to the first items. values: NaN is no item.
    runs: length of each consecutive run, int64[n_runs].
    """
    assert rule.ratio is not None
    owner = np.repeat(np.arange(len(runs)), runs)
    present = np.flatnonzero(~np.isnan(values))
    scores = values[present].astype(np.float32)
    order = present[np.lexsort((-scores if high else scores, owner[present]))]
    counts = np.bincount(owner[present], minlength=len(runs))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    drop = np.rint(rule.drop_top * counts)
    keep = np.repeat(drop + np.rint(rule.ratio * counts), counts)
    mask = np.zeros(len(values), bool)
    mask[order[(rank >= np.repeat(drop, counts)) & (rank < keep)]] = True
    return mask


def check_share(flag: str, share: float) -> None:
    """Raises InputError if `share` is not between 0 and 1."""
    if not 0 <= share <= 1:
        raise InputError(f"{flag} must be a share between 0 and 1, got {share}.")


def check_budget(tokens: int) -> None:
    """Raises InputError if `tokens` is negative."""
    if tokens < 0:
        raise InputError(f"--tokens must not be negative, got {tokens}.")


def check_threshold(threshold: float) -> None:
    """Raises InputError if `threshold` is not finite, since manifests store such values alike."""
    if not math.isfinite(threshold):
        raise InputError(f"--threshold must be a finite number of nats, got {threshold}.")
