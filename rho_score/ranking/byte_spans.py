"""Losses over UTF-8 bytes: texts are compared, and losses spread over another tokenizer's tokens.

Pure functions.
"""

import numpy as np


def document_bytes(byte_lengths: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Bytes of each document, int64[n_docs].

    byte_lengths: bytes of each token, int64[n_tokens]. lengths: tokens of each document,
    int64[n_docs].
    """
    before = np.concatenate([[0], np.cumsum(byte_lengths, dtype=np.int64)])
    ends = np.cumsum(lengths)
    sums: np.ndarray = before[ends] - before[ends - lengths]
    return sums


def leading_spaces(text: np.ndarray, n_bytes: np.ndarray) -> np.ndarray:
    """True for each document that begins with a space, bool[n_docs].

    text: the bytes of all documents, uint8. n_bytes: bytes of each document, int64[n_docs].
    """
    found = n_bytes > 0
    found[found] = text[(np.cumsum(n_bytes) - n_bytes)[found]] == ord(" ")
    return found


def differing_documents(
    left: np.ndarray, left_bytes: np.ndarray, right: np.ndarray, right_bytes: np.ndarray
) -> np.ndarray:
    """True for each document whose two texts differ, bool[n_docs].

    The arguments are those of `first_text_difference`.
    """
    differ: np.ndarray = left_bytes != right_bytes
    sizes = left_bytes[~differ]
    unequal = left[np.repeat(~differ, left_bytes)] != right[np.repeat(~differ, right_bytes)]
    differ[~differ] = document_bytes(unequal, sizes) > 0
    return differ


def first_text_difference(
    left: np.ndarray, left_bytes: np.ndarray, right: np.ndarray, right_bytes: np.ndarray, *, context: int = 24
) -> tuple[int, int, str, str] | None:
    """Where two texts of the same documents first differ; None if they are equal.

    left, right: the bytes of all documents, uint8. left_bytes, right_bytes: bytes of each document,
    int64[n_docs].

    Returns the index of the document, the offset of the byte in it, and the left and the right text
    up to `context` bytes around that byte, decoded with replacement characters.
    """
    if np.array_equal(left_bytes, right_bytes) and np.array_equal(left, right):
        return None
    other_size = np.flatnonzero(left_bytes != right_bytes)
    # each document up to `last` begins at the same byte in both texts
    last = int(other_size[0]) if len(other_size) else len(left_bytes) - 1
    ends = np.cumsum(left_bytes)
    start = int(ends[last] - left_bytes[last])
    common = start + int(min(left_bytes[last], right_bytes[last]))
    unequal = np.flatnonzero(left[:common] != right[:common])
    at = int(unequal[0]) if len(unequal) else common
    document = min(int(np.searchsorted(ends, at, side="right")), last)
    start = int(ends[document] - left_bytes[document])

    def around(text: np.ndarray, size: int) -> str:
        return text[max(start, at - context) : min(start + size, at + context)].tobytes().decode(errors="replace")

    return document, at - start, around(left, left_bytes[document]), around(right, right_bytes[document])


def spread(
    loss: np.ndarray, from_bytes: np.ndarray, from_lengths: np.ndarray, to_bytes: np.ndarray, to_lengths: np.ndarray
) -> np.ndarray:
    """Losses of tokens, spread evenly over their bytes and summed over another tokenizer's tokens.

    result[t] = Σ_s loss[s] · |bytes of s in t| / from_bytes[s], float64[n_to], in the unit of
    `loss`. Each document keeps its total. A source token without bytes gives its loss to the next
    token of its document that has bytes, or else to the one before. A target token without bytes
    gets 0.0. In a document without bytes the losses are dropped. NaN is an unknown loss: exactly
    the targets that share a byte with it are NaN.

    loss: float[n_from]. from_bytes, to_bytes: bytes of each token, int64[n_from], int64[n_to].
    from_lengths, to_lengths: tokens of each document, int64[n_docs].

    Raises:
        ValueError: a document has different numbers of bytes under the two tokenizers.
    """
    if not np.array_equal(document_bytes(from_bytes, from_lengths), document_bytes(to_bytes, to_lengths)):
        raise ValueError("the documents have different numbers of bytes under the two tokenizers")
    loss = _given_on(loss.astype(np.float64), from_bytes, from_lengths)
    from_ends, to_ends = np.cumsum(from_bytes), np.cumsum(to_bytes)
    # ends of the stretches that lie in one source token and in one target token;
    # a stable sort merges two sorted runs in linear time
    ends = np.sort(np.concatenate([from_ends, to_ends]), kind="stable")
    ends = ends[np.diff(ends, prepend=0) > 0]
    source, target = np.searchsorted(from_ends, ends), np.searchsorted(to_ends, ends)
    share = np.diff(ends, prepend=0) / from_bytes[source]
    spans: np.ndarray = np.bincount(target, loss[source] * share, len(to_bytes))
    return spans.astype(np.float64, copy=False)  # without tokens, numpy's counts are integers


def _given_on(loss: np.ndarray, n_bytes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`loss`, changed in place: tokens without bytes add their loss to a neighbour with bytes."""
    empty, full = np.flatnonzero(n_bytes == 0), np.flatnonzero(n_bytes)
    if not len(empty) or not len(full):
        return loss
    ends = np.cumsum(lengths)
    owner = np.searchsorted(ends, empty, side="right")
    after = np.searchsorted(full, empty)
    heir = full[np.minimum(after, len(full) - 1)]
    heir = np.where(np.searchsorted(ends, heir, side="right") == owner, heir, full[np.maximum(after - 1, 0)])
    has_one = np.searchsorted(ends, heir, side="right") == owner
    np.add.at(loss, heir[has_one], loss[empty[has_one]])
    return loss
