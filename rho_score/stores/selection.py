"""The selection: which tokens to train on."""

import pyarrow as pa

from rho_score.files.arrow import as_arrow, as_numpy
from rho_score.files.parquet import parquet_bytes, read_table
from rho_score.ranking.histogram import COUNTS
from rho_score.ranking.keys import Bits, values_of
from rho_score.stores.layout import HISTOGRAM, SUMMARY
from rho_score.stores.shapes import SelectionParts
from rho_score.stores.store import Store

HISTOGRAM_SCHEMA = pa.schema([("value", pa.float32()) if f.name == "key" else f for f in COUNTS])


class Selection(Store):
    """Which tokens to train on. Columns of a unit: doc_id, [group], input_ids, excess or loss, mask."""

    kind = "selection"
    done_name = SUMMARY
    hint = ""
    parts = SelectionParts
    footer_fields = frozenset({"fingerprint", "groups"})

    @property
    def score_column(self) -> str:
        """The column that tokens were ranked by: "excess" with a base model, else "loss"."""
        return str(self.manifest["parts"]["score"])

    def histogram(self) -> pa.Table:
        """`histogram.parquet`: expert, group, value, count, tokens."""
        return read_table(self.folder.read(HISTOGRAM), HISTOGRAM_SCHEMA, f"{self.folder.url}/{HISTOGRAM}")


def histogram_file(counts: pa.Table, bits: Bits) -> bytes:
    """`histogram.parquet`: expert, group, value (nats), count (items of that score), tokens (that they hold)."""
    values = as_arrow(values_of(as_numpy(counts["key"]), bits))
    table = counts.set_column(COUNTS.get_field_index("key"), "value", values).cast(HISTOGRAM_SCHEMA)
    return parquet_bytes(table, HISTOGRAM_SCHEMA)
