"""Documents as flat arrays, the tokens around each of them, and what a format's writer does."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents as flat arrays.

    doc_ids: string[n_docs]. lengths: tokens of each document, int64[n_docs]. input_ids:
    int32[n_tokens]. mask: bool[n_tokens]; True marks a token to train on.
    """

    doc_ids: pa.Array
    lengths: np.ndarray
    input_ids: np.ndarray
    mask: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """The place of each document's first token, int64[n_docs]."""
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The tokens around each document. None means that there is none.

    prefix_id comes before the first token, as it did in scoring, and is never trained on. eos_id
    comes after the last token, and is trained on only with train_eos.
    """

    prefix_id: int | None = None
    eos_id: int | None = None
    train_eos: bool = False

    def in_stream(self) -> "Frame":
        """The frame in a stream of documents, where an EOS can be the next document's prefix."""
        if self.prefix_id is None or self.prefix_id != self.eos_id:
            return self
        return Frame(eos_id=self.eos_id, train_eos=self.train_eos)

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
    """Takes the documents of a part batch by batch, and makes the part's files."""

    written: int
    """Token ids in the files: documents, prefixes, EOS, padding and repeated context."""
    trained: int
    """Those that a trainer computes a loss for when it reads the files."""

    def add(self, documents: Documents) -> None:
        """Appends documents."""

    def files(self) -> dict[str, bytes]:
        """The part's files by what follows the part's name. Without documents there are none."""
