"""The two loops that a selection spends most of its time in. Pure functions.

They are compiled if the package was built with a C compiler. Otherwise, as where the code is sent
to a cluster as source, numpy does the same in about three times as long.
"""

from typing import Any

import numpy as np

try:
    import rho_score.ranking._kernel as _kernel

    compiled: Any = _kernel
except ImportError:
    compiled = None


def to_float16(values: np.ndarray, minus: np.ndarray | None = None) -> np.ndarray:
    """`values`, or `values - minus`, rounded to the nearest float16[n], ties to even.

    values, minus: float32[n].
    """
    if compiled is None:
        with np.errstate(over="ignore", invalid="ignore"):
            rounded: np.ndarray = (values if minus is None else values - minus).astype(np.float16)
            return rounded
    out = np.empty(len(values), np.uint16)
    compiled.to_float16(np.ascontiguousarray(values), None if minus is None else np.ascontiguousarray(minus), out)
    return out.view(np.float16)


def add_counts(
    counters: np.ndarray, bins: np.ndarray, lengths: np.ndarray, rows: np.ndarray, held: np.ndarray | None = None
) -> None:
    """Adds one to the counter of each item's bin or, if `held` is given, what the item holds.

    counters: int64 or uint32[n_rows, 65536]. bins: bin of each item, uint16[n]. Items come in
    consecutive runs. lengths: items of each run, int64[n_runs]. rows: row of `counters` of each
    run, int64[n_runs]. held: int64[n].
    """
    if compiled is None:
        np.add.at(
            counters.reshape(-1),
            (np.repeat(rows, lengths) << 16) + bins,
            counters.dtype.type(1) if held is None else held,
        )
    else:
        by_row = np.argsort(rows, kind="stable")  # keeps a row's counters in the cache
        starts = np.cumsum(lengths) - lengths
        compiled.add_counts(counters, np.ascontiguousarray(bins), starts[by_row], lengths[by_row], rows[by_row], held)
