"""Reads the `.idx` file of a Megatron-LM indexed dataset (version 1), in bounded memory.

It holds a head of 34 bytes, then for each sequence its length in tokens (int32), then its place in
the `.bin` in bytes (int64), then for each document its first sequence, and at last the number of
sequences (int64).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rho_score.corpus.record_batches import MOST_ROWS
from rho_score.errors import InputError

_MAGIC = b"MMIDIDX\x00\x00"
_HEAD = struct.Struct("<9sQBQQ")
_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_AT_ONCE = 1 << 16  # documents


@dataclass(frozen=True, kw_only=True)
class MegatronIndex:
    """What the head of an `.idx` file says."""

    name: str
    dtype: np.dtype
    """The type of the ids in the `.bin`."""
    n_sequences: int
    n_documents: int

    @classmethod
    def read(cls, file: Any, size: int, name: str) -> "MegatronIndex":
        """The head of an open file of `size` bytes.

        Raises:
            InputError: it is no index, or is cut off, or its ids are no integers.
        """
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise InputError(f"{name} beside it is no index of Megatron-LM. Replace it or take both out of the corpus.")
        _, version, code, n_sequences, n_bounds = _HEAD.unpack(head)
        if version != 1 or code not in _TYPES:
            raise InputError(
                f"{name} has version {version} and the type {code} for ids, not version 1 and a type of integers. Write the "
                "dataset again."
            )
        expected = _HEAD.size + 12 * n_sequences + 8 * n_bounds
        if size != expected or not n_bounds:
            raise InputError(
                f"{name} has {size:,} bytes, but its head says {n_sequences:,} sequences and {n_bounds:,} bounds of documents, "
                f"which are {expected:,} bytes; was its upload cut off? Replace it or take both out of the corpus."
            )
        return cls(name=name, dtype=np.dtype(_TYPES[code]), n_sequences=n_sequences, n_documents=n_bounds - 1)

    def ranges(self, file: Any, size: int, per_unit: int) -> Iterator[tuple[int, int, int]]:
        """Cuts the documents into units: yields (first document, document after the last, tokens).

        A unit has the documents that begin in the same `per_unit` tokens of the `.bin`.

        size: the bytes of the `.bin`.

        Raises:
            InputError: the index contradicts itself or the size.
        """
        starts, tokens, begin, of_last = [0], [0], 0, 0
        for start in range(0, self.n_documents, _AT_ONCE):
            first, lengths = self.documents(file, start, min(start + _AT_ONCE, self.n_documents))
            if lengths.any() and first != begin:
                raise self._damaged(f"document {start} begins at token {first:,}, but the one before ends at {begin:,}")
            places = begin + np.cumsum(lengths) - lengths
            unit_of = places // per_unit + np.arange(start, start + len(lengths)) // MOST_ROWS
            for i in np.flatnonzero(np.diff(unit_of, prepend=of_last)).tolist():
                if start + i > starts[-1]:
                    starts.append(start + i)
                    tokens.append(int(places[i]))
            begin, of_last = begin + int(lengths.sum()), int(unit_of[-1])
        if begin * self.dtype.itemsize != size:
            raise InputError(
                f"{self.name} beside it counts {begin:,} ids of {self.dtype.itemsize} bytes, but the file has {size:,} bytes; was "
                "its upload cut off? Replace it or take both out of the corpus."
            )
        if not self.n_documents:
            return iter(())
        stops, ends = [*starts[1:], self.n_documents], [*tokens[1:], begin]
        counts = (end - token for token, end in zip(tokens, ends, strict=True))
        return zip(starts, stops, counts, strict=True)

    def documents(self, file: Any, start: int, stop: int) -> tuple[int, np.ndarray]:
        """The place of the first token of the documents [start, stop), and their lengths, int64[n].

        Raises:
            InputError: the index contradicts itself.
        """
        bounds = self._array(file, _HEAD.size + 12 * self.n_sequences + 8 * start, stop - start + 1, "<i8")
        ends = (bounds[0] != 0 if start == 0 else False) or (
            bounds[-1] != self.n_sequences if stop == self.n_documents else False
        )
        if ends or bounds[0] < 0 or bounds[-1] > self.n_sequences or (np.diff(bounds) < 0).any():
            raise self._damaged(f"the bounds of the documents {start} to {stop} are not those of its sequences")
        n = int(bounds[-1] - bounds[0])
        lengths = self._array(file, _HEAD.size + 4 * int(bounds[0]), n, "<i4").astype(np.int64)
        places = self._array(file, _HEAD.size + 4 * self.n_sequences + 8 * int(bounds[0]), n, "<i8")
        ends_at = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        first = int(places[0]) if n else 0
        if (lengths < 0).any() or first % self.dtype.itemsize:
            raise self._damaged(f"the lengths and places of the documents {start} to {stop} are no places of ids")
        if (places != first + ends_at[:-1] * self.dtype.itemsize).any():
            raise self._damaged(f"the sequences of the documents {start} to {stop} do not follow one another")
        return first // self.dtype.itemsize, np.diff(ends_at[bounds - bounds[0]])

    def _array(self, file: Any, at: int, n: int, dtype: str) -> np.ndarray:
        file.seek(at)
        found = np.frombuffer(file.read(n * np.dtype(dtype).itemsize), dtype)
        if len(found) != n:
            raise self._damaged("it ends too early")
        return found

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.name} beside it is damaged: {what}. Replace it or take both out of the corpus.")
