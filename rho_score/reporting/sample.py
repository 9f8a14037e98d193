"""Samples documents of a finished store with every number of every token, for people to look at.

It reads only the stores, and needs no model, corpus or network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.models.pieces import text_pieces
from rho_score.stores.lineage import score_sets_behind
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from rho_score.stores.store import Store


@dataclass(frozen=True)
class DocumentTokens:
    """One document. Its arrays have the shape [n_tokens].

    score: excess or loss, nats; NaN means no score. mask, ref_loss, base_loss: None if not known.
    """

    doc_id: str
    group: str | None
    input_ids: np.ndarray
    score: np.ndarray
    mask: np.ndarray | None = None
    ref_loss: np.ndarray | None = None
    base_loss: np.ndarray | None = None


@dataclass(frozen=True)
class TokenSample:
    """The tokens of sampled units as flat arrays with one entry per token.

    doc_ids, doc_groups: of each document. lengths: tokens of each document, int64[n_docs].
    input_ids: int32[n_tokens]. score: excess or loss, nats, float32[n_tokens]; NaN means no score.
    mask: bool[n_tokens], or None for a score set. ref_loss, base_loss: nats, float32[n_tokens], or
    None if not known.
    """

    doc_ids: list[str]
    doc_groups: list[str | None]
    lengths: np.ndarray
    input_ids: np.ndarray
    score: np.ndarray
    mask: np.ndarray | None
    ref_loss: np.ndarray | None
    base_loss: np.ndarray | None
    n_units: int
    """The units that the sample is made of."""
    whole: bool
    """True if the sample is the whole store."""

    @cached_property
    def position(self) -> np.ndarray:
        """The place of each token in its document, from 0, int64[n_tokens]."""
        starts = np.cumsum(self.lengths) - self.lengths
        places: np.ndarray = np.arange(len(self.input_ids)) - np.repeat(starts, self.lengths)
        return places

    def documents(self) -> Iterator[DocumentTokens]:
        """The documents, one by one."""
        return map(self.document, range(len(self.lengths)))

    def document(self, i: int) -> DocumentTokens:
        """The document at this place in the sample."""
        part = slice(int(self._ends[i] - self.lengths[i]), int(self._ends[i]))
        known = [None if a is None else a[part] for a in (self.mask, self.ref_loss, self.base_loss)]
        return DocumentTokens(self.doc_ids[i], self.doc_groups[i], self.input_ids[part], self.score[part], *known)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.lengths)


def sample_tokens(
    store: Store, *, n_tokens: int, ref: ScoreSet | None = None, base: ScoreSet | None = None, seed: int = 0
) -> TokenSample:
    """The tokens of randomly chosen whole units, at least `n_tokens` if there are so many.

    The units stay in corpus order. ref, base: the score sets of a selection, whose losses are then
    in the sample.
    """
    columns = ["doc_id", "input_ids", store.score_column]
    columns += (["group"] if store.grouped else []) + (["mask"] if isinstance(store, Selection) else [])
    order = np.random.default_rng(seed).permutation(len(store.units))
    tables: dict[int, pa.Table] = {}
    total = 0
    for i in order.tolist():
        tables[i] = store.unit_table(store.units[i].unit, columns)
        total += int(list_lengths(tables[i]["input_ids"]).sum())
        if total >= n_tokens:
            break
    chosen = sorted(tables)
    table = pa.concat_tables([tables[i] for i in chosen])
    losses = {
        name: None
        if scores is None
        else _flat(pa.concat_tables([scores.unit_table(store.units[i].unit, ["loss"]) for i in chosen])["loss"])
        for name, scores in (("ref_loss", ref), ("base_loss", base))
    }
    return TokenSample(
        doc_ids=table["doc_id"].to_pylist(),
        doc_groups=table["group"].to_pylist() if store.grouped else [None] * len(table),
        lengths=list_lengths(table["input_ids"]),
        input_ids=_flat(table["input_ids"]),
        score=_flat(table[store.score_column]),
        mask=_flat(table["mask"]) if isinstance(store, Selection) else None,
        n_units=len(chosen),
        whole=len(chosen) == len(store.units),
        **losses,
    )


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    values: np.ndarray = as_numpy(flat_values(column))
    return values


def scores_behind(selection: Selection, *, ref: str | None = None, base: str | None = None) -> dict[str, ScoreSet]:
    """The score sets that a selection was made from, by "ref" and "base", if they can be found.

    A set is left out, even if it is given, if it is one of several references, is cut into other
    units or has another vocabulary.

    ref, base: where they are, if not where the selection's manifest says.

    Raises:
        InputError: the store at a given place is not the one that the selection was made from.
    """
    return score_sets_behind(selection, ("ref", "base"), {"ref": ref, "base": base})


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> list[str]:
    """The text of each token by itself. A byte that is part of a character is written as `\\xe6`."""
    unique, inverse = np.unique(ids, return_inverse=True)
    texts = []
    for token, token_id in zip(tokenizer.convert_ids_to_tokens(unique.tolist()), unique.tolist(), strict=True):
        text = "".join(piece.text for piece in text_pieces(tokenizer, [token_id]))
        texts.append(f" {text}" if (token or "").startswith("▁") and not text.startswith(" ") else text)
    return [texts[i] for i in inverse.tolist()]
