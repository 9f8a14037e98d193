"""What a selection keeps: the summary that a call returns, and the content of `summary.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy
from rho_score.files.json import JsonObject
from rho_score.ranking.cuts import Cut
from rho_score.ranking.histogram import Group, Ranking, by_ranking
from rho_score.ranking.rules import KeptRange
from rho_score.selecting.ranked_items import Ranker
from rho_score.stores.counts import GroupCounts


@dataclass(frozen=True, kw_only=True)
class SelectSummary:
    """What a selection keeps."""

    output: str
    units: int
    """Units of the selection."""
    planned: int
    """Units of the corpus. There are more than `units` if a score set is not finished."""
    computed: int
    """Units that this call wrote."""
    total: GroupCounts
    groups: dict[Group, GroupCounts]
    """By the group's name; one group, None, if there are none."""
    cuts: list[JsonObject]
    """A row for each ranking: expert, group, threshold (nats; None if no item is kept) and kept
    (the number of items)."""
    per_group: bool
    retries: dict[str, int]
    """Storage calls that were made again, by kind of error: those of the driver and of its finished
    tasks."""
    approximate: bool = False
    """True for a dry run whose groups share the tokens at the threshold in proportion. The cuts and
    the total are exact."""
    wall_s: float

    @property
    def thresholds(self) -> dict[Group, float | None]:
        """Thresholds by group, nats; empty if each reference has its own ranking."""
        return {row["group"]: row["threshold"] for row in self.cuts if row["expert"] is None}

    def threshold_of(self, group: Group) -> float | None:
        """The threshold that applies to a group, nats; None if no item is kept."""
        return self.thresholds.get(group if self.per_group else None)


def summary_content(
    ranker: Ranker,
    n_units: int,
    ranges: Mapping[Ranking, KeptRange],
    kept: Mapping[Ranking, int],
    groups: Mapping[Group, GroupCounts],
) -> JsonObject:
    """The content of `summary.json`. kept: how many items each ranking keeps."""
    config, bits = ranker.config, ranker.bits
    names = sorted(groups, key=lambda group: (group is None, group or ""))
    return {
        "units": n_units,
        "score": ranker.score,
        "level": config.level,
        "keep": "high" if ranker.high else "low",
        "high_first": ranker.best_high,
        "bits": bits,
        "groups": [{"group": group, **asdict(groups[group])} for group in names],
        "thresholds": [
            {
                "expert": ranking.reference,
                "group": ranking.group,
                "threshold": None if one.keep.nothing else one.keep.value(bits),
                "dropped_from": None if one.drop is None or one.drop.nothing else one.drop.value(bits),
                "kept": kept[ranking],
            }
            for ranking, one in (ranges.items() if config.scope == "corpus" else ())
        ],
    }


def foreseen_groups(
    histogram: pa.Table, ranges: Mapping[Ranking, KeptRange], *, per_group: bool
) -> dict[Group, GroupCounts]:
    """What would be kept of the scored tokens of each group, read off the histogram.

    Documents are not counted, since the histogram has none. Groups that share a cut share the
    tokens at it in proportion, rounded so that they add up to what the cut keeps.
    """
    groups: dict[Group, GroupCounts] = {}
    kept_so_far: dict[Group, float] = {}
    for (_, group), counts in by_ranking(histogram):
        ranked = group if per_group else None
        keys, tokens = (as_numpy(counts[column]) for column in ("key", "tokens"))
        before = kept_so_far.get(ranked, 0.0)
        kept_so_far[ranked] = before + float((_share_kept(keys, ranges[Ranking(None, ranked)]) * tokens).sum())
        groups[group] = GroupCounts(
            tokens=int(tokens.sum()),
            tokens_scored=int(tokens.sum()),
            tokens_kept=round(kept_so_far[ranked]) - round(before),
        )
    return groups


def _share_kept(keys: np.ndarray, kept: KeptRange) -> np.ndarray:
    """The share of each key's items that is kept, float64[n_keys]."""

    def before(cut: Cut) -> np.ndarray:
        return np.where(cut.before(keys), 1.0, np.where(keys == cut.key, cut.ties / max(cut.tied, 1), 0.0))

    share: np.ndarray = before(kept.keep) if kept.drop is None else before(kept.keep) - before(kept.drop)
    return share.clip(0)
