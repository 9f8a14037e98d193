"""What a model reads of a document whose context is hidden, and where the values of its tokens belong."""

from collections.abc import Sequence

import numpy as np


def without_context(ids: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The tokens of each document that count, int32[n] each. counts: bool[n_tokens] each."""
    return [of[which] for of, which in zip(ids, counts, strict=True)]


def in_place(values: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The values of these tokens at their places in the documents, float32[n_tokens, …] each; NaN elsewhere.

    values: of the tokens of `without_context`, in the same order, float32[n_counting, …] each.
    """
    placed = []
    for which, of in zip(counts, values, strict=True):
        whole = np.full((len(which), *of.shape[1:]), np.nan, np.float32)
        whole[which] = of
        placed.append(whole)
    return placed
