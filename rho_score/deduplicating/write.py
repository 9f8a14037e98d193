"""The last stage: a part's kept documents with all their own columns, and the list of the others.

data/<folder>/<part>.parquet or .jsonl   the kept rows, as they were
dropped/<part>.parquet                   what was left out, and why
parts/<part>.json                        the counts, and the sizes of the files; written last
"""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.corpus.documents import check_unchanged
from rho_score.corpus.formats import format_of
from rho_score.corpus.whole_rows import JsonlRows, ParquetRows, jsonl_rows, whole_rows
from rho_score.deduplicating.bands import estimated_similarity
from rho_score.deduplicating.counts import DedupCounts
from rho_score.deduplicating.decide import Decisions
from rho_score.deduplicating.pairs import EXACT
from rho_score.deduplicating.settings import PartTask
from rho_score.deduplicating.sign import DOCUMENTS, SIGNATURES
from rho_score.files.arrow import as_numpy
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.parquet import parquet_bytes, readable
from rho_score.ranking.histogram import Group

PARTS = "parts"
DROPPED = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("why", pa.string(), nullable=False),
        pa.field("kept_id", pa.string()),
        pa.field("similarity", pa.float32()),
        pa.field("reason", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class WriteTask(PartTask):
    """The task of a part."""

    documents: tuple[int, ...]
    """The number of documents of each of its units."""
    decisions: Decisions
    """Those of its documents."""


def write_part(task: WriteTask) -> JsonObject:
    """Writes the files of a part, unless it is a dry run; returns the content of its JSON file."""
    settings, part = task.settings, task.part
    folder = Folder(settings.output)
    table = documents_table(folder, part.name, DOCUMENTS.names)
    first = int(task.decisions.starts[part.number])
    kept = (task.decisions.roots == np.arange(first, first + len(table))) & table["error"].is_null().to_numpy()
    why = _why(task.decisions, table, kept)
    groups = _counts(table, why)
    files: dict[str, bytes] = {}
    if settings.write:
        files = _kept_rows(task, kept)
        for suffix, data in files.items():
            folder.publish(f"data/{part.folder}{part.name}{suffix}", data)
        dropped = _dropped(task, folder, table, why)
        folder.publish(f"dropped/{part.name}.parquet", parquet_bytes(dropped, DROPPED))
    content = {
        "groups": [{"group": group, **asdict(counts)} for group, counts in groups.items()],
        "files": {f"{part.folder}{part.name}{suffix}": len(data) for suffix, data in files.items()},
    }
    folder.publish(f"{PARTS}/{part.name}.json", dump_json(content))
    return content


def documents_table(folder: Folder, part: str, columns: list[str]) -> pa.Table:
    """These columns of `DOCUMENTS`, a row for each document of a part."""
    name = f"{SIGNATURES}/{part}.documents.parquet"
    with readable(folder, name), folder.open(name) as source:
        return pq.ParquetFile(source, page_checksum_verification=True).read(columns, use_threads=False)


def ids_of(folder: Folder, parts: list[str], starts: np.ndarray, numbers: np.ndarray) -> list[str]:
    """The ids of documents anywhere in the corpus, by their numbers, int64[n]."""
    of = np.searchsorted(starts, numbers, side="right") - 1
    ids = np.empty(len(numbers), object)

    def fill(part: int) -> None:
        there = np.flatnonzero(of == part)
        column = documents_table(folder, parts[part], ["doc_id"])["doc_id"]
        ids[there] = column.take(pa.array(numbers[there] - starts[part])).to_pylist()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(fill, np.unique(of).tolist()))
    return list(ids)


def _why(decisions: Decisions, table: pa.Table, kept: np.ndarray) -> np.ndarray:
    """What became of each document: "kept", "exact", "near" or "unreadable"."""
    unreadable = table["error"].is_valid().to_numpy()
    return np.select([unreadable, kept, decisions.equal == EXACT], ["unreadable", "kept", "exact"], "near")


def _counts(table: pa.Table, why: np.ndarray) -> dict[Group, DedupCounts]:
    """The counts of each group, in the order in which groups occur."""
    totals: dict[tuple[Group, str], list[int]] = defaultdict(lambda: [0, 0])
    groups = table["group"].to_pylist()
    for group, what, size in zip(groups, why.tolist(), as_numpy(table["bytes"]).tolist(), strict=True):
        total = totals[group, what]
        total[0] += 1
        total[1] += size
    found: dict[Group, DedupCounts] = {}
    for (group, what), (n, size) in totals.items():
        counts = DedupCounts(**{"documents": n, what: n, "bytes": size, "bytes_kept": size * (what == "kept")})
        found[group] = found.get(group, DedupCounts()) + counts
    return found


def _kept_rows(task: WriteTask, kept: np.ndarray) -> dict[str, bytes]:
    """The kept rows as files, by what follows the part's name."""
    root = Folder(task.settings.root)
    units = task.part.units
    in_parquet = format_of(units[0]).ROWS == "tables"
    tables, lines = ParquetRows(), JsonlRows("none" if units[0].format == ".jsonl" else "zstd")
    ends = np.cumsum(task.documents)[:-1]
    for unit, keep in zip(units, np.split(kept, ends), strict=True):
        check_unchanged(root, unit)
        if in_parquet:
            with readable(root, unit.shard):
                for table in whole_rows(root, unit, keep):
                    tables.add(table)
        else:
            for line in jsonl_rows(root, unit, keep):
                lines.add(line)
        check_unchanged(root, unit)
    return tables.files() if in_parquet else lines.files()


def _dropped(task: WriteTask, folder: Folder, table: pa.Table, why: np.ndarray) -> pa.Table:
    """The documents that are left out, in corpus order, with the columns of `DROPPED`."""
    rows = np.flatnonzero(why != "kept")
    twins = np.flatnonzero((why == "exact") | (why == "near"))
    decisions = task.decisions
    equal = decisions.equal[twins]
    similarity = np.where(equal == EXACT, 1.0, estimated_similarity(equal, task.settings.permutations))
    kept_id, similar = np.full(len(table), None, object), np.full(len(table), np.nan, np.float32)
    names = [f"part-{i:05}" for i in range(len(decisions.starts) - 1)]
    kept_id[twins] = ids_of(folder, names, decisions.starts, decisions.roots[twins])
    similar[twins] = np.where(equal > 0, similarity, np.nan)
    columns = [
        table["doc_id"].take(pa.array(rows)),
        pa.array(why[rows].tolist(), pa.string()),
        pa.array(kept_id[rows].tolist(), pa.string()),
        pa.array(similar[rows], pa.float32(), mask=np.isnan(similar[rows])),
        table["error"].take(pa.array(rows)),
    ]
    return pa.Table.from_arrays(columns, schema=DROPPED)
