"""Megatron-LM's indexed dataset, with a second one for the mask."""

import struct

import numpy as np

from rho_score.exporting.documents import Documents, Frame, _between

_MEGATRON_CODES = {"uint8": 1, "int32": 4, "uint16": 8}


class MegatronWriter:
    """Two Megatron-LM indexed datasets (version 1): `.bin`/`.idx` with the tokens, `_mask.bin`/`_mask.idx` (uint8) with the
    mask, 1 = train on it. A sequence is a document; both have the same lengths and document indices.

    Documents end with EOS (mask 0) where one is known. Where prefix and EOS are one token no prefix is written: Megatron
    joins documents, and the EOS of the one before is it. mask[i] belongs to token i: Megatron's loss mask of a sample,
    whose labels are its tokens 1..T, is mask[1 : T + 1].
    """

    def __init__(self, frame: Frame, *, dtype: np.dtype) -> None:
        self._frame, self._dtype = _between(frame), dtype
        self._lengths: list[np.ndarray] = []
        self._tokens: list[bytes] = []
        self._mask: list[bytes] = []
        self.written = self.trained = 0

    def add(self, documents: Documents) -> None:
        framed = self._frame.around(documents)
        self._lengths.append(framed.lengths)
        self._tokens.append(framed.input_ids.astype(self._dtype.newbyteorder("<")).tobytes())
        self._mask.append(framed.mask.astype(np.uint8).tobytes())
        self.written += len(framed.input_ids)
        self.trained += int(framed.mask.sum())

    def files(self) -> dict[str, bytes]:
        if not self.written:
            return {}
        lengths = np.concatenate(self._lengths)
        return {
            ".bin": b"".join(self._tokens),
            ".idx": _megatron_index(lengths, self._dtype),
            "_mask.bin": b"".join(self._mask),
            "_mask.idx": _megatron_index(lengths, np.dtype(np.uint8)),
        }


def megatron_dtype(vocabulary: int) -> np.dtype:
    """Megatron's own choice of a type for ids below `vocabulary`: uint16 or int32."""
    return np.dtype(np.uint16 if vocabulary < 65500 else np.int32)


def _megatron_index(lengths: np.ndarray, dtype: np.dtype) -> bytes:
    """An `.idx`: magic, version, type, counts, lengths (int32), byte offsets (int64), where documents end (int64)."""
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, _MEGATRON_CODES[dtype.name], len(lengths), len(lengths) + 1)
    offsets = (np.cumsum(lengths) - lengths) * dtype.itemsize
    documents = np.arange(len(lengths) + 1)
    arrays = (lengths.astype("<i4"), offsets.astype("<i8"), documents.astype("<i8"))
    return b"".join([head, *(array.tobytes() for array in arrays)])
