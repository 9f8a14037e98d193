"""What the selection does with one unit: load and verify, count, find its ties, write its mask. No Ray here."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.errors import InputError
from rho_score.excess import UnitScores, first_difference, score_lists, unit_scores
from rho_score.histogram import COUNTS, Cut, count, keys_of, merge
from rho_score.schema import SCHEMA_VERSION, list_column, parquet_bytes, selection_schema
from rho_score.storage import Folder
from rho_score.store import ScoreSet, data_name

Group = str | None


@dataclass(frozen=True, kw_only=True)
class GroupAccounts:
    """What was kept of the documents of one group."""

    documents: int = 0
    documents_kept: int = 0
    """Documents with at least one kept token."""
    tokens: int = 0
    tokens_scored: int = 0
    """Tokens that have a score, and so can be kept at token level."""
    tokens_kept: int = 0

    def __add__(self, other: "GroupAccounts") -> "GroupAccounts":
        return GroupAccounts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def share_kept(self) -> float:
        """Kept tokens over all tokens; 0 where there are none."""
        return self.tokens_kept / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, kw_only=True)
class UnitSelector:
    """The selection of any unit; small, and sent to every worker."""

    ref: str
    base: str | None
    output: str
    fingerprint: str
    level: Literal["token", "document"]
    per_group: bool
    score: Literal["excess", "loss"]

    @cached_property
    def _ref(self) -> ScoreSet:
        return ScoreSet.open(self.ref)

    @cached_property
    def _base(self) -> ScoreSet | None:
        return ScoreSet.open(self.base) if self.base else None

    @cached_property
    def _output(self) -> Folder:
        return Folder(self.output)

    def load(self, unit: str) -> UnitScores:
        """The scores of a unit; both score sets must hold the same documents and tokens, shown by their footers' hashes.

        Raises:
            InputError: they do not; names both files and the first row that differs.
        """
        ref, ref_footer = self._ref.read_unit(unit)
        if self._base is None:
            return unit_scores(ref, None)
        base, base_footer = self._base.read_unit(unit)
        if ref_footer["content_sha256"] != base_footer["content_sha256"]:
            raise InputError(
                f"{self.ref}/{data_name(unit)} and {self.base}/{data_name(unit)} do not hold the same documents:\n"
                f"  {first_difference(ref, base)}\nScore both models over the same corpus with the same options. "
                "(A document that only one of them could score, see quarantine/, differs too: score it in float32.)"
            )
        return unit_scores(ref, base)

    def counts(self, unit: str) -> pa.Table:
        """The unit's histogram (`histogram.COUNTS`): read from its file, or counted and published."""
        name = f"counts/{unit}.parquet"
        try:
            return pq.read_table(io.BytesIO(self._output.read(name))).cast(COUNTS)
        except FileNotFoundError:
            counted = self._count(self.load(unit))
            self._output.publish(name, parquet_bytes(counted, COUNTS))
            return counted

    def _count(self, scores: UnitScores) -> pa.Table:
        values, tokens = self._items(scores)
        owners, names = self._item_groups(scores)
        return merge(
            count(name, values[owners == i], None if tokens is None else tokens[owners == i])
            for i, name in enumerate(names)
        )

    def _items(self, scores: UnitScores) -> tuple[np.ndarray, np.ndarray | None]:
        """What is ranked: the scores of tokens, or of documents with the tokens that each holds."""
        if self.level == "token":
            return scores.tokens, None
        return scores.document_scores, scores.lengths

    def _item_groups(self, scores: UnitScores) -> tuple[np.ndarray, list[Group]]:
        """Index of each item's group, int64[n_items], and the groups' names; one group where they do not matter."""
        n_items = len(scores.tokens) if self.level == "token" else len(scores.lengths)
        if not self.per_group:
            return np.zeros(n_items, np.int64), [None]
        owners, names = group_codes(scores.groups)
        return (np.repeat(owners, scores.lengths) if self.level == "token" else owners), names

    def ties(self, unit: str, cuts: Mapping[Group, Cut]) -> dict[Group, list[int]]:
        """By group, what the unit has at the cut: how many items, or, to fill a budget, the tokens of each in order."""
        rows = self.counts(unit).to_pylist()
        found = {row["group"]: [row["count"]] for row in rows if row["key"] == cuts[row["group"]].key}
        budgeted = [group for group in found if cuts[group].budget is not None]
        if budgeted:
            scores = self.load(unit)
            values, tokens = self._items(scores)
            assert tokens is not None
            owners, names = self._item_groups(scores)
            for group in budgeted:
                items = np.flatnonzero((owners == names.index(group)) & ~np.isnan(values))
                found[group] = tokens[items[cuts[group].tied(keys_of(values[items]))]].tolist()
        return found

    def write(self, unit: str, cuts: Mapping[Group, Cut], quotas: Mapping[Group, int]) -> dict[Group, GroupAccounts]:
        """Publish the unit's selection; `quotas`: how many of the items at the cut are kept, by group, the first ones.

        Returns the accounts of each of its groups.
        """
        scores = self.load(unit)
        values, _ = self._items(scores)
        owners, names = self._item_groups(scores)
        kept = np.zeros(len(values), bool)
        for i, name in enumerate(names):
            items = np.flatnonzero((owners == i) & ~np.isnan(values))
            if len(items):
                keys = keys_of(values[items])
                kept[items[cuts[name].past(keys)]] = True
                kept[items[cuts[name].tied(keys)][: quotas.get(name, 0)]] = True
        mask = kept if self.level == "token" else np.repeat(kept, scores.lengths)
        accounts = group_accounts(scores, mask)
        self._publish(unit, scores, mask, kept, accounts)
        return accounts

    def _publish(
        self,
        unit: str,
        scores: UnitScores,
        mask: np.ndarray,
        kept: np.ndarray,
        accounts: Mapping[Group, GroupAccounts],
    ) -> None:
        schema = selection_schema(grouped=self._ref.grouped, score=self.score, level=self.level)
        columns: dict[str, Any] = {name: scores.documents[name] for name in scores.documents.column_names}
        columns[self.score] = score_lists(scores)
        columns["mask"] = list_column(mask, scores.lengths)
        if self.level == "document":
            values = scores.document_scores
            columns["doc_score"] = pa.array(values, pa.float32(), mask=np.isnan(values))
            columns["kept"] = pa.array(kept)
        table = pa.table([columns[f.name] for f in schema], schema=schema)
        metadata = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "unit": unit,
            "groups": [{"group": group, **asdict(a)} for group, a in accounts.items()],
        }
        self._output.publish(data_name(unit), parquet_bytes(table, schema, metadata))


