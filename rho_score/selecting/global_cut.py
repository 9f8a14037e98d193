"""Cuts the rankings of the whole corpus.

It counts coarsely and cuts, then counts the bins around the cuts in detail and cuts exactly.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from rho_score.cluster.ray_cluster import connected
from rho_score.cluster.tasks import in_tasks
from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_numpy
from rho_score.ranking.cuts import BudgetCut, Cut
from rho_score.ranking.histogram import NO_COUNTS, Group, Ranking, by_ranking, refine, without_groups
from rho_score.ranking.keys import keys_of
from rho_score.ranking.rules import KeptRange, Rule, kept_range, share_budget, share_ties
from rho_score.ranking.weights import Weighting
from rho_score.selecting.batches import Batch, fetched, histogram_in_turn, histogram_of
from rho_score.selecting.count import BatchCounter
from rho_score.selecting.options import parse_quotas


class GlobalCut:
    """Cuts the rankings of a corpus.

    `histogram` is that of the whole corpus by reference and group (`histogram.COUNTS`), and
    `ranges` says what each ranking keeps. Each 16-bit key has its own counter, so the first cut is
    exact. Of 32-bit keys the high halves are counted first. The bins that a cut falls into are then
    counted by the low halves.
    """

    def __init__(self, counter: BatchCounter, batches: Sequence[Batch], rules: Callable[[Ranking], Rule]) -> None:
        self._counter, self._ranker, self._batches = counter, counter.ranker, batches
        self._config = counter.ranker.config
        self._rule_of = rules
        self._coarse = self.histogram = NO_COUNTS
        self._tables: dict[Ranking, pa.Table] = {}
        self._refined: dict[Ranking, list[int]] = {}
        self._dropped_tokens: dict[Ranking, int] = {}
        self.ranges: dict[Ranking, KeptRange] = {}

    def run(self) -> "GlobalCut":
        """Counts and cuts; returns itself."""
        self._coarse = self.histogram = self._counted(None)
        self._cut_and_refine()
        if self._charge_dropped_documents():
            self._cut_and_refine()
        return self

    def _cut_and_refine(self) -> None:
        """Cuts and counts in detail the bins that cuts fall into, until none is missing."""
        self._cut()
        while missing := self._missing_bins():
            self._refined = missing
            self.histogram = refine(self._coarse, self._counted(missing))
            self._cut()

    def _counted(self, refined_bins: Mapping[Ranking, list[int]] | None) -> pa.Table:
        """The histogram of all batches."""
        workers = self._config.workers
        if self._config.dry_run and not connected():
            count = partial(self._counter.count, refined_bins=refined_bins)
            return histogram_in_turn(count, self._batches, workers=workers)
        return histogram_of(partial(self._counter.counts, refined_bins=refined_bins), self._batches, workers=workers)

    def _cut(self) -> None:
        """Reads off the histogram what each ranking keeps."""
        self._tables = self._by_ranking()
        self.ranges = {
            ranking: kept_range(
                counts,
                self._rule_of(ranking),
                high=self._ranker.best_high,
                bits=self._ranker.bits,
                whole_documents=self._config.level == "document",
                dropped_tokens=self._dropped_tokens.get(ranking, 0),
            )
            for ranking, counts in self._tables.items()
        }

    def _by_ranking(self) -> dict[Ranking, pa.Table]:
        """The histogram of each ranking: by reference, and by group if each has its own cut."""
        histogram = self.histogram if self._config.per_group else without_groups(self.histogram)
        tables = dict(by_ranking(histogram))
        if unknown := set(parse_quotas(self._config.quota)) - {"*", *(ranking.group for ranking in tables)}:
            names = _first_names(ranking.group for ranking in tables)
            raise RhoScoreError(f"--quota: no group is called {min(unknown)!r}. The groups are: {names}.")
        if not self._config.per_group:
            for reference in self._ranker.references:
                tables.setdefault(Ranking(reference, None), NO_COUNTS)
        return tables

    def _missing_bins(self) -> dict[Ranking, list[int]]:
        """The bins counted in detail and the further ones that cuts fall into; empty if there are none.

        It is also empty if keys have 16 bits.
        """
        if self._ranker.bits == 16 or self._config.scope != "corpus":
            return {}
        wanted: dict[Ranking, list[int]] = {}
        for counted, _ in by_ranking(self.histogram):
            ranking = Ranking(counted.reference, counted.group if self._config.per_group else None)
            bins = {cut.key >> 16 for cut in self.ranges[ranking].cuts if not cut.nothing}
            if (threshold := self._rule_of(ranking).threshold) is not None:
                bins.add(int(keys_of(np.array([threshold]), 32)[0]) >> 16)
            wanted[counted] = sorted(bins | set(self._refined.get(counted, ())))
        return {} if wanted == self._refined else wanted

    def _charge_dropped_documents(self) -> bool:
        """Counts the tokens of documents that --drop-top leaves out before --tokens are filled.

        Returns True if there are such documents, so that the ranking must be cut again.
        """
        drops = {
            ranking: kept.drop
            for ranking, kept in self.ranges.items()
            if self._config.level == "document" and kept.drop and self._rule_of(ranking).tokens is not None
        }
        if not drops:
            return False
        lengths = self._tie_lengths({ranking: KeptRange(drop) for ranking, drop in drops.items()})
        for ranking, drop in drops.items():
            keys, tokens = (as_numpy(self._tables[ranking][name]) for name in ("key", "tokens"))
            tied = [n for batch in lengths[ranking] for n in batch[0]]
            self._dropped_tokens[ranking] = int(tokens[drop.before(keys)].sum()) + sum(tied[: drop.ties])
        return True

    def weightings(self) -> dict[Ranking, Weighting]:
        """What the items of each ranking weigh; empty without --weights."""
        config, ranker = self._config, self._ranker
        if config.weights is None:
            return {}
        return {
            ranking: Weighting.of(
                config.weights,
                counts,
                threshold=self._threshold(ranking),
                high=ranker.best_high,
                bits=ranker.bits,
                temperature=config.temperature,
            )
            for ranking, counts in self._tables.items()
        }

    def _threshold(self, ranking: Ranking) -> float:
        """The threshold that was given, or the score at the cut; NaN if nothing is kept."""
        given = self._rule_of(ranking).threshold
        return self.ranges[ranking].keep.value(self._ranker.bits) if given is None else given

    def ties(self) -> dict[Ranking, np.ndarray]:
        """How many of its items at each cut every batch keeps, int64[n_batches, n_cuts].

        Only the rankings that keep some of their ties, but not all, are listed. The first ties in
        corpus order are kept.
        """
        if self._config.scope != "corpus":
            return {}
        partial_ranges = {r: kept for r, kept in self.ranges.items() if any(cut.partial for cut in kept.cuts)}
        budgets = {r: kept for r, kept in partial_ranges.items() if isinstance(kept.keep, BudgetCut)}
        others = {r: kept for r, kept in partial_ranges.items() if r not in budgets}
        shares = {r: _shares(others[r], counts) for r, counts in self._count_ties(others).items()}
        return shares | {r: _budget_shares(budgets[r], lengths) for r, lengths in self._tie_lengths(budgets).items()}

    def _count_ties(self, ranges: Mapping[Ranking, KeptRange]) -> dict[Ranking, np.ndarray]:
        """The number of items that each batch has at each cut, int64[n_batches, n_cuts]."""
        found = {ranking: np.zeros((len(self._batches), len(kept.cuts)), np.int64) for ranking, kept in ranges.items()}
        if ranges:
            work = partial(self._counter.count_ties, ranges=ranges, refined_bins=self._refined or None)
            for index, counts in fetched(in_tasks(work, self._batches, workers=self._config.workers)):
                for ranking, of_batch in counts.items():
                    found[ranking][index] = of_batch
        return found

    def _tie_lengths(self, ranges: Mapping[Ranking, KeptRange]) -> dict[Ranking, list[list[list[int]]]]:
        """The tokens of each document at each cut, by batch and cut."""
        found: dict[Ranking, list[list[list[int]]]] = {ranking: [[] for _ in self._batches] for ranking in ranges}
        if ranges:
            work = partial(self._counter.tie_lengths, ranges=ranges)
            for index, lengths in fetched(in_tasks(work, self._batches, workers=self._config.workers)):
                for ranking, of_batch in lengths.items():
                    found[ranking][index] = of_batch
        return found


def _shares(kept: KeptRange, counts: np.ndarray) -> np.ndarray:
    """How many ties each batch keeps, int64[n_batches, n_cuts]. counts: how many it has, alike."""
    return np.array([share_ties(cut, counts[:, i]) for i, cut in enumerate(kept.cuts)], np.int64).T


def _budget_shares(kept: KeptRange, lengths: list[list[list[int]]]) -> np.ndarray:
    """The same as `_shares`, if a budget of tokens is filled.

    lengths: the tokens of the documents at each cut, by batch and cut.
    """

    def share(i: int, cut: Cut) -> list[int]:
        at_cut = [of_batch[i] for of_batch in lengths]
        if isinstance(cut, BudgetCut):
            return share_budget(cut, at_cut)
        return share_ties(cut, np.array([len(documents) for documents in at_cut], np.int64))

    return np.array([share(i, cut) for i, cut in enumerate(kept.cuts)], np.int64).T


def _first_names(groups: Iterable[Group]) -> str:
    """The first groups in the order of their names, as text to show."""
    names = sorted({repr(group) for group in groups})
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
