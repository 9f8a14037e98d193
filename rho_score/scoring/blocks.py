"""The columns of the blocks that flow from reading to publishing, a block a unit."""

import pyarrow as pa

from rho_score.stores.schema import FLOATS, IDS

# What flows from reading to scoring, a block a unit. `error` set: the document is quarantined, `text` is null.
# A unit without any document is one row of nulls, so that it is published like the others.
DOCUMENTS = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("group", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("error", pa.string()),
    ]
)


TOKENIZED = pa.schema([*(f for f in DOCUMENTS if f.name != "text"), pa.field("input_ids", IDS)])
SCORED = pa.schema([*TOKENIZED, pa.field("loss", FLOATS)])  # and a field of SIGNALS for each that was asked for
