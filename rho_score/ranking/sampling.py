"""Random numbers that depend only on a seed, a document's id and the place in it. Pure functions.

To draw k items without replacement with weights exp(s / T) is to take the k largest of s / T + g,
where the g are independent standard Gumbel variables (Kool et al. 2019, arXiv 1903.06059). Sampling
is thus a selection by rank, exact and global.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def uniforms(seed: str, doc_ids: Sequence[str], lengths: np.ndarray) -> np.ndarray:
    """Independent uniform variables in (0, 1) for the items of documents, float64[sum of lengths].

    The same seed, id and place in the document give the same number. Documents with the same id get
    the same numbers. lengths: items of each document, int64[n_docs].
    """
    key = hashlib.blake2b(seed.encode(), digest_size=32).digest()
    hashes = b"".join(hashlib.blake2b(doc_id.encode(), digest_size=8, key=key).digest() for doc_id in doc_ids)
    return _splitmix(np.frombuffer(hashes, "<u8").astype(np.uint64), lengths)


def _splitmix(hashes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Numbers of SplitMix64 generators (Steele et al. 2014), each seeded with a document's hash."""
    starts = np.cumsum(lengths) - lengths
    place = np.arange(1, int(lengths.sum()) + 1, dtype=np.uint64) - np.repeat(starts.astype(np.uint64), lengths)
    z = np.repeat(hashes, lengths) + place * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform: np.ndarray = (((z ^ (z >> np.uint64(31))) >> np.uint64(11)) + 0.5) * 2.0**-53
    return uniform


def gumbel(uniform: np.ndarray) -> np.ndarray:
    """Standard Gumbel variables from uniform ones, float64[n]: -log(-log(u))."""
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise
