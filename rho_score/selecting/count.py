"""Counts over a batch of units: its histogram, which is kept in a file, and its items at a cut."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import footer, parquet_bytes, readable
from rho_score.ranking.cuts import Cut
from rho_score.ranking.histogram import COUNTS, Counter, Ranking
from rho_score.ranking.rules import KeptRange
from rho_score.selecting.batches import Batch
from rho_score.selecting.ranked_items import Ranker
from rho_score.selecting.row_ranges import JoinedUnit
from rho_score.stores.counts import group_codes

RefinedBins = Mapping[Ranking, Sequence[int]]
"""By ranking, the high halves of 32-bit keys whose items are also counted by their low halves."""


@dataclass(frozen=True, kw_only=True)
class BatchCounter:
    """Counts the ranked items of any batch. It is small, and is sent to every worker."""

    ranker: Ranker
    fingerprint: str
    """The selection's fingerprint. A batch whose file has another one is counted again."""

    @cached_property
    def _output(self) -> Folder:
        return Folder(self.ranker.config.output)

    def counts(self, batch: Batch, refined_bins: RefinedBins | None = None) -> pa.Table:
        """The batch's histogram (`histogram.COUNTS`), read from its file or counted and published.

        With `refined_bins`, only the items in these bins are counted, by their whole keys.
        """
        config = self.ranker.config
        if config.dry_run:
            return self.count(batch.units, refined_bins)
        name = f"counts/{config.level}-{batch.index:06}{'' if refined_bins is None else '-fine'}.parquet"
        about = {
            "fingerprint": self.fingerprint,
            "units": batch.names,
            "within": None
            if refined_bins is None
            else sorted([*map(str, ranking), *highs] for ranking, highs in refined_bins.items()),
            "token_cuts": {str(reference): cut.key for reference, cut in self.ranker.token_cuts.items()},
        }
        if (counted := self._counted_before(name, about)) is not None:
            return counted
        counted = self.count(batch.units, refined_bins)
        self._output.publish(name, parquet_bytes(counted, COUNTS, about))
        return counted

    def _counted_before(self, name: str, about: JsonObject) -> pa.Table | None:
        try:
            content = self._output.read(name)
        except FileNotFoundError:
            return None
        with readable(self._output, name):
            file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
            return file.read().cast(COUNTS) if footer(file) == about else None

    def count(self, units: Iterable[JoinedUnit], refined_bins: RefinedBins | None) -> pa.Table:
        """The histogram of these units; see `counts`."""
        counter = Counter(self.ranker.bits, refined_bins)
        for scores in self.ranker.parts(units):
            owners, groups = group_codes(scores.groups)
            for reference in self.ranker.references:
                items = self.ranker.items(scores, reference)
                counter.add(reference, items.values, items.lengths, owners, groups, items.tokens)
        return counter.table()

    def count_ties(
        self, batch: Batch, ranges: Mapping[Ranking, KeptRange], refined_bins: RefinedBins | None
    ) -> dict[Ranking, list[int]]:
        """The number of the batch's items at each cut of each ranking."""
        counted = self.counts(batch, refined_bins)
        per_group = self.ranker.config.per_group
        return {
            ranking: [_items_at(counted, ranking, cut, per_group=per_group) for cut in kept.cuts]
            for ranking, kept in ranges.items()
        }

    def tie_lengths(self, batch: Batch, ranges: Mapping[Ranking, KeptRange]) -> dict[Ranking, list[list[int]]]:
        """The tokens of each document of the batch at each cut of each ranking, in corpus order."""
        lengths: dict[Ranking, list[list[int]]] = {ranking: [[] for _ in kept.cuts] for ranking, kept in ranges.items()}
        references = {ranking.reference for ranking in ranges}
        for scores in self.ranker.parts(batch.units):
            owners, groups = self.ranker.owners(scores)
            items = {reference: self.ranker.items(scores, reference) for reference in references}
            for ranking, kept in ranges.items():
                if ranking.group not in groups:
                    continue
                values, tokens = items[ranking.reference].values, items[ranking.reference].tokens
                assert tokens is not None  # documents are ranked
                mine = owners == groups.index(ranking.group)
                for at_cut, cut in zip(lengths[ranking], kept.cuts, strict=True):
                    at_cut += tokens[mine & (values == cut.value(self.ranker.bits))].tolist()
        return lengths


def _items_at(counted: pa.Table, ranking: Ranking, cut: Cut, *, per_group: bool) -> int:
    """The number of items at a cut, from a batch's histogram."""
    if cut.nothing:
        return 0
    rows = counted.filter(pc.equal(counted["key"], pa.scalar(cut.key, pa.uint32()))).to_pylist()
    return sum(
        row["count"]
        for row in rows
        if row["expert"] == ranking.reference and (not per_group or row["group"] == ranking.group)
    )
