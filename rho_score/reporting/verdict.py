"""What a comparison says, in words. `docs/guides/compare.md` has the rules."""

import math

from rho_score.ranking.effects import Estimate
from rho_score.reporting.compared import Comparison
from rho_score.safe_text import visible


def sentences(found: Comparison) -> list[str]:
    """The comparison in words; the last sentence is the verdict."""
    label, against = visible(found.label), visible(found.against)
    return [
        f"{label} {_harder(found.difference, against)}.",
        f"A random document of it is harder than one of {against} with probability {_probability(found.superiority)}.",
        _at_like_length(found),
        f"{found.above:.1%} of its documents are above the 99 % quantile of {against}, and {found.below:.1%} are below "
        "the 1 % quantile.",
        f"Verdict: {_conclusion(found)}",
    ]


def _harder(of: Estimate, against: str) -> str:
    """A difference of bits per byte, after a name."""
    if of.low <= 0 <= of.high and math.isfinite(of.low):
        return f"is about as hard as {against}: {of.value:+.3f} bits per byte (95 %: {of.low:+.3f} to {of.high:+.3f})"
    text = f"is {abs(of.value):.3f} bits per byte {_word(of.value)} than {against}"
    if math.isinf(of.low):
        return f"{text}, and has too few documents for an interval"
    low, high = sorted((abs(of.low), abs(of.high)))
    return f"{text} (95 %: {low:.3f} to {high:.3f})"


def _word(difference: float) -> str:
    return "harder" if difference > 0 else "easier"


def _probability(of: Estimate) -> str:
    return f"{of.value:.3f} (95 %: {of.low:.3f} to {of.high:.3f})"


def _at_like_length(found: Comparison) -> str:
    if found.matched is None:
        return "No two documents of each are of like length, so that length alone may make the difference."
    of = found.matched
    text = (
        f"Among documents of like length ({of.share:.0%} of it), it {_harder(of.difference, visible(found.against))}, with probability "
        f"{_probability(of.superiority)}."
    )
    if not found.at_like_length:
        return f"{text} These are too few, so the verdict is about all documents, and length may make the difference."
    sure = not found.difference.low <= 0 <= found.difference.high
    if sure and of.difference.value / found.difference.value < 0.5:
        return f"{text} Length makes more than half of the difference."
    return text


def _conclusion(found: Comparison) -> str:
    if found.verdict == "alike":
        return "alike. To this model, it is about as predictable."
    if found.verdict == "more spread":
        return (
            f"more spread. Its middle is alike, but {found.outside.value:.1%} of its documents lie outside those two quantiles, "
            "as 2 % should."
        )
    if found.verdict == "undecided":
        return f"undecided. The difference looks {found.size}, but there are too few documents to be sure of that."
    caution = "" if found.at_like_length else " Length is not ruled out as its cause."
    return f"{found.verdict}. The difference is {found.size}.{caution}"
