"""The columns of a store's Parquet files. A column of another type is an error, never converted."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy, flat_values, list_lengths

SCHEMA_VERSION = 2  # in version 1, losses are always nullable
IDS = pa.list_(pa.int32())
FLOATS = pa.list_(pa.float32())
LOSSES = pa.list_(pa.field("item", pa.float32(), nullable=False))
MASK = pa.list_(pa.bool_())
CATEGORY = pa.list_(pa.int8())
WEIGHT = "weight"
"""The column of the weights of tokens in a selection."""
SIGNALS = {
    "entropy": (pa.field("entropy", FLOATS),),
    "rank": (pa.field("rank", IDS),),
    "top-k": (pa.field("top_ids", pa.list_(IDS)), pa.field("top_log_p", pa.list_(FLOATS))),
}
"""The columns of each signal."""


COLUMN_TYPES = {
    "doc_id": pa.string(), "group": pa.string(), "input_ids": IDS, "loss": FLOATS, "excess": FLOATS, "delta": FLOATS,
    "category": CATEGORY, "kept": pa.bool_(), "doc_score": pa.float32(), WEIGHT: FLOATS,
    "top_ids": pa.list_(IDS), "top_log_p": pa.list_(FLOATS),
}  # fmt: skip
"""Types of the columns that are read back from the units of score sets and selections."""


QUARANTINE = pa.schema(
    [pa.field("doc_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)


def signal_fields(signals: Sequence[str]) -> list[pa.Field]:
    """The columns of these signals."""
    return [field for signal in signals for field in SIGNALS[signal]]


def score_schema(*, grouped: bool, signals: Sequence[str] = (), prefix: bool = False) -> pa.Schema:
    """Columns of a unit of a score set.

    prefix: True if a prefix token comes before each document, so that no loss is null. The column
    is then declared without nulls, because such columns are read faster.
    """
    group = [pa.field("group", pa.string())] if grouped else []
    return pa.schema(
        [
            pa.field("doc_id", pa.string(), nullable=False),
            *group,
            pa.field("input_ids", IDS),
            pa.field("loss", LOSSES if prefix else FLOATS),
            *signal_fields(signals),
        ]
    )


def selection_schema(
    *,
    grouped: bool,
    score: str,
    level: str,
    experts: Sequence[str] = (),
    by_bytes: bool = False,
    based: bool = False,
    weighted: bool = False,
) -> pa.Schema:
    """Columns of a unit of a selection.

    score: "excess", "loss" or "delta". level: "token" or "document". experts: the references that
    have a mask of their own. by_bytes: adds the bytes and the reference's bits per byte. based:
    adds the base model's bits per byte too. weighted: adds the weights of tokens.
    """
    group = [pa.field("group", pa.string())] if grouped else []
    document = [pa.field("doc_score", pa.float32()), pa.field("kept", pa.bool_(), nullable=False)]
    models = ["ref", "base"] if based else ["ref"]
    in_bytes = [pa.field("bytes", pa.int64()), *(pa.field(f"{m}_bits_per_byte", pa.float32()) for m in models)]
    return pa.schema(
        [
            pa.field("doc_id", pa.string(), nullable=False),
            *group,
            pa.field("input_ids", IDS),
            pa.field(score, FLOATS),
            pa.field("mask", MASK),
            *(pa.field(f"mask_{expert}", MASK) for expert in experts),
            *([pa.field(WEIGHT, LOSSES)] if weighted else []),
            *(document if level == "document" else []),
            *(in_bytes if by_bytes else []),
        ]
    )


def dynamics_schema(*, grouped: bool) -> pa.Schema:
    """Columns of a unit of a selection by token dynamics.

    `category` is an index into `ranking.trends.CATEGORIES`, or null for a token without a loss.
    """
    plain = selection_schema(grouped=grouped, score="delta", level="token")
    at = plain.get_field_index("mask")
    return plain.insert(at, pa.field("category", CATEGORY))


def check_columns(schema: pa.Schema, wanted: Sequence[str] | None = None) -> None:
    """Checks the columns of a unit's file.

    wanted: the columns that must be there; None checks the types of all columns that are.

    Raises:
        ValueError: a wanted column is missing, or a column does not have the type of this module.
    """
    if missing := set(wanted or ()) - set(schema.names):
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    for field in schema if wanted is None else map(schema.field, wanted):
        kind = MASK if field.name.startswith("mask") else COLUMN_TYPES.get(field.name)
        if kind is not None and field.type != kind and not (kind == FLOATS and field.type == LOSSES):
            raise ValueError(f"column {field.name} has type {field.type}, not {kind}")


def content_sha256(doc_ids: pa.ChunkedArray, input_ids: pa.ChunkedArray) -> str:
    """The SHA-256 of the documents and tokens in a file, as a hexadecimal string.

    Two files have the same hash exactly if they hold the same documents and tokens. Hashed in turn,
    little-endian: the byte lengths of the document ids (int64), their UTF-8 bytes, the token counts
    (int64), and the tokens (int32).
    """
    digest = hashlib.sha256()
    encoded = [doc_id.encode() for doc_id in doc_ids.to_pylist()]
    digest.update(np.array([len(e) for e in encoded], "<i8").tobytes())
    digest.update(b"".join(encoded))
    digest.update(list_lengths(input_ids).astype("<i8").tobytes())
    digest.update(as_numpy(flat_values(input_ids)).astype("<i4").tobytes())
    return digest.hexdigest()
