"""The index of a store's documents and vocabulary: a DuckDB file that is made once, while the page is in use.

Units are read in a random order, so that what is listed meanwhile is a sample of the whole.
"""

import hashlib
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from rho_score.errors import InputError, RhoScoreError
from rho_score.files.arrow import as_arrow, as_numpy
from rho_score.ranking.histogram import Counter, Group, merge, without_groups
from rho_score.ranking.keys import Bits, values_of
from rho_score.stores.layout import SUCCESS
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import HISTOGRAM_SCHEMA
from rho_score.stores.store import Store
from rho_score.viewing.scan import RowGroupScan, columns_to_scan, scan

log = logging.getLogger(__name__)

FORMAT = 1  # of the file; another one is made again
KEPT_FILES = 16
UNFINISHED_S = 86_400.0  # an unfinished file that was not written for so long is nobody's any more
MOST_GROUPS = 256  # a group of a score set takes a quarter of a megabyte while it is counted
SNAPSHOT_S = 2.0

_TABLES = """
create table documents (
    unit integer, row integer, doc_id varchar, grp integer, tokens integer, scored integer, kept integer,
    mean float, doc_score float
);
create table groups (grp integer, name varchar);
create table vocabulary (id integer, count bigint, kept bigint, total double);
create table histogram (expert varchar, "group" varchar, value float, count bigint, tokens bigint);
"""


@dataclass(frozen=True)
class Progress:
    """How far the index is. error: why it ended before its time; empty if it did not."""

    units: int
    of: int
    documents: int
    ready: bool
    error: str = ""


