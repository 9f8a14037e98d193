"""The columns of every file, and how they are laid out in Parquet. A mismatch raises; nothing is widened in silence."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SCHEMA_VERSION = 2  # 1: losses were always nullable
METADATA_KEY = b"rho_score"

IDS = pa.list_(pa.int32())
FLOATS = pa.list_(pa.float32())
LOSSES = pa.list_(pa.field("item", pa.float32(), nullable=False))
MASK = pa.list_(pa.bool_())
CATEGORY = pa.list_(pa.int8())

# What flows from reading to scoring, a block a unit. `error` set: the document is quarantined, `text` is null.
# A unit without any document is one row of nulls, so that it is published like the others.
DOCUMENTS = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("group", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("error", pa.string()),
    ]
)
TOKENIZED = pa.schema([*(f for f in DOCUMENTS if f.name != "text"), pa.field("input_ids", IDS)])
SIGNALS = {"entropy": pa.field("entropy", FLOATS), "rank": pa.field("rank", IDS)}
SCORED = pa.schema([*TOKENIZED, pa.field("loss", FLOATS)])  # and a field of SIGNALS for each that was asked for
COLUMN_TYPES = {
    "doc_id": pa.string(), "group": pa.string(), "input_ids": IDS, "loss": FLOATS, "excess": FLOATS, "delta": FLOATS,
    "category": CATEGORY, "kept": pa.bool_(), "doc_score": pa.float32(),
}  # fmt: skip
"""Columns of the units' files of both stores, as far as they are read again."""
QUARANTINE = pa.schema(
    [pa.field("doc_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)


def score_schema(*, grouped: bool, signals: Sequence[str] = (), prefix: bool = False) -> pa.Schema:
    """Columns of OUT/data/<unit>.parquet.

    prefix: one stands before each document's first token, so that no loss is null; declared so, they are read faster.
    """
    group = [pa.field("group", pa.string())] if grouped else []
    return pa.schema(
        [
            pa.field("doc_id", pa.string(), nullable=False),
            *group,
            pa.field("input_ids", IDS),
            pa.field("loss", LOSSES if prefix else FLOATS),
            *(SIGNALS[signal] for signal in signals),
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
) -> pa.Schema:
    """Columns of SEL/data/<unit>.parquet; `score` is "excess", "loss" or "delta", `level` "token" or "document".

    experts: whose masks are kept apart. by_bytes: with bytes and bits per byte; based: of the base model too.
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
            *(document if level == "document" else []),
            *(in_bytes if by_bytes else []),
        ]
    )


def dynamics_schema(*, grouped: bool) -> pa.Schema:
    """Columns of a selection by token dynamics: `category` is a code of `dynamics.CATEGORIES`, null without a loss."""
    plain = selection_schema(grouped=grouped, score="delta", level="token")
    at = plain.get_field_index("mask")
    return plain.insert(at, pa.field("category", CATEGORY))


class ParquetBuffer:
    """A Parquet file in memory with exactly the columns of `schema`, a row group for each table that is added.

    Scores, token ids and groups repeat, so they take a dictionary before zstd: scores rounded to float16 have at most
    65,536 values, and every reader has that encoding. Columns in `split` (lists of float) have their bytes split by their
    place instead, which is written faster and read slower.
    """

    def __init__(self, schema: pa.Schema, split: Sequence[str] = ()) -> None:
        lists = {f.name: f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema}
        plain = {"doc_id", "kept", *split, *(f.name for f in schema if f.type == MASK)}
        self._schema, self._sink = schema, pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[path for name, path in lists.items() if name not in plain],
            use_byte_stream_split=[lists[name] for name in split],
            dictionary_pagesize_limit=4 << 20,
            write_page_checksum=True,
        )

    def add(self, table: pa.Table) -> None:
        """Write a row group; raises TypeError where the columns differ from the schema in name, order or type."""
        if not table.schema.equals(self._schema):
            raise TypeError(f"columns differ from the contract\nhave: {table.schema}\nwant: {self._schema}")
        self._writer.write_table(table)

    def finish(self, metadata: Mapping[str, Any] | None = None) -> bytes:
        """The whole file, with `metadata` as JSON in the footer under `rho_score`."""
        if metadata is not None:
            self._writer.add_key_value_metadata({METADATA_KEY: orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)})
        self._writer.close()
        content: bytes = self._sink.getvalue().to_pybytes()
        return content


def parquet_bytes(table: pa.Table, schema: pa.Schema, metadata: Mapping[str, Any] | None = None) -> bytes:
    """`table` as a Parquet file, see `ParquetBuffer`."""
    buffer = ParquetBuffer(schema)
    buffer.add(table)
    return buffer.finish(metadata)


def footer(file: pq.ParquetFile) -> dict[str, Any]:
    """Our metadata in a file's footer; empty where there is none."""
    content = (file.metadata.metadata or {}).get(METADATA_KEY)
    return dict(orjson.loads(content)) if content else {}


def check_columns(schema: pa.Schema, wanted: Sequence[str] | None = None) -> None:
    """Raises ValueError where a column that is wanted of a unit's file (None: any) is missing or has another type than the contract's."""
    if missing := set(wanted or ()) - set(schema.names):
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    for field in schema if wanted is None else map(schema.field, wanted):
        kind = MASK if field.name.startswith("mask") else COLUMN_TYPES.get(field.name)
        if kind is not None and field.type != kind and not (kind == FLOATS and field.type == LOSSES):
            raise ValueError(f"column {field.name} has type {field.type}, not {kind}")


def list_lengths(column: pa.ChunkedArray | pa.ListArray) -> np.ndarray:
    """Lengths of a list column, int64[n]; null lists count as empty."""
    lengths = pc.list_value_length(column)
    return as_numpy(lengths.fill_null(0) if lengths.null_count else lengths).astype(np.int64)


def flat_values(column: pa.ChunkedArray | pa.ListArray) -> pa.Array:
    """All values of a list column in order, as one array."""
    return _one_array(column).flatten()


def as_numpy(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A column's numbers (without nulls also booleans), not copied where they are one chunk without nulls.

    Where there are nulls they are NaN, and integers floats; this goes by pyarrow's own conversion, which imports pandas
    first: a quarter of a second of a command's time.
    """
    column = _one_array(column)
    if column.null_count or pa.types.is_boolean(column.type):
        found: np.ndarray = column.to_numpy(zero_copy_only=False)
        return found
    return np.from_dlpack(column)


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # one chunk is not copied


def as_arrow(values: np.ndarray) -> pa.Array:
    """Numbers as a column without nulls, not copied (they must not change any more) and without pandas, see `as_numpy`."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def list_column(values: pa.Array | np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """A list column from its values in order and the lengths of its lists (int[n])."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def content_sha256(doc_ids: pa.ChunkedArray, input_ids: pa.ChunkedArray) -> str:
    """SHA-256 over doc_id and input_ids: equal for two files exactly if they hold the same documents and tokens.

    Hashed in turn, little-endian: byte lengths of the ids (int64), their UTF-8 bytes, token counts (int64), tokens (int32).
    """
    digest = hashlib.sha256()
    encoded = [doc_id.encode() for doc_id in doc_ids.to_pylist()]
    digest.update(np.array([len(e) for e in encoded], "<i8").tobytes())
    digest.update(b"".join(encoded))
    digest.update(list_lengths(input_ids).astype("<i8").tobytes())
    digest.update(as_numpy(flat_values(input_ids)).astype("<i4").tobytes())
    return digest.hexdigest()
