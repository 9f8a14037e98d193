"""The last step of a unit: its table becomes a file, and its counts become a row.

Its quarantined documents become another file.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

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
from rho_score.ranking.scores import run_sums
from rho_score.scoring.unit_stats import UnitStats, read_retries, read_seconds, read_stats, reason_of
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import data_name, quarantine_name
from rho_score.stores.schema import QUARANTINE, SCHEMA_VERSION, content_sha256, score_schema


@dataclass(frozen=True, kw_only=True)
class PublishSettings:
    """What the step that publishes units needs to know about the run."""

    output: str
    fingerprint: str
    grouped: bool
    """True if units have a column `group`."""
    signals: tuple[str, ...]
    prefix: bool
    """True if each document has a prefix before it, so that every token that counts has a loss."""
    whole: bool
    """True if every token counts."""
    hidden: bool
    """True if the model read only the tokens that count."""
    again: bool
    """True if the unit is published already and its files are replaced."""


def publish_unit(unit: pa.Table, *, settings: PublishSettings, expected_rows: dict[str, int]) -> pa.Table:
    """Writes the file of a unit's quarantined documents, and then the unit's file.

    unit: `rho_score.scoring.blocks.SCORED`, with the worker's statistics in its metadata.
    expected_rows: number of rows by unit, for units whose number is planned. Returns one row with
    the unit's name, its counts, its statistics, and the storage calls that were made again to read
    and write it. A unit that was not paid, and so not scored, is not written.

    Raises:
        RhoScoreError: the number of rows is not the planned one, or a token that must have a loss
            has none.
    """
    before = time.perf_counter()
    folder, name = Folder(settings.output), unit["unit"][0].as_py()
    check_attempts(f"publishing unit {name}")
    stats = read_stats(unit)
    if not stats.paid:
        return _row(name, ScoreCounts(), stats, read_retries(unit))
    documents = unit.filter(unit["doc_id"].is_valid())
    good = documents["error"].is_null()
    scored, quarantined = documents.filter(good), documents.filter(pc.invert(good))
    counts = _counts(scored, len(quarantined), stats)
    if expected_rows.get(name, counts.documents) != counts.documents:
        raise RhoScoreError(
            f"unit {name}: {expected_rows[name]} rows were planned, but {counts.documents} were read. Nothing was written."
        )
    if counts.losses != (n_counting := _n_counting(scored, settings)):
        raise RhoScoreError(
            f"unit {name}: {counts.losses} tokens have a loss, but {n_counting} must have one. Nothing was written."
        )
    earlier = Counter(read_retries(unit))
    with retries_counted() as here:
        if settings.again:
            # The old file lacks the quarantined documents, so it must not outlive the list of them.
            folder.remove(data_name(name))
        _publish_quarantined(folder, name, quarantined)
        folder.publish(data_name(name), _unit_file(name, scored, counts, settings))
    reasons = Counter(map(reason_of, quarantined["error"].to_pylist()))
    stages = {**read_seconds(unit), "score": stats.model_s, "publish": time.perf_counter() - before}
    stats = replace(stats, reasons=orjson.dumps(dict(reasons)).decode(), stages=orjson.dumps(stages).decode())
    return _row(name, counts, stats, earlier + here)


def _row(name: str, counts: ScoreCounts, stats: UnitStats, retries: Mapping[str, int]) -> pa.Table:
    row = {
        "unit": name,
        "counts": asdict(counts),
        "stats": asdict(stats),
        "retries": orjson.dumps(dict(retries)).decode(),
    }
    return pa.Table.from_pylist([row])


def _counts(scored: pa.Table, n_quarantined: int, stats: UnitStats) -> ScoreCounts:
    losses = flat_values(scored["loss"])
    return ScoreCounts(
        documents=len(scored) + n_quarantined,
        scored=len(scored),
        quarantined=n_quarantined,
        rescored=stats.rescored,
        copied=stats.copied,
        reused=stats.reused,
        tokens=int(list_lengths(scored["input_ids"]).sum()),
        losses=len(losses) - losses.null_count,
        total_nats=float(np.nansum(as_numpy(losses), dtype=np.float64)),
    )


def _n_counting(scored: pa.Table, settings: PublishSettings) -> int:
    """The number of tokens that must have a loss.

    These are the tokens that count, without the first that the model read if nothing is before it.
    """
    lengths = list_lengths(scored["input_ids"])
    first = (np.cumsum(lengths) - lengths)[lengths > 0]
    if settings.whole:
        return int(lengths.sum()) - (0 if settings.prefix else len(first))
    counts = as_numpy(flat_values(scored["counts"]))
    if settings.prefix:
        return int(counts.sum())
    if settings.hidden:
        return int(counts.sum()) - int((run_sums(counts, lengths) > 0).sum())
    return int(counts.sum()) - int(counts[first].sum())


def _publish_quarantined(folder: Folder, name: str, quarantined: pa.Table) -> None:
    """Writes the list of a unit's quarantined documents.

    If there are none, it removes the list of an earlier attempt.
    """
    if not len(quarantined):
        folder.remove(quarantine_name(name))
        return
    table = quarantined.select(["doc_id", "error"]).rename_columns(["doc_id", "reason"]).cast(QUARANTINE)
    folder.publish(quarantine_name(name), parquet_bytes(table, QUARANTINE))


def _unit_file(name: str, scored: pa.Table, counts: ScoreCounts, settings: PublishSettings) -> bytes:
    schema = score_schema(grouped=settings.grouped, signals=settings.signals, prefix=settings.prefix and settings.whole)
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": settings.fingerprint,
        "unit": name,
        "accounts": asdict(counts),
        "content_sha256": content_sha256(scored["doc_id"], scored["input_ids"]),
    }
    return parquet_bytes(scored.select(schema.names).cast(schema), schema, metadata)
