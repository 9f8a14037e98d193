"""Where the documents of a run come from: a corpus of text, score sets, or a selection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from rho_score.config.corpus import WHOLE
from rho_score.corpus.columns import Columns
from rho_score.corpus.documents import read_unchanged
from rho_score.corpus.plan import Plan
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.models.encode import encode
from rho_score.models.tokenizer import load_tokenizer
from rho_score.ranking.scores import combined_losses
from rho_score.stores.framing import REF_LOSS, Documents
from rho_score.stores.reopened import Reopened
from rho_score.stores.schema import WEIGHT
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection

Combine = Literal["min", "mean"]


class UnitDocuments(NamedTuple):
    """The documents of one unit, and what became of the others."""

    documents: Documents
    groups: list[str | None]
    """The group of each document."""
    n_bytes: np.ndarray
    """UTF-8 bytes of each document's text, int64[n_docs]; 0 where they are not known."""
    n_unusable: int
    """Documents of the unit that cannot be read, which are left out."""
    n_other: int
    """Documents of the unit that another selection leaves out (`--within`)."""


class Source(Protocol):
    """The documents of a run, unit by unit, in corpus order."""

    @property
    def url(self) -> str:
        """Where they are, for messages."""

    @property
    def key(self) -> JsonObject:
        """What determines the documents, their tokens and their numbers."""

    @property
    def unit_names(self) -> Sequence[str]:
        """The units, in corpus order."""

    def read(self, index: int) -> UnitDocuments:
        """The documents of a unit; raises RhoScoreError if it is damaged or has changed."""


@dataclass(frozen=True)
class TextSource(Reopened):
    """A corpus of text, tokenized by the tokenizer of a model. Every token is a target."""

    plan: Plan
    columns: Columns
    model: str
    tokenizer_sha256: str

    @property
    def url(self) -> str:
        return self.plan.root

    @property
    def key(self) -> JsonObject:
        return {"plan_sha256": self.plan.digest, "columns": list(self.columns[:3]), "tokenizer": self.tokenizer_sha256}

    @property
    def unit_names(self) -> Sequence[str]:
        return [unit.unit for unit in self.plan.units]

    def read(self, index: int) -> UnitDocuments:
        root, unit = Folder(self.plan.root), self.plan.units[index]
        every = read_unchanged(root, unit, self.columns)
        read = [document for document in every if document.text is not None]
        texts = [document.text or "" for document in read]
        ids = encode(self._tokenizer, texts)
        flat = np.concatenate([np.zeros(0, np.int32), *ids])
        found = Documents(
            doc_ids=pa.array([document.doc_id for document in read], pa.string()),
            lengths=np.array([len(one) for one in ids], np.int64),
            input_ids=flat,
            mask=np.ones(len(flat), bool),
        )
        n_bytes = np.array([len(text.encode()) for text in texts], np.int64)
        return UnitDocuments(found, [document.group for document in read], n_bytes, len(every) - len(read), 0)

    @cached_property
    def _tokenizer(self):  # type: ignore[no-untyped-def]
        return load_tokenizer(self.model)


@dataclass(frozen=True)
class ScoreSource(Reopened):
    """Score sets of one corpus: every token that counts is a target and has the references' combined loss."""

    scores: Mapping[str, str]
    """URLs of the score sets by the references' names."""
    combine: Combine = "min"
    within: str | None = None
    """A selection of which only the documents with a kept token are taken."""

    @property
    def url(self) -> str:
        return next(iter(self.scores.values()))

    @property
    def key(self) -> JsonObject:
        within = self._within.manifest["fingerprint"] if self._within else None
        sets = {name: {"fingerprint": s.manifest["fingerprint"], **s.held} for name, s in self.sets.items()}
        return {"scores": sets, "combine": self.combine, "within": within}

    @cached_property
    def _within(self) -> Selection | None:
        return None if self.within is None else Selection.open(self.within)

    @cached_property
    def sets(self) -> dict[str, ScoreSet]:
        """The score sets, opened."""
        return {name: ScoreSet.open(url) for name, url in self.scores.items()}

    @cached_property
    def unit_names(self) -> Sequence[str]:
        return names_of(self.sets[next(iter(self.sets))])

    def read(self, index: int) -> UnitDocuments:
        unit = self.unit_names[index]
        read = {}
        for name, scores in self.sets.items():
            columns = ["doc_id", "input_ids", "loss", *(["group"] if scores.grouped else [])]
            read[name] = scores.read_unit(unit, columns)
        (table, metadata), *others = read.values()
        for name, (_, other) in read.items():
            if other["content_sha256"] != metadata["content_sha256"]:
                raise RhoScoreError(
                    f"unit {unit} holds other documents or tokens in {self.scores[name]} than in {self.url}. Score the same corpus "
                    "with the same tokenizer."
                )
        losses = [as_numpy(flat_values(one["loss"])).astype(np.float32) for one in (table, *(one for one, _ in others))]
        whole = self.sets[next(iter(self.sets))].columns.kind in WHOLE
        targets = np.ones(len(losses[0]), bool) if whole else ~np.isnan(losses[0])
        return _within(self._within, unit, table, targets, {REF_LOSS: combined_losses(losses, self.combine)})


