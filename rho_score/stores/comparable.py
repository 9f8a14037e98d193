"""Tells whether the losses of two score sets can be compared."""

from collections.abc import Iterable

from rho_score.errors import InputError
from rho_score.stores.manifest import difference
from rho_score.stores.score_set import ScoreSet

COLUMNS = [
    "text_column", "id_column", "group_column", "content_kind", "context_column", "rejected_column", "split_at", "roles",
]  # fmt: skip
CONTEXT = ["context_hidden", "hidden_prefix_id"]
"""The parts that say what the model saw before the tokens that count."""
COMPARABLE = [
    "tokenizer_sha256", "context", "overlap", "prefix_id", *COLUMNS, "chat_date", "chat_template_sha256", *CONTEXT,
]  # fmt: skip


def cut_otherwise(main: ScoreSet, sets: Iterable[ScoreSet]) -> tuple[ScoreSet, ...]:
    """The score sets among `sets` that are cut into other units than `main`."""
    units = main.plan_names()["unit"]
    return tuple(s for s in sets if s is not main and not s.plan_names()["unit"].equals(units))


def comparable(
    main: ScoreSet, other: ScoreSet, names: tuple[str, str], *, by_bytes: bool = False, gain: bool = False
) -> None:
    """Raises InputError, which says why, if the losses of two sets cannot be compared.

    Losses are compared token by token or, if `by_bytes`, over bytes. names: what the message calls
    the two sets. gain: True if the context may be hidden in one set alone, so that the difference
    is what the context tells.
    """
    if main.holds != other.holds:
        raise InputError(
            f"{main.folder.url} and {other.folder.url} cannot be compared: one holds {main.holds}, the other {other.holds}. "
            "Select from each by itself, and combine selections with --within."
        )
    mixed = main.context_hidden != other.context_hidden
    if mixed and not gain:
        hidden, seen = (main, other) if main.context_hidden else (other, main)
        raise InputError(
            f"{hidden.folder.url} was made with --hide-context and {seen.folder.url} without, so they hold the losses of "
            "tokens behind different contexts. Score both in one of these ways. `rho-score select` alone takes both, and ranks by what "
            "the context tells."
        )
    left, right = main.manifest["parts"], other.manifest["parts"]
    same = main.tokenizer_sha256 == other.tokenizer_sha256
    keys = COLUMNS if by_bytes and not same else [key for key in COMPARABLE if not (mixed and key in CONTEXT)]
    if differs := difference(left, right, *names, keys):
        hint = (
            ""
            if same or by_bytes
            else " To compare models with different tokenizers, use `rho-score select --align bytes`."
        )
        raise InputError(
            f"{main.folder.url} and {other.folder.url} cannot be compared token by token:\n{differs}\n"
            f"Score both models over the same files with the same tokenizer, context, overlap and columns.{hint}"
        )
    shards = set.symmetric_difference(*(set(s.plan_names()["shard"].unique().to_pylist()) for s in (main, other)))
    if shards:
        raise InputError(
            f"{main.folder.url} and {other.folder.url} were made from different files: {len(shards)} shards are in only one "
            f"of them, such as {min(shards)}. Score both models over the same corpus."
        )
