"""What a model reads of a document whose context is hidden, and where the values of its tokens belong."""

from collections.abc import Sequence

import numpy as np


def without_context(ids: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The tokens of each document that count, int32[n] each. counts: bool[n_tokens] each."""
    return [of[which] for of, which in zip(ids, counts, strict=True)]


def in_place(values: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The values of these tokens at their places in the documents, float32[n_tokens] each; NaN elsewhere.

    values: of the tokens of `without_context`, in the same order.
    """
    placed = [np.full(len(which), np.nan, np.float32) for which in counts]
    for whole, which, of in zip(placed, counts, values, strict=True):
        whole[which] = of
    return placed