class Index:
    """What the documents of one store are listed, sorted and filtered by."""

    def __init__(self, store: Store, folder: Path, groups: Sequence[Group] = ()) -> None:
        """folder: where files of indexes are kept. groups: those that are known beforehand."""
        self.store = store
        self._path = folder / f"{_name(store)}.duckdb"
        self._temporary = folder / f".{self._path.stem}.{uuid.uuid4().hex}.duckdb"
        self._group_names: list[Group] = list(groups)
        self._groups: dict[Group, int] = {name: i for i, name in enumerate(groups)}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)
        self._histogram: pa.Table | None = None
        self.version = 0
        """Grows whenever the histogram changes."""
        self._connection = self._open()

    def _open(self) -> duckdb.DuckDBPyConnection:
        """The finished file of an earlier run, else an empty one.

        Raises:
            InputError: the folder cannot be written to.
        """
        n_units = self.store.n_units
        if self._path.exists():
            try:
                return self._reopened(n_units)
            except duckdb.Error as error:  # damaged, or of another version of DuckDB
                log.warning(
                    "the index of an earlier time cannot be read and is made again: %s", str(error).partition("\n")[0]
                )
        self._progress = Progress(0, n_units, 0, n_units == 0)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _forget_unfinished(self._path.parent)
            made = _limited(duckdb.connect(str(self._temporary)))
        except (OSError, duckdb.IOException) as error:
            raise InputError(
                f"the index cannot be kept in {self._path.parent}: {error}. Choose another folder with --cache."
            ) from error
        made.execute(_TABLES)
        return made

    def _reopened(self, n_units: int) -> duckdb.DuckDBPyConnection:
        """The finished file of an earlier run.

        Raises:
            duckdb.Error: it cannot be read.
        """
        found = _limited(duckdb.connect(str(self._path), read_only=True))
        names = found.execute("select name from groups order by grp").fetchall()
        ((documents,),) = found.execute("select count(*) from documents").fetchall()
        table = found.sql("select * from histogram").to_arrow_table().cast(HISTOGRAM_SCHEMA)
        self._group_names = [name for (name,) in names]
        self._groups = {name: i for i, name in enumerate(self._group_names)}
        self._histogram = table if len(table) else None
        with suppress(OSError):  # a folder that one may only read
            os.utime(self._path)
        self._progress = Progress(n_units, n_units, documents, True)
        return found

    def start(self) -> None:
        """Begins to read the store, unless the index is ready."""
        if not self._progress.ready:
            self._thread.start()

    def wait(self) -> None:
        """Waits until the index is ready, or has ended with an error."""
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        """Stops reading, and removes what is not finished."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._connection.close()
        for path in (self._temporary, Path(f"{self._temporary}.wal")):
            path.unlink(missing_ok=True)

    @property
    def progress(self) -> Progress:
        """How far the index is."""
        return self._progress

    @property
    def group_names(self) -> list[Group]:
        """The groups that were seen so far; a group's number is its place in this list."""
        return self._group_names

    @property
    def counts_groups(self) -> bool:
        """False if the losses of a score set are counted as a whole, because there are too many groups."""
        return not isinstance(self.store, ScoreSet) or len(self._group_names) <= MOST_GROUPS

    def group_number(self, name: Group) -> int | None:
        """The number of a group; None if it was not seen yet."""
        return self._groups.get(name)

    @property
    def histogram(self) -> pa.Table | None:
        """Of a score set: its losses as in `histogram.parquet`, as far as they are counted."""
        return self._histogram

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The answer to a query; safe to call from any thread."""
        with self._lock, self._connection.cursor() as cursor:  # DuckDB does not close a connection that is asked
            return cursor.execute(query, list(values)).fetchall()

    def _run(self) -> None:
        try:
            self._fill()
        except (RhoScoreError, OSError, duckdb.Error) as error:
            now = self._progress
            self._progress = Progress(now.units, now.of, now.documents, False, str(error))

    def _fill(self) -> None:
        writer, vocabulary = self._connection.cursor(), np.zeros((3, 0))
        bits: Bits = self.store.loss_bits if isinstance(self.store, ScoreSet) else 16  # type: ignore[assignment]
        counter = _Losses(bits) if isinstance(self.store, ScoreSet) else None
        n_documents, last = 0, 0.0
        for done, found in enumerate(self._scans(), 1):
            for part in found:
                vocabulary = _added(vocabulary, part.vocabulary)
                documents = self._with_group_numbers(part)
                writer.register("part", documents)
                writer.execute("insert into documents by name select * from part")
                writer.unregister("part")
                n_documents += len(documents)
                if counter is not None:
                    counter.add(part)
            if counter is not None and time.monotonic() - last > SNAPSHOT_S:
                self._histogram, last, self.version = counter.table(), time.monotonic(), self.version + 1
            if self._stop.is_set():
                return
            self._progress = Progress(done, self._progress.of, n_documents, False)
        self._finish(writer, vocabulary, counter.table() if counter else None)

    def _scans(self) -> Iterator[list[RowGroupScan]]:
        """Yields what is in each unit; two units are read at a time."""
        units = [unit.unit for unit in self.store.units]
        columns = columns_to_scan(self.store, self.store.columns_of(units[0]).names)

        def read(unit: int) -> list[RowGroupScan]:
            if self._stop.is_set():
                return []
            return [scan(self.store, unit, *group) for group in self.store.row_groups(units[unit], columns)]

        waiting: deque[Future[list[RowGroupScan]]] = deque()
        with ThreadPoolExecutor(2, thread_name_prefix="scan") as pool:
            for unit in np.random.default_rng(0).permutation(len(units)).tolist():
                waiting.append(pool.submit(read, unit))
                if len(waiting) > 2:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _with_group_numbers(self, part: RowGroupScan) -> pa.Table:
        numbers = []
        for name in part.groups:
            if name not in self._groups:
                self._groups[name] = len(self._group_names)
                self._group_names.append(name)
            numbers.append(self._groups[name])
        owners = np.array(numbers, np.int32)[part.owners]
        at = part.documents.schema.get_field_index("grp")
        return part.documents.set_column(at, "grp", as_arrow(owners))

    def _finish(self, writer: duckdb.DuckDBPyConnection, vocabulary: np.ndarray, histogram: pa.Table | None) -> None:
        """Writes what is known at the end only, and opens the file again under its name."""
        used = np.flatnonzero(vocabulary[0])
        counts, kept, total = vocabulary[:, used]
        tables = {
            "groups": pa.table(
                {
                    "grp": pa.array(range(len(self._group_names)), pa.int32()),
                    "name": pa.array(self._group_names, pa.string()),
                }
            ),
            "vocabulary": pa.table(
                {
                    "id": used.astype(np.int32),
                    "count": counts.astype(np.int64),
                    "kept": kept.astype(np.int64),
                    "total": total,
                }
            ),
            **({"histogram": histogram} if histogram is not None else {}),
        }
        for name, table in tables.items():
            writer.register("part", table)
            writer.execute(f"insert into {name} by name select * from part")
            writer.unregister("part")
        self._histogram, self.version = histogram, self.version + 1
        writer.execute("checkpoint")
        writer.close()
        with self._lock:
            self._connection.close()
            self._temporary.rename(self._path)
            self._connection = _limited(duckdb.connect(str(self._path), read_only=True))
        _forget_old(self._path.parent)
        now = self._progress
        self._progress = Progress(now.of, now.of, now.documents, True)


class _Losses:
    """Counts the losses of a score set by group, or as a whole from the moment on that there are too many groups."""

    def __init__(self, bits: Bits) -> None:
        self._bits, self._counter = bits, Counter(bits)
        self._names: set[Group] = set()
        self._before: list[pa.Table] = []

    def add(self, part: RowGroupScan) -> None:
        """Counts what is in a row group."""
        self._names.update(part.groups)
        owners, groups = part.owners, part.groups
        if len(self._names) > MOST_GROUPS:
            if not self._before:
                self._before, self._counter = [without_groups(self._counter.table())], Counter(self._bits)
            owners, groups = np.zeros_like(owners), [None]
        self._counter.add(None, part.scores, part.lengths, owners, groups)

    def table(self) -> pa.Table:
        """The counts so far, with the columns of `histogram.parquet`."""
        counts = merge([*self._before, self._counter.table()])
        values = as_arrow(values_of(as_numpy(counts["key"]), self._bits))
        return counts.set_column(counts.schema.get_field_index("key"), "value", values).cast(HISTOGRAM_SCHEMA)


def _added(sums: np.ndarray, more: np.ndarray) -> np.ndarray:
    """The sum of two arrays [3, n_ids], of which one may know more ids."""
    if more.shape[1] > sums.shape[1]:
        sums, more = more.copy(), sums
    sums[:, : more.shape[1]] += more
    return sums


def _name(store: Store) -> str:
    """What tells a store from every other: its fingerprint and what it holds now."""
    done = store.folder.read(store.done_name)
    about = f"{FORMAT} {duckdb.__version__} {store.manifest['fingerprint']} {hashlib.sha256(done).hexdigest()}"
    return (
        f"{'scores' if store.done_name == SUCCESS else 'selection'}-{hashlib.sha256(about.encode()).hexdigest()[:24]}"
    )


def _limited(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """The connection, which reads no files and no network but its own file."""
    connection.execute("set enable_external_access = false")
    return connection


def _forget_unfinished(folder: Path) -> None:
    """Removes what processes that were killed have left."""
    for path in folder.glob(".s*-*.duckdb*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > UNFINISHED_S:
                path.unlink()


def _forget_old(folder: Path) -> None:
    """Removes all but the indexes that were used last."""
    found = sorted(folder.glob("s*-*.duckdb"), key=lambda path: path.stat().st_mtime)
    for path in found[:-KEPT_FILES]:
        path.unlink(missing_ok=True)
