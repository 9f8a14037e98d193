"""Writes the masks of a unit: its items in the kept range of their ranking, some ties included."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import list_column
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import ParquetBuffer, readable
from rho_score.ranking.histogram import Group, Ranking
from rho_score.ranking.keys import round_score
from rho_score.ranking.rules import KeptRange, local_mask
from rho_score.ranking.scores import UnitScores, longer_runs, score_lists
from rho_score.ranking.weights import Weighting
from rho_score.selecting.batches import Batch
from rho_score.selecting.group_counts import byte_columns, count_groups
from rho_score.selecting.ranked_items import RankedItems, Ranker
from rho_score.selecting.row_ranges import JoinedUnit
from rho_score.stores.counts import GroupCounts, add_groups, group_counts_in
from rho_score.stores.layout import data_name
from rho_score.stores.schema import SCHEMA_VERSION, WEIGHT, selection_schema
from rho_score.stores.unit_file import footers

Ties = Mapping[Ranking, Sequence[int]]
"""By ranking, how many of the items at each cut are kept, the first in corpus order."""


class _Ties:
    """How many ties are left to keep and how many were taken, by ranking and cut."""

    def __init__(self, left: Ties) -> None:
        self.left = {ranking: list(n) for ranking, n in left.items()}
        self.taken: dict[Ranking, list[int]] = {}

    def take(self, ranking: Ranking, counts: Sequence[int]) -> None:
        """Takes this number of ties at each cut of a ranking."""
        self.left[ranking] = [n - k for n, k in zip(self.left[ranking], counts, strict=True)]
        before = self.taken.get(ranking, [0] * len(counts))
        self.taken[ranking] = [n + k for n, k in zip(before, counts, strict=True)]


@dataclass(frozen=True, kw_only=True)
class MaskWriter:
    """Writes the selection of any unit. It is small, and is sent to every worker."""

    ranker: Ranker
    fingerprint: str
    ranges: Mapping[Ranking, KeptRange]
    """What each ranking keeps. Not used if each document or batch of tokens is ranked by itself."""
    weightings: Mapping[Ranking, Weighting] = field(default_factory=dict)
    """What items weigh, by ranking; empty without --weights."""

    @cached_property
    def _output(self) -> Folder:
        return Folder(self.ranker.config.output)

    def write(self, batch: Batch, published: set[str], ties: Ties) -> tuple[int, dict[Group, GroupCounts], None]:
        """Publishes the batch's units that are not published yet.

        ties: how many of the batch's items at each cut are kept, for rankings that keep only some
        of their ties.

        Returns how many units were written, and the counts of the whole batch by group.
        """
        left = _Ties(
            {ranking: ties.get(ranking, [cut.ties for cut in kept.cuts]) for ranking, kept in self.ranges.items()}
        )
        groups: dict[Group, GroupCounts] = {}
        known = dict(zip(sorted(published), footers(self._output, sorted(published)), strict=True))
        for unit in batch.units:
            metadata = known.get(unit.unit) or self._write_unit(unit, left.left)
            with readable(self._output, data_name(unit.unit)):
                for row in metadata["ties"]:
                    left.take(Ranking(row["expert"], row["group"]), row["kept"])
                add_groups(groups, group_counts_in(metadata))
        return len(batch.units) - len(known), groups, None

    def _write_unit(self, unit: JoinedUnit, left: Ties) -> JsonObject:
        """Publishes a unit, or only counts it in a dry run; returns the metadata of its footer."""
        config = self.ranker.config
        columns = ["doc_id", "input_ids", *(["group"] if self.ranker.grouped else [])]
        file = ParquetBuffer(self._schema, split=[self.ranker.score])
        ties, groups = _Ties(left), dict[Group, GroupCounts]()
        in_one_part = config.scope == "batch"  # a batch of tokens spans documents
        parts = [self.ranker.join.load(unit, columns)] if in_one_part else self.ranker.join.parts(unit, columns)
        for scores in parts:
            kept = {reference: self._kept(scores, reference, ties) for reference in self.ranker.references}
            masks = kept
            if config.level == "document":
                counts = ~np.isnan(scores.tokens) if self.ranker.context else np.True_
                masks = {reference: np.repeat(items, scores.lengths) & counts for reference, items in kept.items()}
            mask = longer_runs(np.logical_or.reduce(list(masks.values())), scores.lengths, config.min_run)
            add_groups(groups, count_groups(scores, mask))
            if not config.dry_run:
                file.add(self._table(scores, mask, masks, np.logical_or.reduce(list(kept.values()))))
        metadata = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "unit": unit.unit,
            "groups": [{"group": group, **asdict(counts)} for group, counts in groups.items()],
            "ties": [{"expert": r.reference, "group": r.group, "kept": n} for r, n in ties.taken.items()],
        }
        if not config.dry_run:
            self._output.publish(data_name(unit.unit), file.finish(metadata))
        return metadata

    def _kept(self, scores: UnitScores, reference: str | None, ties: _Ties) -> np.ndarray:
        """True for the items of some documents that a reference keeps, bool[n_items].

        The ties that it keeps are taken from `ties`.
        """
        items = self.ranker.items(scores, reference)
        if self.ranker.config.scope != "corpus":
            rule = self.ranker.local_rules[reference]
            return local_mask(items.values, self._local_runs(items.lengths), rule, high=self.ranker.best_high)
        kept = np.zeros(len(items.values), bool)
        for ranking, mine in self._rankings(scores, reference, items):
            self._keep(kept, mine, ranking, items, ties)
        return kept

    def _rankings(
        self, scores: UnitScores, reference: str | None, items: RankedItems
    ) -> Iterator[tuple[Ranking, slice | np.ndarray]]:
        """Yields the rankings of some documents under a reference, and the places of their items."""
        owners, groups = self.ranker.owners(scores)
        owner = np.repeat(owners, items.lengths) if len(groups) > 1 else None
        for i, group in enumerate(groups):
            yield Ranking(reference, group), slice(None) if owner is None else np.flatnonzero(owner == i)

    def _weights(self, scores: UnitScores) -> np.ndarray:
        """The weight of each token, float32[n_tokens]: the highest that a reference gives it."""
        weights = np.zeros(len(scores.tokens), np.float32)
        for reference in self.ranker.references:
            items = self.ranker.items(scores, reference)
            own = np.zeros(len(items.values), np.float32)
            for ranking, mine in self._rankings(scores, reference, items):
                if ranking in self.weightings:  # it has an item in the corpus
                    own[mine] = self.weightings[ranking].weights(items.values[mine])
            if self.ranker.config.level == "document":
                own = np.repeat(own, scores.lengths)
            weights = np.maximum(weights, own)
        return np.where(np.isnan(scores.tokens), np.float32(0), weights)

    def _keep(
        self, kept: np.ndarray, mine: slice | np.ndarray, ranking: Ranking, items: RankedItems, ties: _Ties
    ) -> None:
        """Sets `kept` for the items of one ranking (`mine`) that lie in its kept range."""
        if ranking not in self.ranges:  # the ranking has no item in the whole corpus
            return
        values = items.values[mine]
        cuts = zip(self.ranges[ranking].cuts, ties.left[ranking], strict=True)
        before, taken = zip(*(cut.first(values, n_ties, self.ranker.bits) for cut, n_ties in cuts), strict=True)
        ties.take(ranking, taken)
        kept[mine] = before[0] & ~before[1] if len(before) > 1 else before[0]

    def _local_runs(self, lengths: np.ndarray) -> np.ndarray:
        """Lengths of the runs that are each ranked by themselves, int64[n_runs].

        A run is a document, or a batch of --batch-tokens.
        """
        if self.ranker.config.scope == "document":
            return lengths
        assert self.ranker.config.batch_tokens is not None
        n_tokens = int(lengths.sum())
        starts = np.arange(0, n_tokens, self.ranker.config.batch_tokens)
        return np.diff(np.append(starts, n_tokens))

    @cached_property
    def _schema(self) -> pa.Schema:
        ranker = self.ranker
        return selection_schema(
            grouped=ranker.grouped,
            score=ranker.score,
            level=ranker.config.level,
            experts=[name for name in ranker.references if name is not None] if ranker.config.expert_masks else [],
            by_bytes=bool(ranker.join.vocabularies),
            based=ranker.join.base is not None,
            weighted=ranker.config.weights is not None,
        )

    def _table(
        self, scores: UnitScores, mask: np.ndarray, masks: Mapping[str | None, np.ndarray], kept: np.ndarray
    ) -> pa.Table:
        """The table to publish. mask, and each of masks: bool[n_tokens]. kept: bool[n_items]."""
        config = self.ranker.config
        columns: dict[str, Any] = {name: scores.documents[name] for name in scores.documents.column_names}
        columns[self.ranker.score] = score_lists(scores.tokens, scores.lengths)
        columns["mask"] = list_column(mask, scores.lengths)
        if config.expert_masks:
            columns |= {f"mask_{name}": list_column(own & mask, scores.lengths) for name, own in masks.items()}
        if config.weights is not None:
            columns[WEIGHT] = list_column(self._weights(scores), scores.lengths)
        if config.level == "document":
            values = self._best_document_scores(scores)
            columns["doc_score"] = pa.array(values.astype(np.float32) + np.float32(0), mask=np.isnan(values))
            columns["kept"] = pa.array(kept)
        if scores.n_bytes is not None:
            columns |= byte_columns(scores)
        return pa.table([columns[f.name] for f in self._schema], schema=self._schema)

    def _best_document_scores(self, scores: UnitScores) -> np.ndarray:
        """The best score that any reference gives each document, float[n_docs]."""
        ranker = self.ranker
        every = [round_score(ranker.document_scores(scores, name), ranker.join.bits) for name in ranker.references]
        best: np.ndarray = (np.fmax if ranker.items_high else np.fmin).reduce(every)
        return best
