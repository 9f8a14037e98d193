"""Reads the documents of a selection or of a score set, with the numbers of their tokens."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.files.folder import Folder
from rho_score.ranking.scores import combined_losses
from rho_score.stores.framing import REF_LOSS, Documents
from rho_score.stores.open import open_store
from rho_score.stores.reopened import Reopened
from rho_score.stores.schema import WEIGHT
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection


@dataclass(frozen=True)
class TokenSource(Reopened):
    """A selection or a score set. It is small, and is sent to every task.

    references: the score sets that `ref_loss` comes from, of which the lowest loss counts, or the
    mean if `mean`. They hold the documents of the store, unit by unit.
    """

    url: str
    columns: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    mean: bool = False

    @cached_property
    def store(self) -> Selection | ScoreSet:
        """The store, opened."""
        return open_store(self.url)

    @cached_property
    def _references(self) -> list[ScoreSet]:
        return [ScoreSet(Folder(url)) for url in self.references]

    def read(self, unit: str) -> tuple[Documents, np.ndarray]:
        """The documents of a unit, and the scores of their tokens, float32[n_tokens], NaN without one.

        In a score set, the mask is True for each token that has a loss and, if weights are wanted,
        for each token with a weight above 0.

        Raises:
            RhoScoreError: a file is damaged, or a reference holds other documents.
        """
        store, score = self.store, self.store.score_column
        weighted = [WEIGHT] if WEIGHT in self.columns else []
        masked = ["mask"] if isinstance(store, Selection) else []
        table = store.unit_table(unit, ["doc_id", "input_ids", score, *masked, *weighted])
        scores = as_numpy(flat_values(table[score])).astype(np.float32)
        values = {score: scores} | {name: as_numpy(flat_values(table[name])) for name in weighted}
        if REF_LOSS in self.columns:
            values[REF_LOSS] = self._reference(unit, table, scores)
        mask = as_numpy(flat_values(table["mask"])) if masked else ~np.isnan(scores)
        found = Documents(
            doc_ids=table["doc_id"].combine_chunks(),
            lengths=list_lengths(table["input_ids"]),
            input_ids=as_numpy(flat_values(table["input_ids"])),
            mask=values[WEIGHT] > 0 if weighted else mask,
            values={name: values[name] for name in self.columns},
        )
        return found, scores

    def _reference(self, unit: str, table: pa.Table, scores: np.ndarray) -> np.ndarray:
        if isinstance(self.store, ScoreSet):
            return scores
        found = []
        for scores_of in self._references:
            other = scores_of.unit_table(unit, ["doc_id", "input_ids", "loss"])
            if not (other["doc_id"].equals(table["doc_id"]) and other["input_ids"].equals(table["input_ids"])):
                raise RhoScoreError(
                    f"unit {unit} of {scores_of.folder.url} holds other documents or tokens than {self.url}."
                )
            found.append(as_numpy(flat_values(other["loss"])).astype(np.float32))
        return combined_losses(found, "mean" if self.mean else "min")
