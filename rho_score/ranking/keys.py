"""Order-preserving integer keys of scores. Pure functions."""

from typing import Literal

import numpy as np

from rho_score.ranking.kernel import to_float16

Bits = Literal[16, 32]
N_COUNTERS = 1 << 16


def round_score(scores: np.ndarray, bits: Bits = 16) -> np.ndarray:
    """The scores rounded to the precision that they are ranked with: float16[n] or float32[n]."""
    if bits == 16 and scores.dtype == np.float32:
        return to_float16(scores)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded: np.ndarray = scores.astype(np.float16 if bits == 16 else np.float32, copy=False)
        return rounded


def keys_of(scores: np.ndarray, bits: Bits = 16) -> np.ndarray:
    """The key of each rounded score, uint32[n]: a < b exactly if key(a) < key(b).

    -0.0 has the key of 0.0. NaN has no place in the order.
    """
    raw: np.ndarray = round_score(scores, bits).view(np.uint16 if bits == 16 else np.uint32)
    sign = raw.dtype.type(1 << (bits - 1))
    raw = np.where(raw == sign, raw.dtype.type(0), raw)  # -0.0
    keys: np.ndarray = np.where(np.bitwise_and(raw, sign), np.invert(raw), np.bitwise_or(raw, sign))
    return keys.astype(np.uint32)


def values_of(keys: np.ndarray, bits: Bits = 16) -> np.ndarray:
    """The score of each key, float32[n]: the inverse of `keys_of`."""
    keys = keys.astype(np.uint16 if bits == 16 else np.uint32)
    sign = keys.dtype.type(1 << (bits - 1))
    raw = np.where(keys & sign, keys ^ sign, ~keys)
    with np.errstate(invalid="ignore"):
        values: np.ndarray = raw.view(np.float16 if bits == 16 else np.float32).astype(np.float32)
    return values
