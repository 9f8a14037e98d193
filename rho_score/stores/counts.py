"""How many documents and tokens became what: the counts in the footers of units and in the summaries of stores."""

import array
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from rho_score.files.json import JsonObject
from rho_score.ranking.histogram import Group


@dataclass(frozen=True, kw_only=True)
class GroupCounts:
    """What was kept of the documents of one group."""

    documents: int = 0
    documents_kept: int = 0
    """Documents with at least one kept token."""
    tokens: int = 0
    tokens_scored: int = 0
    """Tokens that have a score, and so can be kept at token level."""
    tokens_kept: int = 0
    documents_unaligned: int = 0
    """Documents without a score because two tokenizers do not read them alike (a text with characters that one drops)."""
    bytes: int = 0
    """UTF-8 bytes of the scored tokens; 0 where the selection did not need them."""
    ref_nats: float = 0.0
    """Sum of the reference's losses (as combined) over the scored tokens; 0 where bytes are not counted."""
    base_nats: float = 0.0

    def __add__(self, other: "GroupCounts") -> "GroupCounts":
        return GroupCounts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def share_kept(self) -> float:
        """Kept tokens over all tokens; 0 where there are none."""
        return self.tokens_kept / self.tokens if self.tokens else 0.0

    def bits_per_byte(self, model: str) -> float | None:
        """Of "ref" or "base": bits a UTF-8 byte; None where bytes were not counted."""
        nats = self.ref_nats if model == "ref" else self.base_nats
        return nats / math.log(2) / self.bytes if self.bytes else None


def group_counts_in(metadata: JsonObject) -> dict[Group, GroupCounts]:
    """The accounts in a footer's metadata. Fields of other versions are left alone."""
    names = [f.name for f in fields(GroupCounts)]
    return {row["group"]: GroupCounts(**{n: row[n] for n in names if n in row}) for row in metadata["groups"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCounts:
    """What became of the documents of a unit, or of many. documents = scored + quarantined, always."""

    documents: int = 0
    scored: int = 0
    quarantined: int = 0
    rescored: int = 0
    """Documents that overflowed in the run's dtype and were scored again in a wider one."""
    tokens: int = 0
    """Tokens of the scored documents."""
    losses: int = 0
    """Tokens with a loss: all, but for the first of each document where the vocabulary has no prefix."""
    total_nats: float = 0.0
    """Sum of the stored losses."""

    @classmethod
    def total(cls, accounts: Iterable["ScoreCounts"]) -> "ScoreCounts":
        """The sum, the same for any order (floats by exact summation)."""
        names = [f.name for f in fields(cls) if f.name != "total_nats"]
        counts = dict.fromkeys(names, 0)
        nats = array.array("d")
        for one in accounts:
            for name in names:
                counts[name] += getattr(one, name)
            nats.append(one.total_nats)
        return cls(**counts, total_nats=math.fsum(nats))
