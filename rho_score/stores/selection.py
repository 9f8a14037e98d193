"""The selection: the tokens to train on, as a mask over score sets."""

import numpy as np
import pyarrow as pa

from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_arrow, as_numpy, flat_values, list_lengths
from rho_score.files.parquet import parquet_bytes, read_table
from rho_score.ranking.histogram import COUNTS
from rho_score.ranking.keys import Bits, values_of
from rho_score.ranking.scores import run_sums
from rho_score.stores.layout import HISTOGRAM, SUMMARY
from rho_score.stores.shapes import SelectionParts
from rho_score.stores.store import Store

HISTOGRAM_SCHEMA = pa.schema([("value", pa.float32()) if f.name == "key" else f for f in COUNTS])


class Selection(Store):
    """The tokens to train on.

    The columns of a unit are doc_id, group (if the corpus has groups), input_ids, `score_column`
    and mask.
    """

    kind = "selection"
    done_name = SUMMARY
    hint = ""
    parts = SelectionParts
    footer_fields = frozenset({"fingerprint", "groups"})

    @property
    def score_column(self) -> str:
        """The column with the tokens' scores: "excess" (with a base model), "loss" or "delta"."""
        return str(self.manifest["parts"]["score"])

    @property
    def weighted(self) -> bool:
        """True if it has the weights of tokens."""
        return self.manifest["parts"].get("weights") is not None

    def documents_kept(self, unit: str, doc_ids: pa.ChunkedArray) -> np.ndarray:
        """True for each document of a unit of which a token is kept, bool[n_docs].

        doc_ids: the ids of the documents that the unit is expected to hold.

        Raises:
            RhoScoreError: it holds other documents, or its file is damaged.
        """
        mask = self.mask_of(unit, doc_ids)
        kept: np.ndarray = run_sums(as_numpy(flat_values(mask)), list_lengths(mask)) > 0
        return kept

    def mask_of(self, unit: str, doc_ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """The masks of a unit's documents, list<bool>[n_docs].

        doc_ids, and errors: as in `documents_kept`.
        """
        table = self.unit_table(unit, ["doc_id", "mask"])
        if not table["doc_id"].equals(doc_ids):
            raise RhoScoreError(
                f"unit {unit} holds other documents in {self.folder.url} than in the score set. Make the selection again."
            )
        return table["mask"]

    def histogram(self) -> pa.Table:
        """The table in `histogram.parquet`: expert, group, value (nats), count, tokens."""
        return read_table(self.folder.read(HISTOGRAM), HISTOGRAM_SCHEMA, f"{self.folder.url}/{HISTOGRAM}")


def histogram_file(counts: pa.Table, bits: Bits) -> bytes:
    """The content of `histogram.parquet`, with one row per score that occurs in a ranking.

    Its columns are expert, group, value (the score in nats), count (the tokens or documents with
    that score) and tokens (the tokens in them).
    """
    values = as_arrow(values_of(as_numpy(counts["key"]), bits))
    table = counts.set_column(COUNTS.get_field_index("key"), "value", values).cast(HISTOGRAM_SCHEMA)
    return parquet_bytes(table, HISTOGRAM_SCHEMA)
