"""Arrow columns as numpy arrays and back, without a copy where there is a way."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


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
