"""Converts Arrow columns to numpy arrays and back, without a copy where possible."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def list_lengths(column: pa.ChunkedArray | pa.ListArray) -> np.ndarray:
    """The lengths of the lists in a column, int64[n]. A null list has length 0."""
    lengths = pc.list_value_length(column)
    return as_numpy(lengths.fill_null(0) if lengths.null_count else lengths).astype(np.int64)


def flat_values(column: pa.ChunkedArray | pa.ListArray) -> pa.Array:
    """The values of all lists in a column, in order, as one array."""
    return _one_array(column).flatten()


def as_numpy(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The numbers or booleans of a column, [n]. One chunk of numbers without nulls is not copied.

    In a column of numbers with nulls, a null is NaN and integers become floats. Columns with nulls
    and booleans need pyarrow's own conversion, which first imports pandas. That takes a quarter of
    a second.
    """
    column = _one_array(column)
    if column.null_count or pa.types.is_boolean(column.type):
        found: np.ndarray = column.to_numpy(zero_copy_only=False)
        return found
    return np.from_dlpack(column)


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    # `combine_chunks` would copy a single chunk
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def as_arrow(values: np.ndarray) -> pa.Array:
    """A column of these numbers, without nulls and, as in `as_numpy`, without pandas.

    Contiguous numbers are not copied, so the caller must not change them afterwards.
    """
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def list_column(values: pa.Array | np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """A list column, from the values of all lists in order and the lengths of the lists, int[n]."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
