"""The verified join: the losses of several models on the same documents, unit by unit. No Ray here.

Score sets that are cut into the same units are paired by the units' names. Before a value is read,
the content hashes in the footers show that both hold the same documents. Sets that are cut
otherwise are paired by ranges of rows. That needs no shuffle, since both hold the documents of a
shard in the same order. Their ids and tokens are compared one by one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NoReturn

import numpy as np
import pyarrow as pa

from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.files.json import JsonObject
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.keys import Bits
from rho_score.ranking.scores import Combine, UnitScores, combined
from rho_score.selecting.byte_join import TextsDiffer, losses_by_bytes
from rho_score.selecting.row_ranges import JoinedUnit, RowRange
from rho_score.stores.layout import data_name
from rho_score.stores.reopened import Reopened
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection


def first_difference(left: pa.Table, right: pa.Table) -> str | None:
    """Where two tables first differ in doc_id or input_ids, in words; None if they are equal."""
    for row in range(max(len(left), len(right))):
        if row >= len(left) or row >= len(right):
            return f"row {row}: the first has {len(left)} documents, the second {len(right)}"
        if (a := left["doc_id"][row].as_py()) != (b := right["doc_id"][row].as_py()):
            return f"row {row}: the first has document {a!r}, the second {b!r}"
        ids, others = left["input_ids"][row].as_py(), right["input_ids"][row].as_py()
        if ids != others:
            at = next(
                (i for i, (x, y) in enumerate(zip(ids, others, strict=False)) if x != y),
                min(len(ids), len(others)),
            )
            return (
                f"row {row}, document {a!r}: tokens differ from position {at} on ({len(ids)} and {len(others)} tokens)"
            )
    return None


@dataclass(frozen=True, kw_only=True)
class Join(Reopened):
    """The score sets of a selection. It is small, and is sent to every worker.

    The main set is the base model's, or else the first reference's. The selection has its tokens
    and its units.
    """

    refs: Mapping[str, str]
    """URLs of the references by name."""
    base: str | None
    combine: Combine
    bits: Bits
    vocabularies: Mapping[str, Vocabulary]
    """By URL; empty unless losses are compared over bytes or bytes are counted."""
    within: str | None = None
    """URL of a selection; tokens of documents of which it keeps no token have no score."""

    @property
    def main(self) -> str:
        """URL of the set whose tokens are selected."""
        return self.base or next(iter(self.refs.values()))

    @cached_property
    def _sets(self) -> dict[str, ScoreSet]:
        places = (self.main, *self.refs.values())  # the driver checks if they are finished
        return {url: ScoreSet.open(url, finished=False) for url in places}

    @cached_property
    def _within(self) -> Selection | None:
        return None if self.within is None else Selection.open(self.within)

    def load(self, unit: JoinedUnit, columns: Iterable[str]) -> UnitScores:
        """The scores of a unit, with these columns of its documents.

        Raises RhoScoreError as `losses` does.
        """
        found = self.losses(unit, columns)
        return self._scores(found, self._kept_documents(unit, found.documents))

    def parts(self, unit: JoinedUnit, columns: Iterable[str]) -> Iterator[UnitScores]:
        """What `load` returns, in parts of about a million tokens.

        Memory stays flat, and the parts fit the processor's cache. There is only one part if sets
        are cut otherwise, if bytes are compared or counted, or with `within`.
        """
        if unit.row_ranges or self.vocabularies or self.within:
            yield self.load(unit, columns)
            return
        wanted = self._columns(unit, columns)
        urls = list(dict.fromkeys([self.main, *self.refs.values()]))
        opened = [self._sets[url].unit_parts(unit.unit, wanted if url == self.main else ["loss"]) for url in urls]
        for url, (metadata, _) in zip(urls, opened, strict=True):
            self._compare(url, unit, opened[0][0], metadata)
        for tables in zip(*(tables for _, tables in opened), strict=True):
            losses = {url: _losses(table) for url, table in zip(urls, tables, strict=True)}
            yield self._scores(_found(tables[0], losses), None)

    def _kept_documents(self, unit: JoinedUnit, documents: pa.Table) -> np.ndarray | None:
        """True for each document of a unit that `within` keeps a token of; None without `within`."""
        return None if self._within is None else self._within.documents_kept(unit.unit, documents["doc_id"])

    def _scores(self, found: "Losses", kept: np.ndarray | None) -> UnitScores:
        if kept is not None:
            outside = ~np.repeat(kept, found.lengths)
            found = replace(found, by_url={url: np.where(outside, np.nan, of) for url, of in found.by_url.items()})
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
        """The losses of a unit's tokens under every model, with these columns of its documents.

        Raises:
            RhoScoreError: the sets do not hold the same documents. The message names both files and
                the first row that differs.
        """
        main, metadata = self._sets[self.main].read_unit(unit.unit, self._columns(unit, columns))
        found = _found(main, {self.main: _losses(main)}, self._bytes(self.main, main) if self.vocabularies else None)
        for url in self.refs.values():
            if url not in found.by_url:
                found.by_url[url] = self._other(url, unit, main, metadata, found)
        return found

    def _columns(self, unit: JoinedUnit, wanted: Iterable[str]) -> list[str]:
        needed = {"doc_id", "input_ids"} if unit.row_ranges or self.vocabularies else set()
        return sorted({"loss", *wanted, *needed, *(["doc_id"] if self.within else [])})

    def _other(self, url: str, unit: JoinedUnit, main: pa.Table, metadata: JsonObject, found: "Losses") -> np.ndarray:
        """The losses of another set for the main set's tokens, nats, float[n_tokens]."""
        other = self._sets[url]
        by_bytes = other.tokenizer_sha256 != self._sets[self.main].tokenizer_sha256
        row_ranges = unit.row_ranges.get(url)
        if row_ranges is None and not by_bytes:
            table, footer = other.read_unit(unit.unit, ["loss"])
            self._compare(url, unit, metadata, footer)
            return _losses(table)
        columns = ["doc_id", "input_ids", "loss"]
        parts = [RowRange(unit.unit, 0, len(main))] if row_ranges is None else row_ranges
        empty = other.unit_table(parts[0].unit if parts else other.units[0].unit, columns).slice(0, 0)
        whole = [other.unit_table(part.unit, columns) for part in parts]
        table = pa.concat_tables(
            [
                empty,
                *(
                    t if row_ranges is None else t.slice(p.start, p.stop - p.start)
                    for t, p in zip(whole, parts, strict=True)
                ),
            ]
        ).combine_chunks()
        if not table["doc_id"].equals(main["doc_id"]):
            self._refuse(url, unit, first_difference(main.select(["doc_id", "input_ids"]), table))
        if by_bytes:
            try:
                losses, unaligned = losses_by_bytes(
                    main, self.vocabularies[self.main], table, self.vocabularies[url], _losses(table)
                )
            except TextsDiffer as error:
                self._refuse(url, unit, str(error))
            found.unaligned[:] |= unaligned
            return losses
        if not table["input_ids"].equals(main["input_ids"]):
            self._refuse(url, unit, first_difference(main, table))
        return _losses(table)

    def _compare(self, url: str, unit: JoinedUnit, metadata: JsonObject, footer: JsonObject) -> None:
        """Raises RhoScoreError if two files of a unit do not hold the same documents.

        metadata: that of the main set's file. footer: that of the other set's file.
        """
        if footer["content_sha256"] != metadata["content_sha256"]:
            tables = [self._sets[place].unit_table(unit.unit, ["doc_id", "input_ids"]) for place in (self.main, url)]
            self._refuse(url, unit, first_difference(*tables))

    def _bytes(self, url: str, table: pa.Table) -> np.ndarray:
        return self.vocabularies[url].byte_lengths(_ids(table), list_lengths(table["input_ids"]))

    def _refuse(self, url: str, unit: JoinedUnit, difference: str | None) -> NoReturn:
        places = unit.row_ranges.get(url)
        there = ", ".join(data_name(part.unit) for part in places[:3]) if places else data_name(unit.unit)
        raise RhoScoreError(
            f"{self.main}/{data_name(unit.unit)} and {url}/{there} do not hold the same documents:\n"
            f"  {difference}\nScore the models over the same corpus with the same options. "
            "If quarantine/ shows a document that only one of them could score, score both in float32."
        )


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of a unit under several models.

    documents: the columns that were asked for. lengths: tokens of each document, int64[n_docs].
    by_url: losses of the main set's tokens by the sets' URLs, nats, float[n_tokens] each. n_bytes:
    UTF-8 bytes of each token, int64[n_tokens]; None if bytes are not counted. unaligned: True for
    each document that the tokenizers do not read alike, bool[n_docs].
    """

    documents: pa.Table
    lengths: np.ndarray
    by_url: dict[str, np.ndarray]
    n_bytes: np.ndarray | None
    unaligned: np.ndarray


def _found(main: pa.Table, losses: dict[str, np.ndarray], n_bytes: np.ndarray | None = None) -> Losses:
    """`losses` with the documents of the main set's table."""
    return Losses(
        documents=main.drop_columns("loss"),
        lengths=list_lengths(main["loss"]),
        by_url=losses,
        n_bytes=n_bytes,
        unaligned=np.zeros(len(main), bool),
    )


def _losses(table: pa.Table) -> np.ndarray:
    losses: np.ndarray = as_numpy(flat_values(table["loss"]))
    return losses.astype(np.float32, copy=False)


def _ids(table: pa.Table) -> np.ndarray:
    ids: np.ndarray = as_numpy(flat_values(table["input_ids"]))
    return ids
