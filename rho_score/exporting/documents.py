"""Documents as flat arrays, what stands around each, and what a writer of a format does with them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents as flat arrays. doc_ids: string[n_docs]. lengths: int64[n_docs]. input_ids: int32[n_tokens].
    mask: bool[n_tokens], True = train on it."""

    doc_ids: pa.Array
    lengths: np.ndarray
    input_ids: np.ndarray
    mask: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Place of each document's first token, int64[n_docs]."""
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What stands around each document. `prefix_id`: before its first token, which was scored after it; never trained on.
    `eos_id`: after its last token; trained on only with `train_eos`. None: nothing."""

    prefix_id: int | None = None
    eos_id: int | None = None
    train_eos: bool = False

    def around(self, documents: Documents) -> Documents:
        """The documents with prefix and EOS."""
        front, back = self.prefix_id is not None, self.eos_id is not None
        lengths = documents.lengths + front + back
        starts = np.cumsum(lengths) - lengths
        own = np.arange(len(documents.input_ids)) + np.repeat(starts + front - documents.starts, documents.lengths)
        input_ids, mask = np.empty(lengths.sum(), np.int32), np.zeros(lengths.sum(), bool)
        input_ids[own], mask[own] = documents.input_ids, documents.mask
        if front:
            input_ids[starts] = self.prefix_id
        if back:
            input_ids[starts + lengths - 1] = self.eos_id
            mask[starts + lengths - 1] = self.train_eos
        return Documents(doc_ids=documents.doc_ids, lengths=lengths, input_ids=input_ids, mask=mask)


class Writer(Protocol):
    """Takes the documents of a part batch by batch, gives its files."""

    written: int
    """Token ids in the files: documents, prefixes, EOS, padding, repeated context."""
    trained: int
    """Those that a trainer reading the files computes a loss for."""

    def add(self, documents: Documents) -> None:
        """Append documents."""

    def files(self) -> dict[str, bytes]:
        """The content of the part's files by what follows the part's name; empty where there was no document."""


def _between(frame: Frame) -> Frame:
    """The frame in a stream, where the EOS of the document before may be the prefix."""
    if frame.prefix_id is None or frame.prefix_id != frame.eos_id:
        return frame
    return Frame(eos_id=frame.eos_id, train_eos=frame.train_eos)
