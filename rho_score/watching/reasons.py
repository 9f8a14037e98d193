"""Groups reasons of quarantine that differ only in numbers. Pure functions."""

import re
from collections import Counter
from collections.abc import Iterable

LONGEST = 120
"""Characters of a reason that are kept."""
_NUMBER = re.compile(r"\d[\d,.]*(?<=\d)")


def by_reason(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first.

    Reasons that differ in their numbers alone, such as "line 7: not JSON", are one reason, with N
    for each number; a reason that occurs once keeps its numbers.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for reason in reasons:
        form = _NUMBER.sub("N", reason)[:LONGEST]
        counts[form] += 1
        if examples.setdefault(form, reason[:LONGEST]) != reason[:LONGEST]:
            examples[form] = form
    found: Counter[str] = Counter()
    for form, n in counts.items():
        found[examples[form]] += n
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
