"""Tallies the bits per byte of the documents of a score set, unit by unit. No Ray here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.histogram import Group
from rho_score.ranking.rates import Rates
from rho_score.ranking.scores import run_sums
from rho_score.stores.counts import group_codes
from rho_score.stores.reopened import Reopened
from rho_score.stores.score_set import ScoreSet

Kind = Literal["harder", "easier", "typical"]
KINDS: tuple[Kind, ...] = ("harder", "easier", "typical")


class Candidate(NamedTuple):
    """A document that may be shown. The lowest come first."""

    rank: float
    unit: str
    row: int
    rate: float
    """Its bits per byte."""


Candidates = Mapping[tuple[Group, Kind], Sequence[Candidate]]


@dataclass(frozen=True, kw_only=True)
class Tallied:
    """The documents of some units."""

    groups: dict[Group, Rates]
    left_out: int
    """Documents without a scored token, without a byte of text, or with an infinite loss."""
    candidates: Candidates


@dataclass(frozen=True, kw_only=True)
class Tally(Reopened):
    """Tallies any units of a score set. It is small, and is sent to every worker."""

    url: str
    vocabulary: Vocabulary
    grouped: bool
    """True to tell groups apart."""
    shown: int
    """How many candidates of each kind are kept."""
    shown_by_group: bool
    """True to keep as many for each group, False for all together."""
    min_tokens: int
    """Candidates have at least this many scored tokens."""
    middle: float | None
    """The bits per byte that typical documents are near; None to look for none."""

    @cached_property
    def _set(self) -> ScoreSet:
        return ScoreSet.open(self.url, finished=False)  # the driver checks if it is finished

    def count(self, units: Sequence[str]) -> Tallied:
        """The documents of these units."""
        groups: dict[Group, list[Rates]] = {}
        left_out = 0
        candidates: Candidates = {}
        for unit in units:
            _, parts = self._set.unit_parts(unit, ["input_ids", "loss", *(["group"] if self.grouped else [])])
            first_row = 0
            for table in parts:
                part = _Documents.of(table, self.vocabulary, first_row, grouped=self.grouped)
                first_row += len(table)
                left_out += len(table) - len(part.rows)
                for name, mine in part.by_group():
                    groups.setdefault(name, []).append(
                        Rates.of(part.nats[mine], part.n_bytes[mine], part.n_tokens[mine])
                    )
                candidates = best_of(self.shown, candidates, self._candidates(unit, part))
        return Tallied(
            groups={name: Rates.total(found) for name, found in groups.items()},
            left_out=left_out,
            candidates=candidates,
        )

    def _candidates(self, unit: str, part: "_Documents") -> Candidates:
        found: dict[tuple[Group, Kind], list[Candidate]] = {}
        whole = [(None, np.ones(len(part.rows), bool))]
        for group, mine in part.by_group() if self.shown_by_group else whole:
            at = np.flatnonzero(mine & (part.n_tokens >= self.min_tokens))
            rates = part.nats[at] / np.log(2) / part.n_bytes[at]
            ranks: dict[Kind, np.ndarray] = {"harder": -rates, "easier": rates}
            if self.middle is not None:
                ranks["typical"] = np.abs(rates - self.middle)
            for kind, rank in ranks.items():
                chosen = np.argsort(rank, kind="stable")[: self.shown]
                found[group, kind] = [
                    Candidate(float(rank[i]), unit, int(part.rows[at[i]]), float(rates[i])) for i in chosen.tolist()
                ]
        return found


def best_of(n: int, *parts: Candidates) -> Candidates:
    """The `n` lowest candidates of each kind and group. Ties go to the first unit and row."""
    found: dict[tuple[Group, Kind], list[Candidate]] = {}
    for part in parts:
        for key, candidates in part.items():
            found[key] = sorted([*found.get(key, ()), *candidates])[:n]
    return found


@dataclass(frozen=True, kw_only=True)
class _Documents:
    """The documents of a table that have bits per byte, with their rows in the unit.

    nats, n_bytes, n_tokens: over their scored tokens. codes: indices into `names`.
    """

    rows: np.ndarray
    nats: np.ndarray
    n_bytes: np.ndarray
    n_tokens: np.ndarray
    codes: np.ndarray
    names: list[Group]

    @classmethod
    def of(cls, table: pa.Table, vocabulary: Vocabulary, first_row: int, *, grouped: bool) -> "_Documents":
        lengths = list_lengths(table["loss"])
        loss = as_numpy(flat_values(table["loss"])).astype(np.float64)
        present = ~np.isnan(loss)
        sizes = vocabulary.byte_lengths(as_numpy(flat_values(table["input_ids"])), lengths)
        nats = run_sums(np.where(present, loss, 0), lengths)
        n_bytes = run_sums(np.where(present, sizes, 0), lengths).astype(np.int64)
        n_tokens = run_sums(present, lengths).astype(np.int64)
        of = table["group"].combine_chunks() if grouped else pa.nulls(len(table), pa.string())
        codes, names = group_codes(of)
        usable = (n_bytes > 0) & np.isfinite(nats)
        return cls(
            rows=first_row + np.flatnonzero(usable),
            nats=nats[usable],
            n_bytes=n_bytes[usable],
            n_tokens=n_tokens[usable],
            codes=codes[usable],
            names=names,
        )

    def by_group(self) -> Iterator[tuple[Group, np.ndarray]]:
        """Each group with its documents, bool[n_docs]."""
        for code, name in enumerate(self.names):
            mine = self.codes == code
            if mine.any():
                yield name, mine
