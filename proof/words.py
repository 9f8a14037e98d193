"""The words of the proof's page: its arms, conditions, commands and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from proof.sizes import (
    BOTH,
    BYTES,
    DOCUMENTS,
    LIVE,
    LIVE_60,
    ORACLE,
    STORED,
    WEAK,
    Condition,
)  # fmt: skip
from proof.statistics import Interval

ABOUT_ARMS = {
    "all": "every token, in documents as they come",
    LIVE: "the 30 % of each batch with the highest live excess loss",
    LIVE_60: "the same with 60 %",
    STORED: "the 30 % of all tokens with the highest excess under an early checkpoint, chosen beforehand",
    DOCUMENTS: "whole documents with the highest mean excess, repeated; [a table below](#before-any-training) says how many tokens",
    BOTH: "these documents, and in each batch of them the 30 % with the highest live excess",
    "random-30": "control: 30 % of each batch at random",
    "high-loss-30": "control: the 30 % with the highest loss, without a reference",
    "low-reference-30": "control: the 30 % that the reference predicts best",
    ORACLE: "the ceiling in regime A: exactly the tokens that are no noise",
    WEAK: "live 30 % with a reference of a quarter of the size",
    BYTES: "stored 30 % with a reference of another vocabulary, compared over bytes",
}
COMMANDS = {
    "all": "rho-score train MODEL RUN --text CORPUS",
    LIVE: "rho-score train MODEL RUN --scores REF --ratio 0.3",
    LIVE_60: "rho-score train MODEL RUN --scores REF --ratio 0.6",
    STORED: "rho-score select SEL --ref REF --base BASE --ratio 0.3; rho-score train MODEL RUN --selection SEL",
    DOCUMENTS: "rho-score select SEL --ref REF --base BASE --level document --tokens 150000; rho-score train MODEL RUN --selection SEL",
    BOTH: "rho-score select SEL --ref REF --base BASE --level document --tokens 150000; "
    "rho-score train MODEL RUN --scores REF --within SEL --ratio 0.3",
}


def make_command(about: Mapping[str, Any]) -> str:
    """The command that made these results."""
    return "make proof" if about["size"] == "full" else f"make proof-{about['size']}"


def in_words(c: Condition, *, start: bool = True) -> str:
    """What a condition is, as a part of a sentence."""
    if c.noise:
        text = f"with noise in {c.noise} % of the tokens (regime A)"
    elif c.target < 100:
        text = f"with {c.target} % of the tokens from the target (regime B)"
    else:
        text = "with clean text of the target alone"
    return text[0].upper() + text[1:] if start else text


def amount(gain: Interval) -> str:
    """How far a mean lies below or above."""
    return f"{abs(gain.mean):.2f} nats {'below' if gain.mean > 0 else 'above'}"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"
