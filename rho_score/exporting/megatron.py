"""Megatron-LM's indexed dataset, with a second one for the mask."""

import struct

import numpy as np

from rho_score.stores.framing import Documents, Frame

_MEGATRON_CODES = {"uint8": 1, "int32": 4, "uint16": 8}


class MegatronWriter:
    """Two Megatron-LM indexed datasets (version 1) with the same lengths and document indices.

    `.bin` and `.idx` hold the tokens. `_mask.bin` and `_mask.idx` (uint8) hold the mask, where 1
    means train on it. Each sequence is a document.

    Documents end with EOS if one is known. EOS has mask 0, unless --train-eos is given. If prefix
    and EOS are the same token, no prefix is written: Megatron joins documents, so the EOS of the
    document before is the prefix. mask[i] belongs to token i. The labels of a sample are its tokens
    1..T, so its loss mask is mask[1 : T + 1].
    """

    def __init__(self, frame: Frame, *, dtype: np.dtype) -> None:
        self._frame, self._dtype = frame.in_stream(), dtype
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
            ".idx": megatron_index(lengths, self._dtype),
            "_mask.bin": b"".join(self._mask),
            "_mask.idx": megatron_index(lengths, np.dtype(np.uint8)),
        }


def megatron_dtype(vocabulary: int) -> np.dtype:
    """The type that Megatron itself chooses for ids below `vocabulary`: uint16 or int32."""
    return np.dtype(np.uint16 if vocabulary < 65500 else np.int32)


def megatron_index(lengths: np.ndarray, dtype: np.dtype) -> bytes:
    """The content of an `.idx` file.

    It holds a magic number, version, type, counts, lengths (int32), byte offsets (int64) and ends
    of documents (int64).
    """
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, _MEGATRON_CODES[dtype.name], len(lengths), len(lengths) + 1)
    offsets = (np.cumsum(lengths) - lengths) * dtype.itemsize
    documents = np.arange(len(lengths) + 1)
    arrays = (lengths.astype("<i4"), offsets.astype("<i8"), documents.astype("<i8"))
    return b"".join([head, *(array.tobytes() for array in arrays)])


def index_lengths(content: bytes) -> np.ndarray:
    """The lengths of the sequences in the content of an `.idx` file, int64[n]."""
    (n,) = struct.unpack_from("<Q", content, 18)
    return np.frombuffer(content, "<i4", n, 34).astype(np.int64)
