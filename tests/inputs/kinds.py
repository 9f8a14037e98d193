"""What a kind of input is, and what rho-score answers to it. The tables in this folder are lists of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Doc(NamedTuple):
    """A document's record: scored with `text`, or quarantined with `reason` (one that ends with … begins so)."""

    text: str | None
    reason: str | None = None
    id: str | None = None
    """Its id, where the kind is about ids."""
    group: str | None = None


class Refused(NamedTuple):
    """Exit code 2, before anything is run; the message holds all of `words`: file, value, remedy."""

    words: tuple[str, ...]


def lost(reason: str, id: str | None = None) -> Doc:
    """A quarantined document."""
    return Doc(None, reason, id)


def refused(*words: str) -> Refused:
    """A refusal whose message holds these words."""
    return Refused(words)


Answer = Sequence[Doc] | Refused
Make = Callable[[Path], str | None]
"""Writes the input into a folder; what it returns, if anything, is INPUT, else the folder is."""


@dataclass(frozen=True)
class Kind:
    """A kind of input and the answer to it."""

    name: str
    make: Make
    answer: Answer
    says: str = ""
    """The answer in the page's words, where the records themselves would be too long."""
    options: dict[str, str | int] = field(default_factory=dict)
    """Options of the corpus that are not as usual."""
    limits: dict[str, int] = field(default_factory=dict)
    """Limits of rho_score.corpus.lines that are made smaller, so that the test is small too."""

    @property
    def page_line(self) -> str:
        """A line of the page's table: kind, answer."""
        return f"| {self.name} | {self.says or in_words(self.answer)} |"


def in_words(answer: Answer) -> str:
    """The answer for a reader: `refused: …`, or what becomes of each document."""
    if isinstance(answer, Refused):
        return "refused: " + " … ".join(_code(word) for word in answer.words)
    scored = sum(doc.text is not None for doc in answer)
    reasons = list(dict.fromkeys(doc.reason for doc in answer if doc.reason is not None))
    parts = [f"{'all ' if not reasons else ''}{scored} scored"] if scored else []
    parts += [f"quarantined: {_code(reason)}" for reason in reasons]
    return "; ".join(parts) or "read; no document in it"


def _code(text: str) -> str:
    """As code in a table's cell."""
    return f"`{text}`".replace("|", "\\|").replace("\n", " ")
