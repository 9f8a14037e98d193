"""The last step of a unit: its table becomes a file, its quarantined documents another, its accounts a row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.cluster.tasks import check_attempts
from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.files.folder import Folder
from rho_score.files.parquet import parquet_bytes
from rho_score.files.retries import retries_counted
from rho_score.scoring.unit_stats import read_passage, read_retries
from rho_score.stores.counts import Accounts
from rho_score.stores.layout import data_name, quarantine_name
from rho_score.stores.schema import QUARANTINE, SCHEMA_VERSION, content_sha256, score_schema


def publish_unit(
    unit: pa.Table,
    *,
    output: str,
    fingerprint: str,
    grouped: bool,
    signals: Sequence[str],
    prefix: bool,
    expected_rows: dict[str, int],
    again: bool,
) -> pa.Table:
    """Write a unit's file, and before it the file of its quarantined documents; returns its accounts, one row, with the
    storage calls that reading and writing it had to make again.

    What the worker noted of the unit's passage comes in the table's own metadata (`passage.PASSAGE`). `again`: the unit is
    published already, and what is there is to be replaced.
    """
    folder, name = Folder(output), unit["unit"][0].as_py()
    check_attempts(f"publishing unit {name}")
    documents = unit.filter(unit["doc_id"].is_valid())
    good = documents["error"].is_null()
    scored, quarantined = documents.filter(good), documents.filter(pc.invert(good))
    accounts = Accounts(
        documents=len(documents),
        scored=len(scored),
        quarantined=len(quarantined),
        rescored=(passage := read_passage(unit)).rescored,
        tokens=int(list_lengths(scored["input_ids"]).sum()),
        losses=len(flat := flat_values(scored["loss"])) - flat.null_count,
        total_nats=float(np.nansum(as_numpy(flat), dtype=np.float64)),
    )
    if expected_rows.get(name, accounts.documents) != accounts.documents:
        raise RhoScoreError(
            f"unit {name}: {expected_rows[name]} rows planned, {accounts.documents} read. Nothing was written."
        )
    if prefix and accounts.losses != accounts.tokens:
        raise RhoScoreError(
            f"unit {name}: {accounts.tokens - accounts.losses} tokens have no loss, though a prefix stands before each document. "
            "Nothing was written."
        )
    schema = score_schema(grouped=grouped, signals=signals, prefix=prefix)
    made = Counter(read_retries(unit))
    with retries_counted() as here:
        if again:  # a file without the documents that were quarantined beside it must not outlive the list of them
            folder.remove(data_name(name))
        _publish(folder, name, scored, quarantined, accounts, fingerprint, schema)
    retries = orjson.dumps(made + here).decode()
    return pa.Table.from_pylist([{"accounts": asdict(accounts), "passage": asdict(passage), "retries": retries}])


def _publish(
    folder: Folder,
    name: str,
    scored: pa.Table,
    quarantined: pa.Table,
    accounts: Accounts,
    fingerprint: str,
    schema: pa.Schema,
) -> None:
    if len(quarantined):
        table = quarantined.select(["doc_id", "error"]).rename_columns(["doc_id", "reason"]).cast(QUARANTINE)
        folder.publish(quarantine_name(name), parquet_bytes(table, QUARANTINE))
    else:
        folder.remove(quarantine_name(name))  # of an earlier attempt
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "unit": name,
        "accounts": asdict(accounts),
        "content_sha256": content_sha256(scored["doc_id"], scored["input_ids"]),
    }
    folder.publish(data_name(name), parquet_bytes(scored.select(schema.names).cast(schema), schema, metadata))
