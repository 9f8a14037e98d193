"""A store as the page shows it: its numbers per token, those of the score sets behind it, and its tokenizer."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rho_score.files.urls import without_credentials
from rho_score.ranking.trends import CATEGORIES
from rho_score.safe_text import visible
from rho_score.stores.counts import GroupCounts, group_counts_in
from rho_score.stores.lineage import score_sets_behind
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from rho_score.stores.unit_file import RowGroup
from rho_score.viewing.index import Index
from rho_score.viewing.thresholds import Thresholds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CACHED_BYTES = 512 << 20
_OWN = {"doc_id", "group", "input_ids"}


@dataclass(frozen=True)
class Layer:
    """One number of each token that a heat map can show."""

    key: str
    """The name of the score set, if it is not the store itself, and of the column: `ref.entropy`."""
    label: str
    source: str
    """The name of the score set; empty for the store itself."""
    column: str
    unit: str
    kind: str
    """"number", "rank" (from 0, for a logarithmic scale), "share" (from 0 to 1), "category" or "mask"."""


class ShownStore:
    """One of the stores of a page."""

    def __init__(self, store: ScoreSet | Selection, *, given: Mapping[str, str | None], cache: Path) -> None:
        """given: where score sets behind the store are, by name. cache: the folder of indexes."""
        self.store = store
        self.behind: dict[str, ScoreSet] = {}
        if isinstance(store, Selection):
            names = {*store.manifest.get("scores", {}), *(name for name, place in given.items() if place)}
            self.behind = score_sets_behind(store, sorted(names), given)
        self.index = Index(store, cache, list(self.group_counts))
        self._tables: OrderedDict[tuple[str, int], RowGroup] = OrderedDict()
        self._lock = threading.Lock()
        self._thresholds: dict[str | None, tuple[int, Thresholds]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._tokenizer: Future[PreTrainedTokenizerBase] | None = None

    def start(self) -> None:
        """Begins to load the tokenizer and to make the index."""

        def load() -> "PreTrainedTokenizerBase":
            from rho_score.stores.tokenizer import load_store_tokenizer  # takes seconds, and the page needs it last

            return load_store_tokenizer(self.store)

        self._tokenizer = self._loader.submit(load)
        self.index.start()

    def close(self) -> None:
        """Ends what runs in the background."""
        self.index.close()
        self._loader.shutdown()

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The store's tokenizer; waits until it is loaded. Raises InputError if it does not load."""
        assert self._tokenizer is not None, "start() comes first"
        return self._tokenizer.result()

    @property
    def place(self) -> str:
        """Where the store is, fit to be shown."""
        return visible(without_credentials(self.store.folder.url))

    @cached_property
    def unit_names(self) -> list[str]:
        """The names of the units, by number."""
        return [unit.unit for unit in self.store.units]

    @cached_property
    def unit_numbers(self) -> dict[str, int]:
        """The numbers of the units, by name."""
        return {name: i for i, name in enumerate(self.unit_names)}

    @cached_property
    def columns(self) -> dict[str, pa.Schema]:
        """The columns of the files of the store ("") and of each score set behind it, which are those of any unit.

        They are empty if there is no unit.
        """
        stores = {"": self.store, **self.behind}
        first = next(iter(self.unit_names), None)
        return {name: pa.schema([]) if first is None else store.columns_of(first) for name, store in stores.items()}

    @cached_property
    def layers(self) -> list[Layer]:
        """Every number of a token that is stored, the ranked one first."""
        found = list(_layers("", self.store, self.columns[""]))
        found.sort(key=lambda layer: layer.column != self.store.score_column)
        for name, scores in self.behind.items():
            found += _layers(name, scores, self.columns[name])
        return found

    @cached_property
    def group_counts(self) -> dict[str | None, GroupCounts]:
        """What a selection keeps of each group; empty for a score set."""
        return group_counts_in(self.store.summary) if isinstance(self.store, Selection) else {}

    @property
    def rankings(self) -> list[str | None]:
        """The references that have a ranking each; [None] if there is one ranking."""
        if isinstance(self.store, Selection):
            return list(dict.fromkeys(row["expert"] for row in self.store.summary["thresholds"])) or [None]
        return [None]

    def thresholds(self, expert: str | None) -> Thresholds | None:
        """The histogram of a ranking; None if a score set's is not begun. Raises KeyError for an unknown ranking."""
        if expert not in self.rankings:
            raise KeyError(f"there is no ranking {expert!r}")
        version = self.index.version
        known = self._thresholds.get(expert)
        if known is not None and (known[0] == version or isinstance(self.store, Selection)):
            return known[1]
        if isinstance(self.store, Selection):
            table, high = self._selection_histogram, bool(self.store.summary["high_first"])
        else:
            table, high = self.index.histogram, True
        if table is None:
            return None
        mine = pa.array([name == expert for name in table["expert"].to_pylist()]) if expert is not None else None
        found = Thresholds(table if mine is None else table.filter(mine), high=high)
        self._thresholds[expert] = version, found
        return found

    @cached_property
    def _selection_histogram(self) -> pa.Table:
        assert isinstance(self.store, Selection)
        return self.store.histogram()

    def row_groups(self, unit: int, row: int) -> dict[str, RowGroup]:
        """What `row_group` finds in the store ("") and in each score set behind it that has such a row.

        Raises:
            IndexError: the store has no such unit or row.
        """

        def read(source: str) -> RowGroup | None:
            try:
                return self.row_group(source, unit, row)
            except IndexError:
                return None

        with ThreadPoolExecutor(1 + len(self.behind)) as pool:
            behind = pool.map(read, self.behind)
            found = {"": self.row_group("", unit, row)}
            return found | {name: group for name, group in zip(self.behind, behind, strict=True) if group is not None}

    def row_group(self, source: str, unit: int, row: int) -> RowGroup:
        """The row group that holds a row, with all columns that are shown; the last ones stay in memory.

        source: the name of a score set behind the store, or "" for the store itself.

        Raises:
            IndexError: there is no such unit or row.
        """
        if not 0 <= unit < len(self.unit_names) or row < 0:
            raise IndexError(f"there is no row {row} of unit {unit}")
        store = self.behind[source] if source else self.store
        with self._lock:
            for (name, number), found in self._tables.items():
                if (name, number) == (source, unit) and found.first_row <= row < found.first_row + len(found.table):
                    self._tables.move_to_end((name, number))
                    return found
        own = _OWN if not source else {"doc_id"}  # the tokens are those of the store itself
        wanted = [f.name for f in self.columns[source] if f.name in own or (f.name not in _OWN and _is_shown(f))]
        found = store.row_group_at(self.unit_names[unit], row, wanted)
        with self._lock:
            self._tables[source, unit] = found
            while len(self._tables) > 1 and sum(group.table.nbytes for group in self._tables.values()) > CACHED_BYTES:
                self._tables.popitem(last=False)
        return found


