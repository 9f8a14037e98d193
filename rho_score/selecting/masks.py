"""What the selection does with one unit or a batch of them: count, look at the ties of a cut, write masks. No Ray here."""

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rho_score.config import SelectConfig
from rho_score.files.arrow import list_column
from rho_score.files.folder import Folder
from rho_score.files.parquet import ParquetBuffer, footer, parquet_bytes, readable
from rho_score.ranking.cuts import Cut
from rho_score.ranking.histogram import COUNTS, Counter, Expert, Group
from rho_score.ranking.keys import Bits, round_score
from rho_score.ranking.rules import Band, Rule, local_mask
from rho_score.ranking.sampling import gumbel, uniforms
from rho_score.ranking.scores import UnitScores, document_means, document_rates, longer_runs, score_lists
from rho_score.selecting.batches import Batch
from rho_score.selecting.counts import byte_columns, group_accounts, group_codes
from rho_score.selecting.join import Join
from rho_score.selecting.options import parse_shares, rule_of_expert
from rho_score.selecting.row_ranges import JoinedUnit
from rho_score.stores.counts import GroupAccounts, accounts_in
from rho_score.stores.layout import data_name
from rho_score.stores.schema import SCHEMA_VERSION, selection_schema
from rho_score.stores.unit_file import footers

Place = tuple[Expert, Group]
"""Whose ranking, in which group (None: the whole corpus)."""


Ties = Mapping[Place, Sequence[int]]
"""How many items at each of a band's cuts are kept, the first in corpus order."""


