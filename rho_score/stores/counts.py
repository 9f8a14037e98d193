"""Counts of documents and tokens, as the footers of units and the summaries of stores hold them."""

import array
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy
from rho_score.files.json import JsonObject
from rho_score.ranking.histogram import Group


class Summed:
    """A dataclass of numbers; two of them are added field by field."""

    def __add__(self, other: Self) -> Self:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class GroupCounts(Summed):
    """The documents and tokens of one group, and how many of them were kept."""

    documents: int = 0
    documents_kept: int = 0
    """Documents with at least one kept token."""
    tokens: int = 0
    tokens_scored: int = 0
    """Tokens that have a score. Only these can be kept at token level."""
    tokens_kept: int = 0
    documents_unaligned: int = 0
    """Documents without a score because two tokenizers read their texts differently.

    This happens where a text has characters that one of the tokenizers drops.
    """
    bytes: int = 0
    """UTF-8 bytes of the scored tokens; 0 if the selection did not need them."""
    ref_nats: float = 0.0
    """Sum of the reference's losses over the scored tokens, in nats; 0 if bytes were not counted.

    If there are several references, their combined loss is summed.
    """
    base_nats: float = 0.0
    """The same sum for the base model."""

    @property
    def share_kept(self) -> float:
        """Kept tokens divided by all tokens; 0 if there are no tokens."""
        return self.tokens_kept / self.tokens if self.tokens else 0.0

    def bits_per_byte(self, model: str) -> float | None:
        """Bits per UTF-8 byte under "ref" or "base"; None if bytes were not counted."""
        nats = self.ref_nats if model == "ref" else self.base_nats
        return nats / math.log(2) / self.bytes if self.bytes else None


def group_counts_in(metadata: JsonObject) -> dict[Group, GroupCounts]:
    """The counts in a footer's metadata, by group. Fields that other versions wrote are ignored."""
    names = [f.name for f in fields(GroupCounts)]
    return {row["group"]: GroupCounts(**{n: row[n] for n in names if n in row}) for row in metadata["groups"]}


def group_codes(groups: pa.Array) -> tuple[np.ndarray, list[Group]]:
    """Index of each document's group, int64[n_docs], and the groups as they first appear."""
    encoded = groups.dictionary_encode(null_encoding="encode")
    return as_numpy(encoded.indices).astype(np.int64), encoded.dictionary.to_pylist()


def add_groups(groups: dict[Group, GroupCounts], more: Mapping[Group, GroupCounts]) -> None:
    """Adds the counts of each group in `more` to those in `groups`, which is changed."""
    for group, counts in more.items():
        groups[group] = groups.get(group, GroupCounts()) + counts


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCounts:
    """What became of the documents of one unit or of many: documents = scored + quarantined."""

    documents: int = 0
    scored: int = 0
    quarantined: int = 0
    rescored: int = 0
    """Documents that overflowed in the run's dtype and were scored again in a wider dtype.

    Copies are not among them.
    """
    copied: int = 0
    """Scored documents whose losses were copied from another document of their unit with the same
    tokens."""
    reused: int = 0
    """Scored documents whose losses were taken from another score set."""
    tokens: int = 0
    """Tokens of the scored documents."""
    losses: int = 0
    """Tokens with a loss. Without a prefix token, the first token of each document has none."""
    total_nats: float = 0.0
    """Sum of the stored losses, in nats."""

    @property
    def mean(self) -> float:
        """The mean loss of the tokens that have one, nats; NaN if there are none."""
        return self.total_nats / self.losses if self.losses else math.nan

    @classmethod
    def of(cls, found: JsonObject) -> "ScoreCounts":
        """The counts in a JSON object. Fields that other versions wrote are ignored."""
        return cls(**{f.name: found[f.name] for f in fields(cls) if f.name in found})

    @classmethod
    def total(cls, parts: Iterable["ScoreCounts"]) -> "ScoreCounts":
        """The sum of these counts. Floats are summed exactly, so the order does not matter."""
        names = [f.name for f in fields(cls) if f.name != "total_nats"]
        counts = dict.fromkeys(names, 0)
        nats = array.array("d")
        for one in parts:
            for name in names:
                counts[name] += getattr(one, name)
            nats.append(one.total_nats)
        return cls(**counts, total_nats=math.fsum(nats))
