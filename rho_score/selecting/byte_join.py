"""Losses of another vocabulary, spread over bytes and summed over the main set's tokens."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.byte_spans import (
    differing_documents,
    document_bytes,
    first_text_difference,
    leading_spaces,
    spread,
)


class TextsDiffer(Exception):
    """Two tokenizers do not read the same texts. The message says where they first differ."""


class _Text(NamedTuple):
    """The text of a unit as one tokenizer's ids spell it.

    text: the UTF-8 bytes of all documents, uint8. n_bytes: bytes of each token, int64[n_tokens].
    doc_bytes, lengths: bytes and tokens of each document, int64[n_docs].
    """

    text: np.ndarray
    n_bytes: np.ndarray
    doc_bytes: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, vocabulary: Vocabulary, table: pa.Table, spaces: np.ndarray | None = None) -> "_Text":
        ids, lengths = as_numpy(flat_values(table["input_ids"])), list_lengths(table["input_ids"])
        n_bytes = vocabulary.byte_lengths(ids, lengths, spaces)
        text = vocabulary.text_bytes(ids, lengths, spaces)
        return cls(text, n_bytes, document_bytes(n_bytes, lengths), lengths)


def losses_by_bytes(
    main: pa.Table, main_vocabulary: Vocabulary, other: pa.Table, other_vocabulary: Vocabulary, losses: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The losses of the other set, summed over the tokens of the main set.

    main, other: the same documents, with doc_id and input_ids. losses: those of the other set's
    tokens, nats, float[n_other].

    Returns losses, nats, float64[n_main], and True for each document that the two tokenizers do not
    read alike, bool[n_docs]. The losses of such a document are NaN.

    Raises:
        TextsDiffer: more than one document in a hundred is not read alike. The corpora differ, or a
            tokenizer changes the text.
    """
    here, there = _texts(main, main_vocabulary, other, other_vocabulary)
    differ = differing_documents(here.text, here.doc_bytes, there.text, there.doc_bytes)
    if differ.sum() > max(1, len(differ) // 100):
        found = first_text_difference(here.text, here.doc_bytes, there.text, there.doc_bytes)
        document, at, one, another = found or (0, 0, "", "")
        raise TextsDiffer(
            f"document {main['doc_id'][document].as_py()!r}, byte {at}: the first has {one!r}, the second {another!r}; "
            f"{differ.sum()} of {len(differ)} documents differ (the texts differ, or a tokenizer changes them)"
        )
    mine, theirs = np.repeat(~differ, here.lengths), np.repeat(~differ, there.lengths)
    spread_losses = np.full(len(mine), np.nan)
    spread_losses[mine] = spread(
        losses[theirs], there.n_bytes[theirs], there.lengths[~differ], here.n_bytes[mine], here.lengths[~differ]
    )
    return spread_losses, differ


def _texts(
    main: pa.Table, main_vocabulary: Vocabulary, other: pa.Table, other_vocabulary: Vocabulary
) -> tuple[_Text, _Text]:
    """The two texts.

    If one tokenizer may drop a document's first space, the other shows whether there is one.
    """
    here, there = _Text.of(main_vocabulary, main), _Text.of(other_vocabulary, other)
    if main_vocabulary.optional_space == other_vocabulary.optional_space:
        return here, there
    if main_vocabulary.optional_space:
        return _Text.of(main_vocabulary, main, leading_spaces(there.text, there.doc_bytes)), there
    return here, _Text.of(other_vocabulary, other, leading_spaces(here.text, here.doc_bytes))
