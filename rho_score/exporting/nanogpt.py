"""Flat files of tokens and masks: nanoGPT's `.bin` with a `.mask`.

It turns arrays into bytes. As in `labels`, a mask entry belongs to the token at its own place, the
target.
"""

from collections.abc import Sequence

import numpy as np

from rho_score.stores.framing import Documents, Frame


class BinWriter:
    """`.bin` holds the tokens as little-endian `dtype`, and `.mask` a byte for each: 1 means train.

    Each document ends with EOS, which has mask 0 unless --train-eos is given. If prefix and EOS are
    the same token, the EOS before a document is its prefix, and the file begins with one. mask[i]
    belongs to token i. With x = data[i : i + T] and y = data[i + 1 : i + 1 + T], the loss of y is
    weighed with mask[i + 1 : i + 1 + T]. Further columns are files of float16, one number per
    token, NaN where a token has none; they are named after the column.
    """

    endings = (".bin", ".mask")
    """Of the files of tokens and of the mask."""

    def __init__(self, frame: Frame, *, dtype: np.dtype, columns: Sequence[str] = (), piece: bool = False) -> None:
        """piece: True if the files are a piece of a longer stream, and not its beginning."""
        begins = frame.eos_id is not None and frame.prefix_id == frame.eos_id and not piece
        self._begin, self._piece = [frame.eos_id] if begins else [], piece
        self._frame, self._dtype, self._columns = frame.in_stream(), dtype.newbyteorder("<"), columns
        self._tokens: list[bytes] = []
        self._mask: list[bytes] = []
        self._numbers: dict[str, list[bytes]] = {name: [] for name in columns}
        self.written = self.trained = 0

    def add(self, documents: Documents) -> None:
        framed = self._frame.around(documents)
        input_ids, mask = framed.input_ids, framed.mask
        begin = np.array([] if self.written or not len(input_ids) else self._begin, np.int32)
        if not self.written and len(input_ids) and not self._piece:
            input_ids = np.concatenate([begin, input_ids])
            mask = np.concatenate([np.zeros(len(begin), bool), mask])
            mask[:1] = False  # no token comes before the first one
        self._tokens.append(input_ids.astype(self._dtype).tobytes())
        self._mask.append(mask.astype(np.uint8).tobytes())
        for name in self._columns:
            numbers = np.concatenate([np.full(len(begin), np.nan), framed.values[name]])
            self._numbers[name].append(numbers.astype("<f2").tobytes())
        self.written += len(input_ids)
        self.trained += int(mask.sum())

    def files(self) -> dict[str, bytes]:
        if not self.written:
            return {}
        tokens, mask = self.endings
        more = {f".{name}": b"".join(numbers) for name, numbers in self._numbers.items()}
        return {tokens: b"".join(self._tokens), mask: b"".join(self._mask), **more}


class OlmoWriter(BinWriter):
    """OLMo-core's files: `.token_ids.npy` and `.label_mask.npy`, the same bytes as `BinWriter` writes.

    Despite their names they have no header, as OLMo-core maps them; the mask is one bool per token,
    at the place of the token itself. OLMo-core shifts it together with the labels.
    """

    endings = (".token_ids.npy", ".label_mask.npy")


def bin_dtype(vocabulary: int) -> np.dtype:
    """The narrowest type for a `.bin` with ids below `vocabulary`: uint16 or uint32."""
    return np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
