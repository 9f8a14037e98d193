"""The items that are ranked: the tokens or documents of a unit, with their values and groups."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from rho_score.config import SelectConfig
from rho_score.ranking.cuts import Cut
from rho_score.ranking.histogram import Group
from rho_score.ranking.keys import Bits, round_score
from rho_score.ranking.rules import Rule
from rho_score.ranking.sampling import gumbel, uniforms
from rho_score.ranking.scores import UnitScores, document_means, document_rates, run_sums
from rho_score.selecting.join import Join
from rho_score.selecting.options import parse_shares, rule_of_reference
from rho_score.selecting.row_ranges import JoinedUnit
from rho_score.stores.counts import group_codes


@dataclass(frozen=True)
class RankedItems:
    """What one reference ranks of some documents: their tokens, or the documents themselves.

    values: what they are ranked by, rounded to the precision of the ranking, float[n_items]. NaN
    marks what is no item. lengths: items of each document, int64[n_docs]. tokens: tokens of each
    item, int64[n_items]; None if each holds one.
    """

    values: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Ranker:
    """Makes the ranked items of any unit. It is small, and is sent to every worker."""

    config: SelectConfig
    join: Join
    grouped: bool
    """True if the score sets have a column `group`."""
    context: bool
    """True if the documents hold tokens that do not count, which are never kept."""
    high: bool
    """True if high scores are kept."""
    token_cuts: Mapping[str | None, Cut] = field(default_factory=dict)
    """The cut of the tokens by reference, if documents are ranked by their share of kept tokens."""

    @property
    def bits(self) -> Bits:
        """The precision of the values that items are ranked by."""
        return 32 if self.config.sample else self.join.bits

    @property
    def score(self) -> str:
        """Name of the column that holds the tokens' scores."""
        return "excess" if self.join.base else "loss"

    @property
    def references(self) -> list[str | None]:
        """The references that have a ranking of their own; [None] if there is one ranking."""
        union = self.config.combine == "union" and len(self.join.refs) > 1
        return list(self.join.refs) if union else [None]

    @property
    def items_high(self) -> bool:
        """True if high values of items are better, as shares of kept tokens always are."""
        return self.high or self.config.document_score == "kept-share"

    @property
    def best_high(self) -> bool:
        """True if high values come first, as they always do in a sample.

        If low scores are kept, a sample changes their sign.
        """
        return self.items_high or self.config.sample is not None

    @cached_property
    def local_rules(self) -> dict[str | None, Rule]:
        """What each reference keeps of a document or of a batch of tokens."""
        shares = parse_shares(self.config.share, list(self.join.refs))
        rules = {name: rule_of_reference(name, shares, Rule(ratio=self.config.ratio)) for name in self.references}
        return {name: replace(rule, drop_top=self.config.drop_top) for name, rule in rules.items()}

    def parts(self, units: Iterable[JoinedUnit]) -> Iterator[UnitScores]:
        """The scores of the units in order, with the other columns that ranking needs."""
        columns = [*(["group"] if self.grouped else []), *(["doc_id"] if self.config.sample else [])]
        return itertools.chain.from_iterable(self.join.parts(unit, columns) for unit in units)

    def items(self, scores: UnitScores, reference: str | None) -> RankedItems:
        """The items of some documents that one reference ranks."""
        if self.config.level == "token":
            values, lengths, tokens = scores.rankings[reference], scores.lengths, None
        else:
            values = round_score(self.document_scores(scores, reference), self.join.bits)
            lengths, tokens = np.ones(len(scores.lengths), np.int64), scores.lengths
            if self.context:
                tokens = run_sums(~np.isnan(scores.tokens), scores.lengths).astype(np.int64)
        if self.config.sample:
            values = self._sampled(values, lengths, scores, reference)
        return RankedItems(values, lengths, tokens)

    def _sampled(
        self, values: np.ndarray, lengths: np.ndarray, scores: UnitScores, reference: str | None
    ) -> np.ndarray:
        """The random values that a sample ranks by, float32[n_items]; NaN where `values` is NaN."""
        seed = f"{self.config.seed}/{reference or ''}"
        noise = uniforms(seed, scores.documents["doc_id"].to_pylist(), lengths)
        if self.config.sample == "gumbel":
            sign = 1 if self.items_high else -1
            noise = values.astype(np.float64) * (sign / self.config.temperature) + gumbel(noise)
        return round_score(np.where(np.isnan(values), np.nan, noise), 32)

    def document_scores(self, scores: UnitScores, reference: str | None) -> np.ndarray:
        """What documents are ranked by, float64[n_docs]; NaN if a document has no scored token."""
        tokens = scores.rankings[reference]
        if self.config.document_score == "per-byte":
            return document_rates(tokens, scores.lengths, scores.doc_bytes)
        if self.config.document_score == "kept-share":
            all_ties = len(tokens)  # every token at the threshold counts as kept
            kept = self.token_cuts[reference].first(tokens, all_ties, self.join.bits)[0].astype(np.float32)
            return document_means(np.where(np.isnan(tokens), np.nan, kept), scores.lengths)
        return document_means(tokens, scores.lengths)

    def owners(self, scores: UnitScores) -> tuple[np.ndarray, list[Group]]:
        """Index of each document's group, int64[n_docs], and the groups that have their own cut.

        There is one group, None, if the whole corpus has one cut.
        """
        if self.config.per_group:
            return group_codes(scores.groups)
        return np.zeros(len(scores.lengths), np.int64), [None]
