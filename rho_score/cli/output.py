"""What commands print, and what they have in common."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rho_score.safe_text import visible_lines, without_secrets

if TYPE_CHECKING:  # the module imports numpy, which the help does not need
    from rho_score.stores.counts import GroupCounts, ScoreCounts

QUARANTINED = 3
SHOWN = 5  # quarantined documents that are printed


def fit(text: str) -> str:
    """`text` as output may show it: without credentials, with control characters made visible."""
    return visible_lines(without_secrets(text))


def say(text: str = "") -> None:
    print(fit(text))


def say_finished(output: str) -> None:
    say(f"{output} is finished already; nothing to do.")


def print_retries(retries: Mapping[str, int], of: str = "storage", what: str = "calls") -> None:
    if retries:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(retries.items()))
        say(f"{of}: {sum(retries.values()):,} {what} were made again ({kinds})")


def documents_known(total: "GroupCounts") -> bool:
    """True if the counts include documents, which a dry run over tokens does not know."""
    return total.documents > 0 or total.tokens == 0


def print_mean(what: str, counts: "ScoreCounts") -> None:
    mean = counts.total_nats / counts.losses if counts.losses else float("nan")
    say(
        f"{counts.scored:,} documents; {counts.losses:,} of {counts.tokens:,} tokens have a value, mean {what} {mean:.4f} nats"
    )
