"""Documents as flat arrays, and the tokens that stand around each of them in training."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from rho_score.ranking.scores import run_sums
from rho_score.stores.schema import WEIGHT

IGNORED = -100
"""The label that losses in PyTorch and Hugging Face leave out."""
REF_LOSS = "ref_loss"
"""The name of the reference's losses among the numbers of tokens, and of their columns and files."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents as flat arrays.

    doc_ids: string[n_docs]. lengths: tokens of each document, int64[n_docs]. input_ids:
    int32[n_tokens]. mask: bool[n_tokens]; True marks a token to train on. values: more numbers of
    each token by name, float[n_tokens] each; NaN where a token has none.
    """

    doc_ids: pa.Array
    lengths: np.ndarray
    input_ids: np.ndarray
    mask: np.ndarray
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def starts(self) -> np.ndarray:
        """The place of each document's first token, int64[n_docs]."""
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts

    def trainable(self, mask: np.ndarray) -> tuple["Documents", np.ndarray]:
        """The documents of which `mask` (bool[n_tokens]) keeps a token, with this mask.

        Also returns which documents these are, bool[n_docs].
        """
        keep = run_sums(mask, self.lengths) > 0
        return replace(self, mask=mask).only(keep), keep

    def only(self, keep: np.ndarray) -> "Documents":
        """The documents for which `keep` (bool[n_docs]) is True."""
        tokens = np.repeat(keep, self.lengths)
        return Documents(
            doc_ids=self.doc_ids.filter(pa.array(keep)),
            lengths=self.lengths[keep],
            input_ids=self.input_ids[tokens],
            mask=self.mask[tokens],
            values={name: numbers[tokens] for name, numbers in self.values.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The tokens around each document. None means that there is none.

    prefix_id comes before the first token, as it did in scoring, and is never trained on. eos_id
    comes after the last token, unless that is this id already, as in files of token ids and behind
    a text that spells it. An EOS that is put there is trained on only with train_eos. One that was
    there is a token like any other, and is trained on with train_eos in any case.
    """

    prefix_id: int | None = None
    eos_id: int | None = None
    train_eos: bool = False

    def in_stream(self) -> "Frame":
        """The frame in a stream of documents, where an EOS can be the next document's prefix."""
        if self.prefix_id is None or self.prefix_id != self.eos_id:
            return self
        return Frame(eos_id=self.eos_id, train_eos=self.train_eos)

    def adds_eos(self, documents: Documents) -> np.ndarray:
        """The documents that an EOS is put behind, bool[n_docs]: those that do not end with it."""
        if self.eos_id is None:
            return np.zeros(len(documents.lengths), bool)
        adds = np.ones(len(documents.lengths), bool)
        some = documents.lengths > 0
        adds[some] = documents.input_ids[(documents.starts + documents.lengths - 1)[some]] != self.eos_id
        return adds

    def around(self, documents: Documents) -> Documents:
        """The documents with prefix and EOS.

        These have NaN for all further numbers, but a weight: an EOS that is trained on by train_eos
        weighs 1, and what is not trained on weighs 0.
        """
        prefix, front, adds = self.prefix_id, self.prefix_id is not None, self.adds_eos(documents)
        lengths = documents.lengths + front + adds
        starts = np.cumsum(lengths) - lengths
        own = np.arange(len(documents.input_ids)) + np.repeat(starts + front - documents.starts, documents.lengths)
        n_tokens = int(lengths.sum())
        input_ids, mask = np.empty(n_tokens, np.int32), np.zeros(n_tokens, bool)
        input_ids[own], mask[own] = documents.input_ids, documents.mask
        if prefix is not None:
            input_ids[starts] = prefix
        trained_eos = np.zeros(0, np.int64)
        if self.eos_id is not None:
            input_ids[(starts + lengths - 1)[adds]] = self.eos_id
            trained_eos = starts + lengths - 1 if self.train_eos else trained_eos
        mask[trained_eos] = True
        values = {}
        for name, numbers in documents.values.items():
            values[name] = np.full(n_tokens, 0 if name == WEIGHT else np.nan, numbers.dtype)
            values[name][own] = numbers
            if name == WEIGHT:
                values[name][trained_eos] = 1
        return Documents(doc_ids=documents.doc_ids, lengths=lengths, input_ids=input_ids, mask=mask, values=values)
