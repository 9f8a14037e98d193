"""Reads the documents that a selection keeps from the original shards, with all their own columns.

Rows are matched by place and by id. The documents of a unit in input order, without those that were
quarantined, must be the selection's documents in their order. Anything else is an error that names
the unit and the first difference.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.corpus.columns import Columns
from rho_score.corpus.documents import check_unchanged, documents
from rho_score.corpus.formats import format_of
from rho_score.corpus.plan import root_of
from rho_score.corpus.units import Unit
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.arrow import as_numpy
from rho_score.files.folder import Folder
from rho_score.stores.layout import quarantine_name
from rho_score.stores.selection import Selection

Compression = Literal["none", "gzip", "zstd"]
_ENDINGS = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The corpus that a selection was made from.

    moved: True if the shards are copies, whose times of change and etags differ.
    """

    root: Folder
    moved: bool
    columns: Columns
    quarantine: Folder
    """The folder of the score set, which lists the quarantined documents."""

    def check(self, unit: Unit) -> None:
        """Raises RhoScoreError if the unit's shard is not the one that was scored."""
        if not self.moved:
            check_unchanged(self.root, unit)
        elif (size := self.root.info(unit.shard).size) != unit.size:
            raise RhoScoreError(
                f"{self.root.url}/{unit.shard} has {size} bytes, but the shard that was scored had {unit.size}. "
                "Give the same files with --input."
            )


def corpus_root(url: str) -> Folder:
    """The folder that shards are named from, if a corpus is given as a folder, a file or a glob."""
    root, kind = root_of(url)
    if kind == "folder" and not root.exists():
        raise InputError(f"there is nothing at {url}. Give the place of the corpus with --input.")
    return root


def rows_to_keep(corpus: Corpus, selection: Selection, unit: Unit) -> np.ndarray:
    """True for each document of the unit that is kept, bool[n_documents].

    Documents are in input order, and the quarantined ones are included.

    Raises:
        RhoScoreError: the shard has changed, or its documents are not those of the selection.
    """
    table = selection.unit_table(unit.unit, ["doc_id", "kept"])
    places = scored_places(corpus, table["doc_id"].to_pylist(), unit)
    kept = np.append(as_numpy(table["kept"]), False)  # the place -1 has none
    found: np.ndarray = kept[places]
    return found


def scored_places(corpus: Corpus, chosen: list[str], unit: Unit) -> np.ndarray:
    """The row of a store that each document of a unit has, int64[n_documents]; -1 if it was quarantined.

    Documents are in input order. chosen: the ids of the store's rows.

    Raises:
        RhoScoreError: the shard has changed, or its documents are not those of the store.
    """
    corpus.check(unit)
    found = [(document.doc_id, document.error) for document in documents(corpus.root, unit, corpus.columns)]
    lost = _lost_in_scoring(corpus, unit, found)
    places, at = np.full(len(found), -1, np.int64), 0
    for row, (doc_id, error) in enumerate(found):
        expected = chosen[at] if at < len(chosen) else None
        if error is not None:
            continue
        if lost[doc_id]:
            if doc_id == expected:
                raise _mismatch(
                    corpus, unit, row, f"the id {doc_id!r} is both scored and quarantined, but it must be unique"
                )
            lost[doc_id] -= 1
            continue
        if doc_id != expected:
            raise _mismatch(corpus, unit, row, f"the input has {doc_id!r}, but the selection has {expected!r}")
        places[row] = at
        at += 1
    if at < len(chosen):
        raise _mismatch(corpus, unit, len(found), f"the input ends, but the selection has {chosen[at]!r}")
    return places


def kept_rows(corpus: Corpus, unit: Unit, keep: np.ndarray) -> Iterator[pa.Table | bytes]:
    """The kept rows of a unit with all their columns: tables or lines, see `corpus.formats.Format.ROWS`."""
    return format_of(unit).rows(corpus.root, unit, keep)


def jsonl_rows(corpus: Corpus, unit: Unit, keep: np.ndarray) -> Iterator[bytes]:
    """The kept rows of a unit as lines of JSON.

    Lines of JSON stay as they are. Rows of tables are written as JSON: a date or time as ISO 8601, a
    decimal number or a duration (in seconds) as a string, binary data as base64, and NaN as null.
    """
    for found in kept_rows(corpus, unit, keep):
        if isinstance(found, bytes):
            yield found
        else:
            for row in found.to_pylist():
                yield orjson.dumps(row, default=_as_json, option=orjson.OPT_APPEND_NEWLINE)


class ParquetRows:
    """Parquet files in memory, with the tables' own schema. A new schema begins a new file."""

    def __init__(self) -> None:
        self._sinks: list[io.BytesIO] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Appends a table as a row group."""
        if self._writer is None or not self._writer.schema.equals(table.schema):
            self._close()
            self._sinks.append(io.BytesIO())
            self._writer = pq.ParquetWriter(self._sinks[-1], table.schema, compression="zstd", write_page_checksum=True)
        self._writer.write_table(table, row_group_size=len(table))

    def files(self) -> dict[str, bytes]:
        """The files by what follows the part's name: .parquet, -1.parquet, -2.parquet …"""
        self._close()
        return {f"-{i}.parquet" if i else ".parquet": sink.getvalue() for i, sink in enumerate(self._sinks)}

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class JsonlRows:
    """A JSONL file in memory, compressed as it grows."""

    def __init__(self, compression: Compression) -> None:
        self._ending, self._any = _ENDINGS[compression], False
        self._sink = pa.BufferOutputStream()
        self._stream = self._sink if compression == "none" else pa.CompressedOutputStream(self._sink, compression)

    def add(self, line: bytes) -> None:
        """Appends a line."""
        self._any = True
        self._stream.write(line)

    def files(self) -> dict[str, bytes]:
        """The file by its ending; empty if there was no line."""
        if self._stream is not self._sink:
            self._stream.close()
        return {self._ending: self._sink.getvalue().to_pybytes()} if self._any else {}


def _lost_in_scoring(corpus: Corpus, unit: Unit, found: list[tuple[str, str | None]]) -> Counter[str]:
    """How many documents of each id could be read but were quarantined in scoring."""
    name = quarantine_name(unit.unit)
    if not corpus.quarantine.exists(name):
        listed: Counter[str] = Counter()
    else:
        listed = Counter(
            pq.ParquetFile(io.BytesIO(corpus.quarantine.read(name))).read(["doc_id"])["doc_id"].to_pylist()
        )
    unread = Counter(doc_id for doc_id, error in found if error is not None)
    if missing := unread - listed:
        doc_id = next(iter(missing))
        row = next(i for i, (found_id, error) in enumerate(found) if found_id == doc_id and error is not None)
        raise _mismatch(
            corpus, unit, row, f"{doc_id!r} cannot be read now, but it could when it was scored: {found[row][1]}"
        )
    return listed - unread


def _mismatch(corpus: Corpus, unit: Unit, row: int, what: str) -> RhoScoreError:
    return RhoScoreError(
        f"unit {unit.unit} ({corpus.root.url}/{unit.shard}), document {row} from its start: {what}. This corpus is not the "
        "one that was scored. Give the right corpus with --input, or its score set with --scores."
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON. Use --format parquet.")
