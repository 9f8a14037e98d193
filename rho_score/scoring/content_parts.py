"""The parts of a manifest on what a document holds and which of its tokens count, and the encoder."""

import datetime
from typing import Any

from rho_score.config import PlanConfig, ScoreConfig
from rho_score.config.corpus import WHOLE
from rho_score.corpus.columns import Columns
from rho_score.errors import InputError
from rho_score.files.json import JsonObject
from rho_score.models.content import Encoder
from rho_score.models.tokenizer import resolve_prefix


def content_parts(
    config: ScoreConfig, columns: Columns, begun: JsonObject | None, tokenizer: Any, vocabulary: int
) -> tuple[JsonObject, Encoder]:
    """Returns the parts of the manifest on what a document holds, and the encoder.

    There are no such parts for a text. A resumed run keeps the day that it told to
    chat templates.
    """
    parts = (begun or {}).get("parts", {})
    date = config.chat_date or parts.get("chat_date") or datetime.date.today().isoformat()
    encoder = Encoder.of(
        columns.kind, tokenizer, roles=config.roles, date=date, model=config.model, vocabulary=vocabulary
    )
    if columns.kind == "text":
        return {}, encoder
    named = {"context_column": columns.context, "rejected_column": columns.rejected}
    about: JsonObject = {"content_kind": columns.kind}
    if columns.split_at is not None:
        about |= {"text_column": None, "split_at": columns.split_at}
    about |= {name: column for name, column in named.items() if column is not None}
    if columns.kind == "messages":
        about["roles"] = sorted(config.roles)
    if encoder.template:
        about["chat_template_sha256"] = encoder.template_sha256
    return about | ({"chat_date": date} if encoder.dated else {}), encoder


def brings_prefix(config: ScoreConfig | PlanConfig, columns: Columns) -> bool:
    """Returns True if the tokens of a document begin with a prefix of their own, if they have any."""
    return columns.kind in ("ids", "messages", "pair") and config.prefix == "auto"


def prefix_read(config: ScoreConfig | PlanConfig, columns: Columns, tokenizer: Any, vocabulary: int) -> int | None:
    """Returns the id that the model reads before the tokens of a document; None if there is none."""
    own = brings_prefix(config, columns) and not config.hide_context
    return None if own else resolve_prefix(config.prefix, tokenizer, vocabulary)


def check_hidden(config: ScoreConfig | PlanConfig, columns: Columns) -> None:
    """Raises InputError if a context is to be hidden from documents that have none."""
    if config.hide_context and columns.kind in WHOLE:
        raise InputError("--hide-context is for prompts, prefixes, chats and pairs. Here every token counts.")


def hidden_parts(config: ScoreConfig, columns: Columns, prefix_id: int | None) -> JsonObject:
    """Returns the parts of the manifest on a context that is hidden.

    `prefix_id` stays what is before a document's first token, so that the set can be compared with
    one that saw the context. prefix_id: the token that the model reads before the first token that
    counts; None if there is none.
    """
    if not config.hide_context:
        return {}
    own = {"prefix_id": None} if brings_prefix(config, columns) else {}
    return {"context_hidden": True, "hidden_prefix_id": prefix_id} | own