def group_codes(groups: np.ndarray) -> tuple[np.ndarray, list[Group]]:
    """Index of each document's group, int64[n_docs], and the groups' names in order of first appearance."""
    names = list(dict.fromkeys(groups.tolist()))
    code = {name: i for i, name in enumerate(names)}
    return np.array([code[name] for name in groups.tolist()], np.int64), names


def group_accounts(scores: UnitScores, mask: np.ndarray) -> dict[Group, GroupAccounts]:
    """Accounts of each group in a unit. mask: bool[n_tokens]."""
    document = np.repeat(np.arange(len(scores.lengths)), scores.lengths)
    kept = np.bincount(document, mask, len(scores.lengths)).astype(np.int64)
    owners, names = group_codes(scores.groups)
    accounts = {}
    for i, name in enumerate(names):
        mine = owners == i
        accounts[name] = GroupAccounts(
            documents=int(mine.sum()),
            documents_kept=int((kept[mine] > 0).sum()),
            tokens=int(scores.lengths[mine].sum()),
            tokens_scored=int(scores.scored_lengths[mine].sum()),
            tokens_kept=int(kept[mine].sum()),
        )
    return accounts


def accounts_in(metadata: Mapping[str, Any]) -> dict[Group, GroupAccounts]:
    """The accounts in a footer's metadata."""
    return {row["group"]: GroupAccounts(**{k: v for k, v in row.items() if k != "group"}) for row in metadata["groups"]}


def share_ties(cut: Cut, ties_of_units: Mapping[str, list[int]]) -> dict[str, int]:
    """How many of its items at the cut each unit keeps: the first in corpus order, `cut.ties` of them, or, with a budget,
    those that fit it up to the first that does not. `ties_of_units`: what `UnitSelector.ties` found, in corpus order."""
    quotas: dict[str, int] = {}
    left = cut.ties if cut.budget is None else cut.budget
    for unit, found in ties_of_units.items():
        if cut.budget is None:
            quotas[unit] = min(left, sum(found))
            left -= quotas[unit]
            continue
        costs = np.array(found, np.int64)
        quotas[unit] = int(np.searchsorted(np.cumsum(costs), left, side="right"))
        left -= int(costs[: quotas[unit]].sum())
        if quotas[unit] < len(found):
            break
    return quotas
