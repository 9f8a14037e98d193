"""What commands print, and what they have in common."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rho_score.safe_text import visible, visible_lines, without_secrets

if TYPE_CHECKING:  # the module imports numpy, which the help does not need
    from rho_score.stores.counts import GroupCounts, ScoreCounts

QUARANTINED = 3
SHOWN = 5  # documents that are printed with the reason why they have no values


def fit(text: str) -> str:
    """`text` as output may show it: without credentials, with control characters made visible."""
    return visible_lines(without_secrets(text))


def say(text: str = "") -> None:
    print(fit(text))


def say_finished(output: str) -> None:
    say(f"{output} is finished already; nothing to do.")


def say_written(*paths: str | None) -> None:
    for path in paths:
        if path:
            say(f"wrote {path}")


def print_left_out(names: Sequence[str], of: str = "input") -> None:
    """Prints which files are no shards. of: what they are files of."""
    from rho_score.corpus.plan import left_out

    if names:
        say(f"{len(names):,} files of the {of} are no shards, {left_out(names)}")


def print_reasons(what: str, documents: Iterable[tuple[str, str]], n_documents: int, where: str) -> None:
    """Prints the first documents with their reasons, and where the others are."""
    for doc_id, reason in itertools.islice(documents, SHOWN):
        say(f"  {what}: {visible(doc_id)[:80]}: {visible(reason)[:200]}")
    more = f"and {n_documents - SHOWN:,} more; " if n_documents > SHOWN else ""
    say(f"{more}all reasons are in {where}/ (columns doc_id, reason)")


def print_retries(retries: Mapping[str, int], of: str = "storage", what: str = "calls") -> None:
    if retries:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(retries.items()))
        say(f"{of}: {sum(retries.values()):,} {what} were made again ({kinds})")


def documents_known(total: "GroupCounts") -> bool:
    """True if the counts include documents, which a dry run over tokens does not know."""
    return total.documents > 0 or total.tokens == 0


def print_mean(what: str, counts: "ScoreCounts") -> None:
    say(
        f"{counts.scored:,} documents; {counts.losses:,} of {counts.tokens:,} tokens have a value, mean {what} "
        f"{counts.mean:.4f} nats"
    )
