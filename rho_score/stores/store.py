"""What score sets and selections have in common on storage.

Both have a manifest (what determines the numbers), a plan (the list of units), a Parquet file for
each unit, and a file with the totals, which is written last: `_SUCCESS.json` in a score set,
`summary.json` in a selection. A unit's file that exists is complete, and writing it again writes
the same bytes.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import pyarrow as pa

from rho_score.corpus.plan import plan_names, read_plan
from rho_score.corpus.units import Unit
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.stores import unit_file
from rho_score.stores.layout import MANIFEST, PLAN, SUCCESS, data_name
from rho_score.stores.manifest import Kind, read_manifest
from rho_score.stores.shapes import ScoreParts, SelectionSummary, Totals, check_shape, read_json


@dataclass(frozen=True)
class Store:
    """A folder with a manifest, a plan and a file for each unit: a score set or a selection."""

    folder: Folder
    plan_override: bytes | None = None
    """The content of a `plan.parquet` with some of the units, used in place of the store's own."""
    kind: ClassVar[Kind]
    done_name: ClassVar[str] = SUCCESS
    hint: ClassVar[str] = " (With --allow-unfinished, `select` and `compare` take the units that are published.)"
    parts: ClassVar[type] = ScoreParts
    footer_fields: ClassVar[frozenset[str]] = frozenset({"fingerprint", "accounts", "content_sha256"})

    @classmethod
    def open(cls, url: str, *, finished: bool = True) -> Self:
        """Opens the store at `url`, by default only if it is finished.

        Raises:
            InputError: there is no store at `url`, or it is of another kind, or it is not finished.
        """
        store = cls(Folder(url))
        if store.manifest["kind"] != cls.kind:
            raise InputError(
                f"{store.folder.url} holds another kind of store ({store.manifest['kind']}, not {cls.kind}). Check the path."
            )
        check_shape(store.manifest["parts"], cls.parts, f"{store.folder.url}/{MANIFEST}")
        if finished and not store.finished:
            raise InputError(
                f"the {cls.kind} {url} is not finished: it has no {cls.done_name}. Run its command again to resume."
                + cls.hint
            )
        return store

    @cached_property
    def finished(self) -> bool:
        """True if the file that is written last is there."""
        return self.folder.exists(self.done_name)

    @cached_property
    def manifest(self) -> JsonObject:
        """The manifest: kind, fingerprint, the parts it is made of, input, software."""
        return read_manifest(self.folder)

    @cached_property
    def summary(self) -> JsonObject:
        """The totals, from the file that is written last."""
        return read_json(self.folder, self.done_name, Totals if self.done_name == SUCCESS else SelectionSummary)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """All units, in corpus order."""
        return read_plan(self.plan_content)

    @property
    def plan_content(self) -> bytes:
        """The bytes of `plan.parquet`."""
        return self.folder.read(PLAN) if self.plan_override is None else self.plan_override

    @cached_property
    def n_units(self) -> int:
        """The number of units."""
        return len(self.plan_names())

    def plan_names(self) -> pa.Table:
        """A table of all units in corpus order, with the columns unit and shard."""
        return plan_names(self.plan_content)

    @property
    @abstractmethod
    def score_column(self) -> str:
        """The column with the tokens' scores."""

    @property
    def grouped(self) -> bool:
        """True if the store has a column `group`."""
        return self.manifest["parts"]["group_column"] is not None

    @property
    def in_nats(self) -> bool:
        """True if the scores are in nats; False if they were made of imported values of another unit."""
        return self.manifest["parts"].get("unit") is None

    @property
    def score_label(self) -> str:
        """What people call the scores, such as "excess loss"."""
        if not self.in_nats:
            return "imported value" if self.score_column == "loss" else "difference of imported values"
        if self.manifest["parts"].get("derived", {}).get("from") == "kl":
            return "divergence"
        return {"excess": "excess loss", "delta": "fitted change of loss"}.get(self.score_column, self.score_column)

    @property
    def tokenizer_sha256(self) -> str:
        """SHA-256 of the tokenizer's files. If it is equal, the same text gives the same ids."""
        return str(self.manifest["parts"]["tokenizer_sha256"])

    def unit_table(self, unit: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of one unit, in input order."""
        return self.read_unit(unit, columns)[0]

    def read_unit(self, unit: str, columns: list[str] | None = None) -> tuple[pa.Table, JsonObject]:
        """The rows of one unit, and the metadata in its footer.

        Raises:
            RhoScoreError: the file is missing or damaged, or belongs to another run.
        """
        return unit_file.read(self._file(unit), columns)

    def columns_of(self, unit: str) -> pa.Schema:
        """The columns of a unit's file, with their types."""
        return unit_file.columns_of(self._file(unit))

    def row_groups(self, unit: str, columns: list[str]) -> Iterator[unit_file.RowGroup]:
        """Yields the row groups of a unit one by one."""
        return unit_file.row_groups(self._file(unit), columns)

    def row_group_at(self, unit: str, row: int, columns: list[str]) -> unit_file.RowGroup:
        """The row group that holds a row of a unit; raises IndexError if there is no such row."""
        return unit_file.row_group_at(self._file(unit), row, columns)

    def _file(self, unit: str) -> unit_file.UnitFile:
        return unit_file.UnitFile(self.folder, data_name(unit), self.manifest["fingerprint"], self.footer_fields)