@dataclass(frozen=True)
class SelectionSource(Reopened):
    """A selection: the tokens of its mask are targets or, if weighted, those with a weight above 0."""

    selection: str
    within: str | None = None
    """Another selection, of which only the documents with a kept token are taken."""
    weighted: bool = False

    def check(self) -> None:
        """Raises InputError if weights are wanted and the selection has none."""
        if self.weighted and not self.store.weighted:
            raise InputError(f"{self.selection} has no weights. Make a selection with `rho-score select … --weights`.")

    @property
    def url(self) -> str:
        return self.selection

    @property
    def key(self) -> JsonObject:
        within = self._within.manifest["fingerprint"] if self._within else None
        weighted = {"weighted": True} if self.weighted else {}
        return {"selection": self.store.manifest["fingerprint"], "within": within, **weighted}

    @cached_property
    def _within(self) -> Selection | None:
        return None if self.within is None else Selection.open(self.within)

    @cached_property
    def store(self) -> Selection:
        """The selection, opened."""
        return Selection.open(self.selection)

    @cached_property
    def unit_names(self) -> Sequence[str]:
        return names_of(self.store)

    def read(self, index: int) -> UnitDocuments:
        unit = self.unit_names[index]
        numbers = WEIGHT if self.weighted else "mask"
        table = self.store.unit_table(
            unit, ["doc_id", "input_ids", numbers, *(["group"] if self.store.grouped else [])]
        )
        found = as_numpy(flat_values(table[numbers]))
        if self.weighted:
            return _within(self._within, unit, table, found > 0, {WEIGHT: found})
        return _within(self._within, unit, table, found, {})


def names_of(store: ScoreSet | Selection) -> list[str]:
    """The names of a store's units, in corpus order."""
    found: list[str] = store.plan_names()["unit"].to_pylist()
    return found


def _within(
    within: Selection | None, unit: str, table: pa.Table, mask: np.ndarray, values: Mapping[str, np.ndarray]
) -> UnitDocuments:
    """The documents of a unit's table or, with `within`, those that this selection keeps a token of."""
    keep = np.ones(len(table), bool)
    if within is not None:
        keep = within.documents_kept(unit, table["doc_id"])
    every = Documents(
        doc_ids=table["doc_id"].combine_chunks(),
        lengths=list_lengths(table["input_ids"]),
        input_ids=as_numpy(flat_values(table["input_ids"])),
        mask=mask,
        values=values,
    )
    groups = table["group"].to_pylist() if "group" in table.column_names else [None] * len(table)
    kept_groups = [group for group, kept in zip(groups, keep.tolist(), strict=True) if kept]
    n_bytes = np.zeros(int(keep.sum()), np.int64)
    return UnitDocuments(every.only(keep), kept_groups, n_bytes, 0, int((~keep).sum()))


def check_within(within: str, tokenizer_sha256: str, units: Sequence[str]) -> None:
    """Raises InputError unless the selection `within` covers these units with the same tokenizer."""
    other = Selection.open(within)
    if other.tokenizer_sha256 != tokenizer_sha256 or not set(units) <= set(names_of(other)):
        raise InputError(
            f"--within {within} was made from another corpus, or with another tokenizer or --unit-bytes. Make it from the "
            "same score sets."
        )
