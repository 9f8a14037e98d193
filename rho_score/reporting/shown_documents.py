"""Documents of a score set that are shown because they are the most or the least like another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from rho_score.files.arrow import as_numpy, flat_values
from rho_score.models.pieces import text_pieces
from rho_score.ranking.histogram import Group
from rho_score.reporting.sample import DocumentTokens
from rho_score.reporting.tally import KINDS, Candidate, Kind
from rho_score.safe_text import visible
from rho_score.stores.score_set import ScoreSet

EXCERPT = 160
"""Characters of a document's beginning."""
MOST_BYTES = 4
"""Bytes of a character in UTF-8, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownDocument:
    """A document, with why it is shown."""

    of: str
    """The set or, if groups of one set are compared, the group that it stands for."""
    kind: Kind
    """"harder": it is above the 99 % quantile of what its set is compared with. "easier": it is
    below the 1 % quantile. "typical": it is near the median."""
    bits_per_byte: float
    excerpt: str
    """How its text begins, on one line, with single spaces and invisible characters made visible."""
    tokens: DocumentTokens
    """Its id, its group, its tokens, and their losses as the score."""

    @property
    def doc_id(self) -> str:
        """The document's id."""
        return self.tokens.doc_id

    @property
    def group(self) -> Group:
        """The document's group."""
        return self.tokens.group


def shown_documents(
    scores: ScoreSet,
    of: str,
    candidates: Mapping[Kind, Sequence[Candidate]],
    tails: Sequence[float],
    tokenizer: PreTrainedTokenizerBase,
) -> list[ShownDocument]:
    """The candidates that are outside the tails, and those that are typical, by kind.

    tails: the 1 % and the 99 % quantile of what the set is compared with, bits per byte.
    """
    low, high = tails
    found = []
    for kind in KINDS:
        for candidate in candidates.get(kind, ()):
            rate = float(np.float16(candidate.rate))  # as it was counted
            if (kind == "harder" and rate <= high) or (kind == "easier" and rate >= low):
                continue
            tokens = _tokens(scores, candidate)
            first = tokens.input_ids[: MOST_BYTES * EXCERPT]  # a token for each byte at worst
            text = " ".join("".join(piece.text for piece in text_pieces(tokenizer, first)).split())
            cut = len(text) > EXCERPT or len(tokens.input_ids) > len(first)
            excerpt = visible(text[:EXCERPT]) + ("…" if cut else "")
            found.append(ShownDocument(of=of, kind=kind, bits_per_byte=candidate.rate, excerpt=excerpt, tokens=tokens))
    return found


def _tokens(scores: ScoreSet, candidate: Candidate) -> DocumentTokens:
    columns = ["doc_id", "input_ids", "loss", *(["group"] if scores.grouped else [])]
    row = scores.unit_table(candidate.unit, columns).slice(candidate.row, 1)
    return DocumentTokens(
        doc_id=row["doc_id"][0].as_py(),
        group=row["group"][0].as_py() if scores.grouped else None,
        input_ids=as_numpy(flat_values(row["input_ids"])),
        score=as_numpy(flat_values(row["loss"])),
    )
