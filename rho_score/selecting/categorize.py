"""Writes the categories of a unit's tokens: the work of token dynamics on a worker."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.config import DynamicsConfig
from rho_score.files.arrow import as_numpy, flat_values, list_column, list_lengths
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import parquet_bytes
from rho_score.ranking.histogram import Counter, Group
from rho_score.ranking.keys import round_score
from rho_score.ranking.scores import UnitScores, score_lists
from rho_score.ranking.trends import CATEGORIES, categories, fitted_change
from rho_score.selecting.batches import Batch
from rho_score.selecting.group_counts import count_groups
from rho_score.selecting.join import Join
from rho_score.selecting.row_ranges import JoinedUnit
from rho_score.stores.counts import GroupCounts, add_groups, group_codes, group_counts_in
from rho_score.stores.layout import data_name
from rho_score.stores.schema import SCHEMA_VERSION, dynamics_schema
from rho_score.stores.selection import Selection
from rho_score.stores.unit_file import footers


@dataclass(frozen=True, kw_only=True)
class CategoryWriter:
    """Writes the categories of any unit. It is small, and is sent to every worker."""

    join: Join
    config: DynamicsConfig
    steps: tuple[float, ...]
    mean_last: float
    fingerprint: str
    grouped: bool

    @cached_property
    def _output(self) -> Folder:
        return Folder(self.config.output)

    def write(self, unit: JoinedUnit) -> tuple[JsonObject, pa.Table]:
        """Publishes a unit; returns its metadata and its table."""
        found = self.join.losses(unit, ["doc_id", "input_ids", *(["group"] if self.grouped else [])])
        losses = [found.by_url[url] for url in self.config.scores]
        with np.errstate(invalid="ignore"):
            delta = fitted_change(losses, self.steps)
            codes = categories(delta, losses[-1], self.mean_last, rise=self.config.rise, fall=self.config.fall)
        kept = np.isin(codes, [CATEGORIES.index(c) for c in self.config.keep])
        scores = UnitScores(
            documents=found.documents,
            lengths=found.lengths,
            tokens=round_score(delta),
            rankings={},
            ref_loss=losses[-1],
            base_loss=None,
        )
        schema = dynamics_schema(grouped=self.grouped)
        columns: dict[str, Any] = {name: found.documents[name] for name in found.documents.column_names}
        columns["delta"] = score_lists(scores.tokens, scores.lengths)
        columns["category"] = list_column(pa.array(codes, mask=codes < 0), scores.lengths)
        columns["mask"] = list_column(kept, scores.lengths)
        table = pa.table([columns[f.name] for f in schema], schema=schema)
        metadata = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "unit": unit.unit,
            "groups": [{"group": group, **asdict(a)} for group, a in count_groups(scores, kept).items()],
        }
        self._output.publish(data_name(unit.unit), parquet_bytes(table, schema, metadata))
        return metadata, table

    def read(self, unit: str) -> tuple[JsonObject, pa.Table]:
        """The metadata of a published unit, and the columns of its table that are counted."""
        columns = ["delta", "category", *(["group"] if self.grouped else [])]
        return next(footers(self._output, [unit])), Selection(self._output).unit_table(unit, columns)


def write_batch(writer: CategoryWriter, item: tuple[Batch, set[str]]) -> tuple[int, dict[Group, GroupCounts], pa.Table]:
    """Publishes the units of a batch that are not published yet.

    Returns how many units were written, the counts of the whole batch by group, and its histogram
    of delta, which has categories in the place of references.
    """
    batch, published = item
    counter, groups = Counter(16), dict[Group, GroupCounts]()
    for unit in batch.units:
        metadata, table = writer.read(unit.unit) if unit.unit in published else writer.write(unit)
        add_groups(groups, group_counts_in(metadata))
        delta = as_numpy(flat_values(table["delta"])).astype(np.float32)
        codes = as_numpy(pc.fill_null(flat_values(table["category"]), -1))
        groups_of = table["group"].combine_chunks() if writer.grouped else pa.nulls(len(table), pa.string())
        owners, found = group_codes(groups_of)
        for code, name in enumerate(CATEGORIES):
            counter.add(name, np.where(codes == code, delta, np.nan), list_lengths(table["delta"]), owners, found)
    return len(batch.units) - len(published), groups, counter.table()
