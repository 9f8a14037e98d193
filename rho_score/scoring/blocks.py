"""The columns of the blocks that flow from reading to publishing. Each block is a unit."""

import pyarrow as pa

from rho_score.stores.schema import FLOATS, IDS, MASK

# What reading passes on. If `error` is set, the document is quarantined and `text` is null. A unit
# without documents is one row of nulls, so that it is published like the others.
DOCUMENTS = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("group", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("error", pa.string()),
    ]
)


# `text` is what `rho_score.models.content` makes tokens of. `counts` is left out if all tokens count.
TOKENIZED = pa.schema([*(f for f in DOCUMENTS if f.name != "text"), pa.field("input_ids", IDS)])
# plus the fields in SIGNALS of each signal that was asked for
COUNTS = pa.field("counts", MASK)
SCORED = pa.schema([*TOKENIZED, pa.field("loss", FLOATS)])
