"""Writes the units of a score set that has the documents and tokens of another one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rho_score.cluster.progress import Progress
from rho_score.cluster.tasks import in_tasks, result
from rho_score.config import Precision
from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values, list_column, list_lengths
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.parquet import parquet_bytes, read_table
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import (
    SUCCESS,
    data_name,
    published_units,
    quarantine_name,
    units_without_values,
    without_values_name,
)
from rho_score.stores.reopened import Reopened
from rho_score.stores.schema import QUARANTINE, SCHEMA_VERSION, score_schema
from rho_score.stores.score_set import WITHOUT, ScoreSet, score_counts_of
from rho_score.stores.shapes import Totals, read_json
from rho_score.stores.unit_file import footers

UNITS_PER_BATCH = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive units that are the work of one task. index: its number in corpus order."""

    index: int
    units: tuple[str, ...]


def batches_of(like: ScoreSet) -> list[Batch]:
    """The units of a score set in corpus order, in batches whose size depends only on their number."""
    names = like.plan_names()["unit"].to_pylist()
    n = max(1, min(UNITS_PER_BATCH, len(names) // 64))
    return [Batch(i // n, tuple(names[i : i + n])) for i in range(0, len(names), n)]


class Tokens(NamedTuple):
    """The documents of a unit of the score set that another one is like.

    table: doc_id, group (if there are any), input_ids. lengths: tokens of each document,
    int64[n_docs]. loss: float32[n_tokens], NaN where a token has none. about: the metadata of the
    unit's file.
    """

    table: pa.Table
    lengths: np.ndarray
    loss: np.ndarray
    about: JsonObject

    @property
    def ids(self) -> np.ndarray:
        """The ids of all tokens, int32[n_tokens]."""
        ids: np.ndarray = as_numpy(flat_values(self.table["input_ids"]))
        return ids


def too_large(values: np.ndarray, precision: Precision) -> np.ndarray:
    """True for each finite value that the precision cannot hold, bool[n]."""
    with np.errstate(over="ignore"):
        beyond: np.ndarray = np.isfinite(values) & ~np.isfinite(values.astype(precision))
    return beyond


class Published(NamedTuple):
    """What the file of a unit holds, and how many of its documents have no values."""

    counts: ScoreCounts
    without: int


@dataclass(frozen=True, kw_only=True)
class DerivedUnits(Reopened):
    """Reads the units of one score set and writes those of another. It is sent to every worker."""

    like: str
    output: str
    fingerprint: str
    precision: Precision

    @cached_property
    def scores(self) -> ScoreSet:
        """The score set whose documents and tokens these are."""
        return ScoreSet.open(self.like)

    def read(self, unit: str) -> Tokens:
        """The documents of a unit; raises RhoScoreError if its file is damaged."""
        group = ["group"] if self.scores.grouped else []
        table, about = self.scores.read_unit(unit, ["doc_id", *group, "input_ids", "loss"])
        loss = as_numpy(flat_values(table["loss"])).astype(np.float32, copy=False)
        return Tokens(table.drop_columns("loss"), list_lengths(table["input_ids"]), loss, about)

    def write(
        self,
        units: Iterable[str],
        values_of: Callable[[str, Tokens], tuple[np.ndarray, Mapping[int, str]]],
    ) -> list[Published]:
        """Publishes these units. values_of: the values of a unit, and `without`, as `publish` takes them."""
        written = []
        for unit in units:
            tokens = self.read(unit)
            written.append(self.publish(unit, tokens, *values_of(unit, tokens)))
        return written

    def publish(self, unit: str, tokens: Tokens, values: np.ndarray, without: Mapping[int, str]) -> Published:
        """Writes the lists of quarantined documents and of those without values, and then the unit.

        A token that has no loss in the other set gets none here, and a document that is quarantined
        there is quarantined here, for the same reason.

        values: float64[n_tokens], NaN where a token has none. without: the reasons by the place of
        the document in the unit; the values of such a document are left out.
        """
        missing = np.isnan(values) | np.isnan(tokens.loss)
        missing |= np.repeat(np.isin(np.arange(len(tokens.table)), list(without)), tokens.lengths)
        stored = np.where(missing, 0.0, values).astype(self.precision).astype(np.float32)
        schema = score_schema(grouped=self.scores.grouped)
        column = list_column(pa.array(stored, mask=missing), tokens.lengths)
        table = pa.table([*tokens.table.columns, column], schema=schema)
        quarantined = int(tokens.about["accounts"]["quarantined"])
        counts = ScoreCounts(
            documents=len(table) + quarantined,
            scored=len(table),
            quarantined=quarantined,
            tokens=len(stored),
            losses=int((~missing).sum()),
            total_nats=float(stored[~missing].sum(dtype=np.float64)),
        )
        metadata = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "unit": unit,
            "accounts": asdict(counts),
            "content_sha256": tokens.about["content_sha256"],
            WITHOUT: len(without),
        }
        folder = Folder(self.output)
        if quarantined:
            folder.publish(quarantine_name(unit), self.scores.folder.read(quarantine_name(unit)))
        if without:
            rows = sorted(without.items())
            doc_ids = tokens.table["doc_id"].take([i for i, _ in rows])
            listed = pa.table([doc_ids, [reason for _, reason in rows]], schema=QUARANTINE)
            folder.publish(without_values_name(unit), parquet_bytes(listed, QUARANTINE))
        folder.publish(data_name(unit), parquet_bytes(table, schema, metadata))
        return Published(counts, len(without))


class Written(NamedTuple):
    """What a derived score set holds, and how many of its units this call wrote."""

    counts: ScoreCounts
    without: int
    computed: int


Write = Callable[[Batch, list[str]], list[Published]]
"""Writes units of a batch, of which these are not published yet."""


def write_all(
    what: str, like: ScoreSet, output: Folder, write: Write, *, workers: int | None, about: JsonObject | None = None
) -> Written:
    """Writes the units that are not published yet, and then `_SUCCESS.json`.

    what: the name of the work, for the progress. about: further fields of `_SUCCESS.json`.
    """
    done = published_units(output)
    batches = batches_of(like)
    left = [(batch, [unit for unit in batch.units if unit not in done]) for batch in batches]
    todo = [(batch, units) for batch, units in left if units]
    earlier = [unit for batch in batches for unit in batch.units if unit in done]
    published: list[Published] = []
    with Progress(what, n_units=sum(len(units) for _, units in todo)) as progress:
        for _, reference in in_tasks(partial(_write, write), todo, workers=workers):
            written: list[Published] = result(reference)
            published += written
            progress.add(tokens=sum(one.counts.tokens for one in written), units=len(written))
    computed = len(published)
    published += [
        Published(score_counts_of(output, unit, found), int(found.get(WITHOUT, 0)))
        for unit, found in zip(earlier, footers(output, earlier), strict=True)
    ]
    total = ScoreCounts.total(one.counts for one in published)
    without = sum(one.without for one in published)
    if like.n_units != len(published):
        raise RhoScoreError(
            f"{like.n_units - len(published)} units were not published. Run the same command again to resume."
        )
    output.publish(SUCCESS, dump_json({"units": like.n_units, **asdict(total), WITHOUT: without, **(about or {})}))
    return Written(total, without, computed)


def _write(write: Write, item: tuple[Batch, list[str]]) -> list[Published]:
    return write(*item)


def finished_before(output: Folder) -> Written | None:
    """What a finished derived score set holds; None if it is not finished."""
    if not output.exists(SUCCESS):
        return None
    found = read_json(output, SUCCESS, Totals)
    return Written(ScoreCounts.of(found), int(found.get(WITHOUT, 0)), 0)


def documents_without_values(output: str) -> Iterator[tuple[str, str]]:
    """Yields (doc_id, reason) of the documents without values, by the names of their units."""
    folder = Folder(output)
    for unit in sorted(units_without_values(folder)):
        name = without_values_name(unit)
        for row in read_table(folder.read(name), QUARANTINE, f"{folder.url}/{name}").to_pylist():
            yield row["doc_id"], row["reason"]
