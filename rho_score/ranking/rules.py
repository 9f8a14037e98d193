"""The rules of a selection: from a histogram and a rule to where the ranking is cut, and the masks of a unit. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.errors import InputError
from rho_score.ranking.cuts import Cut, cut_budget, cut_items, cut_threshold
from rho_score.ranking.keys import Bits


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How much of a ranking is kept: one of ratio (of its items), tokens, threshold; after the first `drop_top` of its items."""

    ratio: float | None = None
    tokens: int | None = None
    threshold: float | None = None
    drop_top: float = 0.0


@dataclass(frozen=True)
class Band:
    """The items of a ranking that are kept: those before `keep`, but for those before `drop`."""

    keep: Cut
    drop: Cut | None = None

    def kept(self, at_the_cut: int = 0) -> int:
        """How many items. `at_the_cut`: with a budget, so many of those at the cut fit it."""
        return max(0, self.keep.kept + at_the_cut - (self.drop.kept if self.drop else 0))

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """`keep`, and `drop` if there is one."""
        return (self.keep, self.drop) if self.drop else (self.keep,)


def drop_cut(histogram: pa.Table, rule: Rule, *, high: bool) -> Cut | None:
    """Where the noisiest end; None where none are left out."""
    if not rule.drop_top:
        return None
    return cut_items(histogram, round(rule.drop_top * n_items(histogram)), high=high)


def band(histogram: pa.Table, rule: Rule, *, high: bool, bits: Bits, whole: bool, dropped_tokens: int = 0) -> Band:
    """Where one ranking is cut.

    whole: items are documents, and a budget of tokens is filled with whole ones. dropped_tokens: for that, the tokens of the
    documents that `drop_cut` leaves out.
    """
    drop = drop_cut(histogram, rule, high=high)
    before = drop.kept if drop else 0
    if rule.threshold is not None:
        keep = cut_threshold(histogram, rule.threshold, high=high, bits=bits)
    elif rule.ratio is not None:
        keep = cut_items(histogram, before + round(rule.ratio * n_items(histogram)) if rule.ratio else 0, high=high)
    else:
        assert rule.tokens is not None
        if whole:
            keep = cut_budget(histogram, rule.tokens + dropped_tokens, high=high)
        else:
            keep = cut_items(histogram, before + rule.tokens if rule.tokens else 0, high=high)
    return Band(keep, drop)


def n_items(histogram: pa.Table) -> int:
    """Items in a histogram."""
    return int(pc.sum(histogram["count"]).as_py() or 0)


def share_ties(cut: Cut, found: Sequence[int] | Sequence[Sequence[int]]) -> list[int]:
    """How many of its items at the cut each part of the corpus keeps: the first in corpus order, `cut.ties` of them.

    found: the number of items at the cut in each part, in corpus order; with a budget the tokens of each of them, and those
    are kept that fit it up to the first that does not.
    """
    quotas = np.zeros(len(found), np.int64)
    if cut.budget is None:
        before = np.cumsum(found) - np.asarray(found, np.int64)
        quotas = np.clip(cut.ties - before, 0, found)
    else:
        left = cut.budget
        for i, tokens in enumerate(found):
            costs = np.asarray(tokens, np.int64)
            quotas[i] = np.searchsorted(np.cumsum(costs), left, side="right")
            left -= int(costs[: quotas[i]].sum())
            if quotas[i] < len(costs):
                break
    taken: list[int] = quotas.tolist()
    return taken


def local_mask(values: np.ndarray, runs: np.ndarray, rule: Rule, *, high: bool) -> np.ndarray:
    """bool[n]: in each consecutive run of `values` its share `rule.ratio`, after its first `rule.drop_top`.

    runs: lengths, int64[n_runs]. NaN are no items; ties go to the first; counts are rounded for each run by itself.
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
    """Raises InputError where it is none."""
    if not 0 <= share <= 1:
        raise InputError(f"{flag} is a share between 0 and 1, got {share}.")


def check_budget(tokens: int) -> None:
    """Raises InputError where it is none."""
    if tokens < 0:
        raise InputError(f"--tokens is a number of tokens, got {tokens}.")


def check_threshold(threshold: float) -> None:
    """Raises InputError where it is none: infinite ones would be alike in a manifest."""
    if not math.isfinite(threshold):
        raise InputError(f"--threshold is a finite number of nats, got {threshold}.")