def _is_shown(field: Any) -> bool:
    return pa.types.is_list(field.type) or field.name in _OF_DOCUMENTS


_OF_DOCUMENTS = {"doc_score", "kept", "bytes", "ref_bits_per_byte", "base_bits_per_byte"}
_CATEGORY_UNIT = ", ".join(f"{i} {name}" for i, name in enumerate(CATEGORIES))


def _layers(source: str, store: ScoreSet | Selection, columns: pa.Schema) -> Iterator[Layer]:
    """The layers of a store's columns."""
    nats = "nats" if store.in_nats else ""
    for field in columns:
        if field.name in _OWN or not pa.types.is_list(field.type) or pa.types.is_list(field.type.value_type):
            continue
        kind, unit, label = _kind(field), "", field.name
        if field.name in (store.score_column, "entropy"):
            label = store.score_label if field.name == store.score_column else field.name
            unit = nats if field.name == store.score_column else "nats"
        elif kind == "category":
            unit = _CATEGORY_UNIT
        name = f"{source} {label}" if source else label
        yield Layer(f"{source}.{field.name}" if source else field.name, name, source, field.name, unit, kind)


def _kind(field: Any) -> str:
    if pa.types.is_boolean(field.type.value_type):
        return "mask"
    return {"rank": "rank", "weight": "share", "category": "category"}.get(field.name, "number")
