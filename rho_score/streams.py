"""Documents and masks as flat files: nanoGPT's `.bin` with a `.mask`, Megatron-LM's indexed dataset with a second one.

Arrays in, bytes out. As in `formats`, a mask entry belongs to the token at its own place, the target.
"""

import struct

import numpy as np

from rho_score.formats import Documents, Frame

_MEGATRON_CODES = {"uint8": 1, "int32": 4, "uint16": 8}


class BinWriter:
    """`.bin`: the tokens as little-endian `dtype`, nothing else; `.mask`: a byte for each, 1 = train on it.

    Each document ends with EOS (mask 0). Where prefix and EOS are one token, the EOS before a document is its prefix, and
    the file begins with one. mask[i] belongs to token i: with x = data[i : i + T] and y = data[i + 1 : i + 1 + T] the loss of
    y is weighed with mask[i + 1 : i + 1 + T].
    """

    def __init__(self, frame: Frame, *, dtype: np.dtype) -> None:
        self._begin = [frame.eos_id] if frame.eos_id is not None and frame.prefix_id == frame.eos_id else []
        self._frame, self._dtype = _between(frame), dtype.newbyteorder("<")
        self._tokens: list[bytes] = []
        self._mask: list[bytes] = []
        self.written = self.trained = 0

    def add(self, documents: Documents) -> None:
        framed = self._frame.around(documents)
        input_ids, mask = framed.input_ids, framed.mask
        if not self.written and len(input_ids):
            input_ids = np.concatenate([np.array(self._begin, np.int32), input_ids])
            mask = np.concatenate([np.zeros(len(self._begin), bool), mask])
            mask[:1] = False  # nothing stands before it
        self._tokens.append(input_ids.astype(self._dtype).tobytes())
        self._mask.append(mask.astype(np.uint8).tobytes())
        self.written += len(input_ids)
        self.trained += int(mask.sum())

    def files(self) -> dict[str, bytes]:
        return {".bin": b"".join(self._tokens), ".mask": b"".join(self._mask)} if self.written else {}


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


def bin_dtype(vocabulary: int) -> np.dtype:
    """The narrowest type of a `.bin` that holds ids below `vocabulary`: uint16 or uint32."""
    return np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)


def megatron_dtype(vocabulary: int) -> np.dtype:
    """Megatron's own choice of a type for ids below `vocabulary`: uint16 or int32."""
    return np.dtype(np.uint16 if vocabulary < 65500 else np.int32)


def _between(frame: Frame) -> Frame:
    """The frame in a stream, where the EOS of the document before may be the prefix."""
    if frame.prefix_id is None or frame.prefix_id != frame.eos_id:
        return frame
    return Frame(eos_id=frame.eos_id, train_eos=frame.train_eos)


def _megatron_index(lengths: np.ndarray, dtype: np.dtype) -> bytes:
    """An `.idx`: magic, version, type, counts, lengths (int32), byte offsets (int64), where documents end (int64)."""
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, _MEGATRON_CODES[dtype.name], len(lengths), len(lengths) + 1)
    offsets = (np.cumsum(lengths) - lengths) * dtype.itemsize
    documents = np.arange(len(lengths) + 1)
    arrays = (lengths.astype("<i4"), offsets.astype("<i8"), documents.astype("<i8"))
    return b"".join([head, *(array.tobytes() for array in arrays)])