@dataclass(frozen=True, kw_only=True)
class Selector:
    """The selection of any unit; small, and sent to every worker."""

    config: SelectConfig
    join: Join
    fingerprint: str
    grouped: bool
    high: bool
    token_cuts: Mapping[Expert, Cut] = field(default_factory=dict)
    """For documents ranked by their share of kept tokens: the cut of the tokens, by expert."""

    @cached_property
    def _local_rules(self) -> dict[Expert, Rule]:
        """What each expert keeps of a document or a batch."""
        shares = parse_shares(self.config.share, list(self.join.refs))
        whole = Rule(ratio=self.config.ratio)
        return {expert: rule_of_expert(expert, shares, whole) for expert in self.experts}

    @cached_property
    def _output(self) -> Folder:
        return Folder(self.config.output)

    @property
    def bits(self) -> Bits:
        """Precision that items are ranked with."""
        return 32 if self.config.sample else self.join.bits

    @property
    def score(self) -> str:
        """Name of the score's column."""
        return "excess" if self.join.base else "loss"

    @property
    def experts(self) -> list[Expert]:
        """Whose rankings there are."""
        union = self.config.combine == "union" and len(self.join.refs) > 1
        return list(self.join.refs) if union else [None]

    def counts(self, batch: Batch, within: Mapping[Place, Sequence[int]] | None = None) -> pa.Table:
        """The batch's histogram, read from its file, or counted and published.

        within: the second pass over 32-bit keys, see `histogram.Counter`.
        """
        if self.config.dry_run:
            return self.count(batch.units, within)
        name = f"counts/{self.config.level}-{batch.index:06}{'' if within is None else '-fine'}.parquet"
        about = {
            "fingerprint": self.fingerprint,
            "units": batch.names,
            "within": None if within is None else sorted([*map(str, place), *highs] for place, highs in within.items()),
            "token_cuts": {str(expert): cut.key for expert, cut in self.token_cuts.items()},
        }
        if (counted := self._counted_before(name, about)) is not None:
            return counted
        counted = self.count(batch.units, within)
        self._output.publish(name, parquet_bytes(counted, COUNTS, about))
        return counted

    def _counted_before(self, name: str, about: Mapping[str, Any]) -> pa.Table | None:
        try:
            content = self._output.read(name)
        except FileNotFoundError:
            return None
        with readable(self._output, name):
            file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
            return file.read().cast(COUNTS) if footer(file) == about else None

    def count(self, units: Iterable[JoinedUnit], within: Mapping[Place, Sequence[int]] | None) -> pa.Table:
        """The histogram of units, see `counts`."""
        counter = Counter(self.bits, within)
        for scores in self._parts(units):
            owners, names = group_codes(scores.groups)
            for expert in self.experts:
                values, runs, tokens = self._items(scores, expert)
                counter.add(expert, values, runs, owners, names, tokens)
        return counter.table()

    def _parts(self, units: Iterable[JoinedUnit]) -> Iterator[UnitScores]:
        """The units' scores in order, with the columns that counting needs beside the losses."""
        columns = [*(["group"] if self.grouped else []), *(["doc_id"] if self.config.sample else [])]
        return itertools.chain.from_iterable(self.join.parts(unit, columns) for unit in units)

    def _items(self, scores: UnitScores, expert: Expert) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What is ranked, float[n]; how many items each document has; and the tokens of each item, one if None."""
        runs, tokens = scores.lengths, None
        if self.config.level == "token":
            values = scores.rankings[expert]
        else:
            values = round_score(self._document_scores(scores, expert), self.join.bits)
            runs, tokens = np.ones(len(scores.lengths), np.int64), scores.lengths
        if self.config.sample:
            noise = uniforms(f"{self.config.seed}/{expert or ''}", scores.documents["doc_id"].to_pylist(), runs)
            if self.config.sample == "gumbel":
                sign = 1 if self._items_high else -1
                noise = values.astype(np.float64) * (sign / self.config.temperature) + gumbel(noise)
            values = round_score(np.where(np.isnan(values), np.nan, noise), 32)
        return values, runs, tokens

    def _document_scores(self, scores: UnitScores, expert: Expert) -> np.ndarray:
        """What documents are ranked by, float64[n_docs]; NaN for one without a scored token."""
        tokens = scores.rankings[expert]
        if self.config.document_score == "per-byte":
            return document_rates(tokens, scores.lengths, scores.doc_bytes)
        if self.config.document_score == "kept-share":
            n_at = len(tokens)  # all that reach the threshold
            kept = self.token_cuts[expert].first(tokens, n_at, self.join.bits)[0].astype(np.float32)
            return document_means(np.where(np.isnan(tokens), np.nan, kept), scores.lengths)
        return document_means(tokens, scores.lengths)

    @property
    def _items_high(self) -> bool:
        """Whether high values of items are the better ones: of shares of kept tokens always."""
        return self.high or self.config.document_score == "kept-share"

    @property
    def best_high(self) -> bool:
        """Whether high values are ranked first: of noise always, which already looks the right way."""
        return self._items_high or self.config.sample is not None

    def at_cuts(
        self, batch: Batch, bands: Mapping[Place, Band], within: Any, *, lengths: bool
    ) -> dict[Place, list[Any]]:
        """What the batch has at each cut of each band: how many items, or, with `lengths`, the tokens of each in order."""
        if not lengths:
            counted = self.counts(batch, within)
            return {
                place: [_at(counted, place, cut, grouped=self.config.per_group) for cut in band.cuts]
                for place, band in bands.items()
            }
        found: dict[Place, list[list[int]]] = {place: [[] for _ in band.cuts] for place, band in bands.items()}
        for scores in self._parts(batch.units):
            owners, names = self._places(scores)
            items = {expert: self._items(scores, expert) for expert in {expert for expert, _ in bands}}
            for (expert, group), band in bands.items():
                values, _, tokens = items[expert]
                assert tokens is not None
                mine = owners == names.index(group) if group in names else np.zeros(len(owners), bool)
                for at, cut in zip(found[expert, group], band.cuts, strict=True):
                    at += tokens[mine & (values == cut.value(self.bits))].tolist()
        return found

    def _places(self, scores: UnitScores) -> tuple[np.ndarray, list[Group]]:
        """Index of each document's group, and the groups' names; one group where the cut is for all."""
        if self.config.per_group:
            return group_codes(scores.groups)
        return np.zeros(len(scores.lengths), np.int64), [None]

    def write(
        self, batch: Batch, published: set[str], bands: Mapping[Place, Band], ties: Ties
    ) -> tuple[int, dict[Group, GroupAccounts], None]:
        """Publish the selection of the batch's units that are not there yet; how many that were, and the batch's accounts.

        ties: how many of the batch's items at each cut are kept, where that is not the same for all batches.
        """
        left = {place: list(ties.get(place, [cut.ties for cut in b.cuts])) for place, b in bands.items()}
        every: dict[Group, GroupAccounts] = {}
        known = dict(zip(sorted(published), footers(self._output, sorted(published)), strict=True))
        for unit in batch.units:
            metadata = known.get(unit.unit) or self._write_unit(unit, bands, left)
            with readable(self._output, data_name(unit.unit)):
                for place, used in _used(metadata).items():
                    left[place] = [n - u for n, u in zip(left[place], used, strict=True)]
                for group, accounts in accounts_in(metadata).items():
                    every[group] = every.get(group, GroupAccounts()) + accounts
        return len(batch.units) - len(known), every, None

    def _write_unit(self, unit: JoinedUnit, bands: Mapping[Place, Band], left: Ties) -> dict[str, Any]:
        columns = ["doc_id", "input_ids", *(["group"] if self.grouped else [])]
        whole = self.config.scope == "batch"  # a batch of tokens goes over the ends of documents
        file = ParquetBuffer(self._schema, split=[self.score])
        left = dict(left)
        used: dict[Place, list[int]] = {}
        accounts: dict[Group, GroupAccounts] = {}
        for scores in [self.join.load(unit, columns)] if whole else self.join.parts(unit, columns):
            kept, taken = self._kept(scores, bands, left)
            for place, counts in taken.items():
                left[place] = [n - k for n, k in zip(left[place], counts, strict=True)]
                used[place] = [n + k for n, k in zip(used.get(place, [0] * len(counts)), counts, strict=True)]
            if self.config.level == "document":
                masks = {expert: np.repeat(mask, scores.lengths) for expert, mask in kept.items()}
            else:
                masks = kept
            mask = longer_runs(np.logical_or.reduce(list(masks.values())), scores.lengths, self.config.min_run)
            for group, one in group_accounts(scores, mask).items():
                accounts[group] = accounts.get(group, GroupAccounts()) + one
            if not self.config.dry_run:
                file.add(self._table(scores, mask, masks, np.logical_or.reduce(list(kept.values()))))
        metadata = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "unit": unit.unit,
            "groups": [{"group": group, **asdict(a)} for group, a in accounts.items()],
            "ties": [{"expert": e, "group": g, "kept": n} for (e, g), n in used.items()],
        }
        if not self.config.dry_run:
            self._output.publish(data_name(unit.unit), file.finish(metadata))
        return metadata

    def _kept(
        self, scores: UnitScores, bands: Mapping[Place, Band], left: Ties
    ) -> tuple[dict[Expert, np.ndarray], dict[Place, list[int]]]:
        """The items that each expert keeps, bool[n_items]; and how many at each cut these are."""
        kept: dict[Expert, np.ndarray] = {}
        used: dict[Place, list[int]] = {}
        for expert in self.experts:
            values, runs, _ = self._items(scores, expert)
            if self.config.scope == "corpus":
                kept[expert] = self._cut(scores, expert, values, runs, bands, left, used)
            else:
                rule = replace(self._local_rules[expert], drop_top=self.config.drop_top)
                kept[expert] = local_mask(values, self._local_runs(runs), rule, high=self.best_high)
        return kept, used

    def _local_runs(self, lengths: np.ndarray) -> np.ndarray:
        """Lengths of the runs that are ranked among themselves: documents, or batches of so many tokens."""
        if self.config.scope == "document":
            return lengths
        assert self.config.batch_tokens is not None
        n_tokens = int(lengths.sum())
        starts = np.arange(0, n_tokens, self.config.batch_tokens)
        return np.diff(np.append(starts, n_tokens))

    def _cut(
        self,
        scores: UnitScores,
        expert: Expert,
        values: np.ndarray,
        runs: np.ndarray,
        bands: Mapping[Place, Band],
        left: Ties,
        used: dict[Place, list[int]],
    ) -> np.ndarray:
        """bool[n_items]: what the bands keep of a unit; notes in `used` how many items at each cut that took."""
        owners, names = self._places(scores)
        kept = np.zeros(len(values), bool)
        owner = np.repeat(owners, runs) if len(names) > 1 else None
        for i, name in enumerate(names):
            place = (expert, name)
            if place not in bands:  # no item in the whole corpus
                continue
            mine = slice(None) if owner is None else np.flatnonzero(owner == i)
            items = values[mine]
            cuts = zip(bands[place].cuts, left[place], strict=True)
            firsts, used[place] = map(list, zip(*(cut.first(items, n, self.bits) for cut, n in cuts), strict=True))
            kept[mine] = firsts[0] & ~firsts[1] if len(firsts) > 1 else firsts[0]
        return kept

    @cached_property
    def _schema(self) -> pa.Schema:
        return selection_schema(
            grouped=self.grouped,
            score=self.score,
            level=self.config.level,
            experts=[e for e in self.experts if e is not None] if self.config.expert_masks else [],
            by_bytes=bool(self.join.vocabularies),
            based=self.join.base is not None,
        )

    def _table(
        self, scores: UnitScores, mask: np.ndarray, masks: Mapping[Expert, np.ndarray], kept: np.ndarray
    ) -> pa.Table:
        """What is published. mask, masks (by expert): bool[n_tokens]; kept: bool[n_items]."""
        columns: dict[str, Any] = {name: scores.documents[name] for name in scores.documents.column_names}
        columns[self.score] = score_lists(scores.tokens, scores.lengths)
        columns["mask"] = list_column(mask, scores.lengths)
        if self.config.expert_masks:
            columns |= {f"mask_{expert}": list_column(one & mask, scores.lengths) for expert, one in masks.items()}
        if self.config.level == "document":
            values = self._best_document_scores(scores)
            columns["doc_score"] = pa.array(values.astype(np.float32) + np.float32(0), mask=np.isnan(values))
            columns["kept"] = pa.array(kept)
        if scores.n_bytes is not None:
            columns |= byte_columns(scores)
        return pa.table([columns[f.name] for f in self._schema], schema=self._schema)

    def _best_document_scores(self, scores: UnitScores) -> np.ndarray:
        """Each document's score, the best of the experts', float32[n_docs]."""
        every = [round_score(self._document_scores(scores, expert), self.join.bits) for expert in self.experts]
        best = np.fmax if self._items_high else np.fmin
        found: np.ndarray = best.reduce(every)
        return found


def _at(counted: pa.Table, place: Place, cut: Cut, *, grouped: bool) -> int:
    """Items at a cut in a batch's histogram."""
    if cut.nothing:
        return 0
    expert, group = place
    at = counted.filter(pc.equal(counted["key"], pa.scalar(cut.key, pa.uint32())))
    rows = [
        row["count"] for row in at.to_pylist() if row["expert"] == expert and (not grouped or row["group"] == group)
    ]
    return sum(rows)


def _used(metadata: Mapping[str, Any]) -> dict[Place, list[int]]:
    """How many items at each cut a published unit kept."""
    return {(row["expert"], row["group"]): row["kept"] for row in metadata["ties"]}
