"""The verified join: the losses of several models on the same documents, unit by unit. No Ray here.

Score sets that are cut into the same units are paired by name, and shown to hold the same documents by the content hashes in
their footers, before a value is read. Sets that are cut otherwise are paired by ranges of rows, without a shuffle: both hold
the documents of a shard in the same order. There ids and tokens are compared themselves.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.byte_spans import (
    differing_documents,
    document_bytes,
    first_text_difference,
    leading_spaces,
    spread,
)
from rho_score.ranking.keys import Bits
from rho_score.ranking.scores import Combine, UnitScores, combined
from rho_score.selecting.row_ranges import JoinedUnit, Piece
from rho_score.stores.layout import data_name
from rho_score.stores.score_set import ScoreSet


def first_difference(left: pa.Table, right: pa.Table) -> str | None:
    """Where two tables first differ in doc_id or input_ids, in words; None where they hold the same."""
    for row in range(max(len(left), len(right))):
        if row >= len(left) or row >= len(right):
            return f"row {row}: {len(left)} documents in the one, {len(right)} in the other"
        if (a := left["doc_id"][row].as_py()) != (b := right["doc_id"][row].as_py()):
            return f"row {row}: document {a!r} in the one, {b!r} in the other"
        ids, others = left["input_ids"][row].as_py(), right["input_ids"][row].as_py()
        if ids != others:
            at = next(
                (i for i, (x, y) in enumerate(zip(ids, others, strict=False)) if x != y),
                min(len(ids), len(others)),
            )
            return (
                f"row {row}: document {a!r}, tokens differ from position {at} on ({len(ids)} and {len(others)} tokens)"
            )
    return None


@dataclass(frozen=True, kw_only=True)
class Join:
    """The score sets of a selection. The main one, which has the tokens and the units, is the base model's, else the first
    reference's. Small, and sent to every worker."""

    refs: Mapping[str, str]
    """URLs by name."""
    base: str | None
    combine: Combine
    bits: Bits
    vocabularies: Mapping[str, Vocabulary]
    """By URL; only where losses are compared over bytes, or bytes are counted."""

    @property
    def main(self) -> str:
        """URL of the set whose tokens are selected."""
        return self.base or next(iter(self.refs.values()))

    @cached_property
    def _sets(self) -> dict[str, ScoreSet]:
        places = (self.main, *self.refs.values())  # the driver saw whether they are finished
        return {url: ScoreSet.open(url, finished=False) for url in places}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_sets"}

    def load(self, unit: JoinedUnit, columns: Iterable[str]) -> UnitScores:
        """The scores of a unit, and the `columns` of its documents; raises RhoScoreError as `losses` does."""
        return self._scores(self.losses(unit, columns))

    def parts(self, unit: JoinedUnit, columns: Iterable[str]) -> Iterator[UnitScores]:
        """What `load` gives, in parts of about a million tokens: memory stays flat and the processor's cache is used.

        One part where sets are cut otherwise, or losses are compared over bytes.
        """
        if unit.pieces or self.vocabularies:
            yield self.load(unit, columns)
            return
        wanted = self._columns(unit, columns)
        urls = list(dict.fromkeys([self.main, *self.refs.values()]))
        opened = [self._sets[url].unit_parts(unit.unit, wanted if url == self.main else ["loss"]) for url in urls]
        for url, (metadata, _) in zip(urls, opened, strict=True):
            self._compare(url, unit, opened[0][0], metadata)
        for tables in zip(*(tables for _, tables in opened), strict=True):
            losses = {url: _losses(table) for url, table in zip(urls, tables, strict=True)}
            yield self._scores(_found(tables[0], losses))

    def _scores(self, found: "Losses") -> UnitScores:
        refs = {name: found.by_url[url] for name, url in self.refs.items()}
        base = found.by_url[self.base] if self.base else None
        ref, score, rankings = combined(refs, base, self.combine, self.bits)
        return UnitScores(
            documents=found.documents,
            lengths=found.lengths,
            tokens=score,
            rankings=rankings,
            ref_loss=ref,
            base_loss=base,
            n_bytes=found.n_bytes,
            unaligned=found.unaligned,
        )

    def losses(self, unit: JoinedUnit, columns: Iterable[str]) -> "Losses":
        """The losses of a unit's tokens under every model, and the `columns` of its documents.

        Raises:
            RhoScoreError: the sets do not hold the same documents; names both files and the first row that differs.
        """
        main, metadata = self._sets[self.main].read_unit(unit.unit, self._columns(unit, columns))
        found = _found(main, {self.main: _losses(main)}, self._bytes(self.main, main) if self.vocabularies else None)
        for url in self.refs.values():
            if url not in found.by_url:
                found.by_url[url] = self._other(url, unit, main, metadata, found)
        return found

    def _columns(self, unit: JoinedUnit, wanted: Iterable[str]) -> list[str]:
        needed = {"doc_id", "input_ids"} if unit.pieces or self.vocabularies else set()
        return sorted({"loss", *wanted, *needed})

    def _other(
        self, url: str, unit: JoinedUnit, main: pa.Table, metadata: Mapping[str, Any], found: "Losses"
    ) -> np.ndarray:
        """The losses of another set on the main set's tokens."""
        other = self._sets[url]
        by_bytes = other.tokenizer_sha256 != self._sets[self.main].tokenizer_sha256
        pieces = unit.pieces.get(url)
        if pieces is None and not by_bytes:
            table, footer = other.read_unit(unit.unit, ["loss"])
            self._compare(url, unit, metadata, footer)
            return _losses(table)
        columns = ["doc_id", "input_ids", "loss"]
        parts = [Piece(unit.unit, 0, len(main))] if pieces is None else pieces
        empty = other.unit_table(parts[0].unit if parts else other.units[0].unit, columns).slice(0, 0)
        whole = [other.unit_table(piece.unit, columns) for piece in parts]
        table = pa.concat_tables(
            [
                empty,
                *(
                    t if pieces is None else t.slice(p.start, p.stop - p.start)
                    for t, p in zip(whole, parts, strict=True)
                ),
            ]
        ).combine_chunks()
        if by_bytes:
            return self._by_bytes(url, unit, main, table, found)
        if not (table["doc_id"].equals(main["doc_id"]) and table["input_ids"].equals(main["input_ids"])):
            self._refuse(url, unit, first_difference(main, table))
        return _losses(table)

    def _compare(self, url: str, unit: JoinedUnit, metadata: Mapping[str, Any], footer: Mapping[str, Any]) -> None:
        """Raises RhoScoreError where two files of a unit do not hold the same documents; metadata: of the main set's."""
        if footer["content_sha256"] != metadata["content_sha256"]:
            tables = [self._sets[place].unit_table(unit.unit, ["doc_id", "input_ids"]) for place in (self.main, url)]
            self._refuse(url, unit, first_difference(*tables))

    def _by_bytes(self, url: str, unit: JoinedUnit, main: pa.Table, other: pa.Table, found: "Losses") -> np.ndarray:
        """Losses of another vocabulary's tokens, spread over their bytes and summed over the main tokens' spans.

        NaN in documents that the two tokenizers do not read alike, which is noted in `found`. Where that is more than one
        document in a hundred, the corpus is not the same or a tokenizer changes its text: that is refused.
        """
        if not other["doc_id"].equals(main["doc_id"]):
            self._refuse(url, unit, first_difference(main.select(["doc_id", "input_ids"]), other))
        left, right = _Text.of(self.vocabularies[self.main], main), _Text.of(self.vocabularies[url], other)
        if left.optional_space != right.optional_space:  # the other side knows which documents begin with a space
            exact, known = (right, left) if left.optional_space else (left, right)
            spaces = leading_spaces(exact.text, exact.doc_bytes)
            known = _Text.of(
                self.vocabularies[self.main if known is left else url], main if known is left else other, spaces
            )
            left, right = (known, exact) if left.optional_space else (exact, known)
        differ = differing_documents(left.text, left.doc_bytes, right.text, right.doc_bytes)
        if differ.sum() > max(1, len(differ) // 100):
            document, at, here, there = first_text_difference(
                left.text, left.doc_bytes, right.text, right.doc_bytes
            ) or (0, 0, "", "")
            self._refuse(
                url, unit, f"document {main['doc_id'][document].as_py()!r}, byte {at}: {here!r} in the one, {there!r} in the other; "
                f"{differ.sum()} of {len(differ)} documents differ (another text, or a tokenizer that changes it)",
            )  # fmt: skip
        found.unaligned[:] |= differ
        mine, theirs = np.repeat(~differ, left.lengths), np.repeat(~differ, right.lengths)
        losses = np.full(len(mine), np.nan)
        losses[mine] = spread(
            _losses(other)[theirs],
            right.n_bytes[theirs],
            right.lengths[~differ],
            left.n_bytes[mine],
            left.lengths[~differ],
        )
        return losses

    def _bytes(self, url: str, table: pa.Table) -> np.ndarray:
        return self.vocabularies[url].byte_lengths(_ids(table), list_lengths(table["input_ids"]))

    def _refuse(self, url: str, unit: JoinedUnit, difference: str | None) -> None:
        places = unit.pieces.get(url)
        there = ", ".join(data_name(piece.unit) for piece in places[:3]) if places else data_name(unit.unit)
        raise RhoScoreError(
            f"{self.main}/{data_name(unit.unit)} and {url}/{there} do not hold the same documents:\n"
            f"  {difference}\nScore the models over the same corpus with the same options. "
            "(A document that only one of them could score, see quarantine/, differs too: score it in float32.)"
        )


@dataclass(frozen=True, kw_only=True)
class Losses:
    """A unit under several models. lengths: tokens a document, int64[n_docs]. by_url: losses of the main set's tokens by the
    sets' URLs, nats, float[n_tokens]. n_bytes: UTF-8 bytes of each token, int64[n_tokens], where they matter. unaligned:
    documents that tokenizers do not read alike, bool[n_docs]."""

    documents: pa.Table
    lengths: np.ndarray
    by_url: dict[str, np.ndarray]
    n_bytes: np.ndarray | None
    unaligned: np.ndarray


def _found(main: pa.Table, losses: dict[str, np.ndarray], n_bytes: np.ndarray | None = None) -> Losses:
    """Losses of the documents of the main set's table."""
    return Losses(
        documents=main.drop_columns("loss"),
        lengths=list_lengths(main["loss"]),
        by_url=losses,
        n_bytes=n_bytes,
        unaligned=np.zeros(len(main), bool),
    )


class _Text(NamedTuple):
    """A unit's text as one tokenizer's ids tell it."""

    text: np.ndarray
    n_bytes: np.ndarray
    doc_bytes: np.ndarray
    lengths: np.ndarray
    optional_space: bool

    @classmethod
    def of(cls, vocabulary: Vocabulary, table: pa.Table, spaces: np.ndarray | None = None) -> "_Text":
        ids, lengths = _ids(table), list_lengths(table["input_ids"])
        n_bytes = vocabulary.byte_lengths(ids, lengths, spaces)
        text = vocabulary.text_bytes(ids, lengths, spaces)
        return cls(text, n_bytes, document_bytes(n_bytes, lengths), lengths, vocabulary.optional_space)


def _losses(table: pa.Table) -> np.ndarray:
    losses: np.ndarray = as_numpy(flat_values(table["loss"]))
    return losses.astype(np.float32, copy=False)


def _ids(table: pa.Table) -> np.ndarray:
    ids: np.ndarray = as_numpy(flat_values(table["input_ids"]))
    return ids
