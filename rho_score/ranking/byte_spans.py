"""Losses over UTF-8 bytes: compared texts, and losses spread from one tokenizer's tokens to another's. Pure functions."""

import numpy as np


def document_bytes(byte_lengths: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Bytes of each document, int64[n_docs], from those of its tokens (int64[n_tokens]) and its number of tokens."""
    before = np.concatenate([[0], np.cumsum(byte_lengths, dtype=np.int64)])
    ends = np.cumsum(lengths)
    sums: np.ndarray = before[ends] - before[ends - lengths]
    return sums


def leading_spaces(text: np.ndarray, n_bytes: np.ndarray) -> np.ndarray:
    """Documents that begin with a space, bool[n_docs]; text: uint8, n_bytes: bytes of each document, int64[n_docs]."""
    found = n_bytes > 0
    found[found] = text[(np.cumsum(n_bytes) - n_bytes)[found]] == ord(" ")
    return found


def differing_documents(
    left: np.ndarray, left_bytes: np.ndarray, right: np.ndarray, right_bytes: np.ndarray
) -> np.ndarray:
    """Documents whose texts differ, bool[n_docs]; arguments as of `first_text_difference`."""
    differ: np.ndarray = left_bytes != right_bytes
    sizes = left_bytes[~differ]
    unequal = left[np.repeat(~differ, left_bytes)] != right[np.repeat(~differ, right_bytes)]
    differ[~differ] = document_bytes(unequal, sizes) > 0
    return differ


def first_text_difference(
    left: np.ndarray, left_bytes: np.ndarray, right: np.ndarray, right_bytes: np.ndarray, *, context: int = 24
) -> tuple[int, int, str, str] | None:
    """Where two texts of the same documents first differ; None where they are equal.

    left, right: all documents one after the other, uint8. left_bytes, right_bytes: bytes of each, int64[n_docs].
    Returns the document, the byte in it, and what each text has `context` bytes around it, decoded with replacements.
    """
    if np.array_equal(left_bytes, right_bytes) and np.array_equal(left, right):
        return None
    other_size = np.flatnonzero(left_bytes != right_bytes)
    last = int(other_size[0]) if len(other_size) else len(left_bytes) - 1  # up to here both begin at the same byte
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
    """Losses of tokens, spread evenly over their bytes and summed over the tokens of another tokenizer.

    result[t] = Σ_s loss[s] · |bytes of s in t| / from_bytes[s], float64[n_to], in the unit of `loss`. The total of each
    document is kept. A source token without bytes gives its loss to the next one of its document that has some, else to
    the one before; a target token without bytes gets 0.0; in a document without bytes there is nobody to take a loss.
    NaN is an unknown loss: each target that shares a byte with it is NaN, and no other.

    loss: float[n_from]. from_bytes, to_bytes: bytes of each token, int64[n_from], int64[n_to]. from_lengths, to_lengths:
    tokens of each document, int64[n_docs]. Raises ValueError if a document has other bytes on the one side.
    """
    if not np.array_equal(document_bytes(from_bytes, from_lengths), document_bytes(to_bytes, to_lengths)):
        raise ValueError("the documents have other numbers of bytes on the one side than on the other")
    loss = _given_on(loss.astype(np.float64), from_bytes, from_lengths)
    from_ends, to_ends = np.cumsum(from_bytes), np.cumsum(to_bytes)
    # ends of the stretches that lie in one token on both sides; a stable sort merges two sorted runs in linear time
    ends = np.sort(np.concatenate([from_ends, to_ends]), kind="stable")
    ends = ends[np.diff(ends, prepend=0) > 0]
    source, target = np.searchsorted(from_ends, ends), np.searchsorted(to_ends, ends)
    share = np.diff(ends, prepend=0) / from_bytes[source]
    spans: np.ndarray = np.bincount(target, loss[source] * share, len(to_bytes))
    return spans.astype(np.float64, copy=False)  # numpy counts nothing at all in integers


def _given_on(loss: np.ndarray, n_bytes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`loss`, changed in place: tokens that carry bytes have that of their neighbours without bytes on top."""
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
