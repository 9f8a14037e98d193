"""Tells whether the losses of score sets of different corpora are of one model, computed in the same way."""

import logging
from collections.abc import Mapping

import numpy as np

from rho_score.errors import InputError
from rho_score.files.json import JsonObject
from rho_score.servers.check import is_repeat
from rho_score.stores.manifest import difference
from rho_score.stores.score_set import ScoreSet, require_losses

log = logging.getLogger(__name__)

SAME = (
    "weights_sha256", "config_sha256", "code_sha256", "adapter_sha256", "random_from", "quantize", "dtype", "precision",
    "server_kind", "server_model", "tokenizer_sha256", "context", "overlap", "prefix_id", "content_kind", "roles",
    "chat_template_sha256", "chat_date", "context_hidden", "hidden_prefix_id",
)  # fmt: skip
"""The parts of the manifests that must be equal: all that determines losses, but not the corpus."""
DERIVED = ("from", "alpha", "counted_in", "counted", "level")
"""The same of what a score set notes that was made without a model."""


def same_parts(scores: ScoreSet) -> JsonObject:
    """What determines the losses of a score set, but not its corpus."""
    parts = scores.manifest["parts"]
    derived = parts.get("derived", {})
    return {name: parts[name] for name in SAME if name in parts} | {
        f"derived_{name}": derived[name] for name in DERIVED if name in derived
    }


def check_same_model(sets: Mapping[str, ScoreSet]) -> None:
    """Checks score sets by their names.

    Raises:
        InputError: a set holds something else than losses in nats, or two sets are of different
            models or were made in other ways. The message names what differs.
    """
    for scores in sets.values():
        require_losses(scores, "compare")
        if scores.manifest["parts"].get("derived", {}).get("reduce") == "mean":
            raise InputError(
                f"compare adds up the losses of a document's tokens, but {scores.folder.url} holds means over bytes. Import the "
                "losses without --reduce mean."
            )
    first, *others = sets.items()
    for name, scores in others:
        keys = [*SAME, *(f"derived_{name}" for name in DERIVED)]
        if differs := difference(same_parts(first[1]), same_parts(scores), first[0], name, keys):
            raise InputError(
                f"{first[1].folder.url} and {scores.folder.url} were not scored in the same way:\n{differs}\n"
                + _remedy(first[1], scores)
            )
        _check_probes(first[1], scores)
    if others and _made_from(first[1]) == "values":
        log.warning(
            "the losses were imported. Nothing tells whether they are of one model with the same context, so be sure of it."
        )


def _made_from(scores: ScoreSet) -> str | None:
    """What a score set was made from without a model, such as "frequencies"; None if a model made it."""
    made_from: str | None = scores.manifest["parts"].get("derived", {}).get("from")
    return made_from


def _remedy(first: ScoreSet, other: ScoreSet) -> str:
    if _made_from(first) == _made_from(other) == "frequencies":
        return "Count the tokens of one score set for both, with `rho-score prior --counted-in` and one --alpha."
    return (
        "Score both corpora with one model and the same dtype, precision, context, overlap, prefix and kind of content."
    )


def _check_probes(first: ScoreSet, other: ScoreSet) -> None:
    """Raises InputError if servers gave the text of their check other losses, so that a name stands for two models."""
    probes = [scores.manifest.get("server", {}).get("probe") for scores in (first, other)]
    if None in probes or probes[0]["input_ids"] != probes[1]["input_ids"]:
        return
    differences = np.abs(np.subtract(probes[0]["losses"], probes[1]["losses"]))
    if not is_repeat(differences):
        raise InputError(
            f"{first.folder.url} and {other.folder.url} are of two models: when they were made, the server gave a short text "
            f"losses that differ by {differences.mean():.3g} nats on average, although its model had the same name. Score both "
            "corpora with one model."
        )
