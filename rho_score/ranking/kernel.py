"""The two loops that a selection spends its time in: compiled where the package was built with a C compiler, else numpy's.

Pure functions. numpy's take about three times as long: that is what runs where the code is sent to a cluster as source.
"""

from typing import Any

import numpy as np

try:
    import rho_score.ranking._kernel as _kernel

    compiled: Any = _kernel
except ImportError:
    compiled = None


def to_float16(values: np.ndarray, minus: np.ndarray | None = None) -> np.ndarray:
    """float32[n], or its difference to `minus` (float32[n]), rounded to the nearest float16[n], ties to even."""
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
    """Add one for each of `bins` (uint16[n]), or what it holds (int64[n]), to a row of `counters`, int64 or uint32[n_rows, 65536].

    The items come in runs: lengths, int64[n_runs], and the row of each run, int64[n_runs].
    """
    if compiled is None:
        np.add.at(
            counters.reshape(-1),
            (np.repeat(rows, lengths) << 16) + bins,
            counters.dtype.type(1) if held is None else held,
        )
    else:
        by_row = np.argsort(rows, kind="stable")  # so that a row's counters are in the processor's cache
        starts = np.cumsum(lengths) - lengths
        compiled.add_counts(counters, np.ascontiguousarray(bins), starts[by_row], lengths[by_row], rows[by_row], held)
