"""The tasks of an export: each reads the documents of some units and writes the files of a part.

A part's counts (`parts/<part>.json`) are written after its files, so a part that has them is
complete. A task that runs again writes the same bytes. Nothing here imports torch, so that a new
node starts quickly.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa

from rho_score.corpus.units import Unit
from rho_score.corpus.whole_rows import JsonlRows, ParquetRows, jsonl_rows, whole_rows
from rho_score.errors import RhoScoreError
from rho_score.exporting.counts import ExportCounts
from rho_score.exporting.difficulty import KeyRange, document_ranks, read_range, run_file, tokens_by_key
from rho_score.exporting.joined import PIECES, SPLITS, in_val
from rho_score.exporting.original_rows import rows_to_keep
from rho_score.exporting.pairs import pair_rows
from rho_score.exporting.settings import ExportSettings
from rho_score.exporting.writer import Writer
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.stores.framing import Documents
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Task:
    """A call of `work(settings, name, *rest)`, which writes <name>.json and returns its content.

    n_units: how many units the progress counts for it.
    """

    name: str
    n_units: int
    work: Callable[..., JsonObject]
    settings: ExportSettings
    rest: tuple[Any, ...]


def run_task(task: Task) -> JsonObject:
    """Does the task's work; returns what it returns."""
    return task.work(task.settings, task.name, *task.rest)


def token_part(settings: ExportSettings, part: str, units: tuple[Unit, ...]) -> JsonObject:
    """Writes consecutive units in a token format; returns the content of `parts/<part>.json`."""
    splits, counts = _Splits(settings), ExportCounts()
    for unit in units:
        documents, _, seen = _trainable(settings, unit)
        splits.add(documents)
        counts += seen
    return _publish(settings, part, splits.files(), counts + splits.counts())


class _Splits:
    """The writer of a part or, if parts are joined, one for each of `train` and `val`."""

    def __init__(self, settings: ExportSettings) -> None:
        self._join, self._share = settings.join, settings.val_share
        self._writers = [settings.writer() for _ in (SPLITS if settings.join else SPLITS[:1])]

    def add(self, documents: Documents) -> None:
        """Appends documents."""
        if not self._share:
            self._writers[0].add(documents)
            return
        val = np.repeat(in_val(documents, self._share), documents.lengths)
        for writer, chosen in zip(self._writers, (~val, val), strict=True):
            writer.add(documents.trainable(documents.mask & chosen)[0])

    def files(self) -> dict[str, bytes]:
        """The files by what follows the part's name."""
        if not self._join:
            return self._writers[0].files()
        named = zip(SPLITS, self._writers, strict=True)
        return {f".{split}{ending}": data for split, writer in named for ending, data in writer.files().items()}

    def counts(self) -> ExportCounts:
        """What was written."""
        return sum((_written(writer) for writer in self._writers), ExportCounts())


def sort_part(settings: ExportSettings, run: str, units: tuple[Unit, ...]) -> JsonObject:
    """Writes consecutive units as a sorted run; returns its counts and its tokens by key."""
    read = [_trainable(settings, unit) for unit in units]
    documents = Documents(
        doc_ids=pa.concat_arrays([d.doc_ids for d, _, _ in read]),
        lengths=np.concatenate([d.lengths for d, _, _ in read]),
        input_ids=np.concatenate([d.input_ids for d, _, _ in read]),
        mask=np.concatenate([d.mask for d, _, _ in read]),
    )
    scores = np.concatenate([scores for _, scores, _ in read])
    ranks = document_ranks(scores, documents.lengths, hard_first=settings.hard_first)
    keys, tokens = tokens_by_key(ranks, documents.lengths)
    folder = Folder(settings.output)
    folder.publish(f"runs/{run}.parquet", run_file(documents, ranks))
    seen = [
        ExportCounts(documents=c.documents, tokens=c.tokens) for _, _, c in read
    ]  # the parts count what is exported
    content = {"counts": asdict(reduce(ExportCounts.__add__, seen)), "keys": keys, "tokens": tokens}
    folder.publish(f"runs/{run}.json", dump_json(content))
    return content


def range_part(settings: ExportSettings, part: str, runs: tuple[str, ...], keys: KeyRange) -> JsonObject:
    """Writes a range of the order by difficulty; returns the content of `parts/<part>.json`.

    Its counts leave out the selection's documents and tokens, which the runs count.
    """
    splits, counts = _Splits(settings), ExportCounts()
    for documents in read_range(Folder(settings.output), [f"runs/{run}.parquet" for run in runs], keys):
        splits.add(documents)
        counts += _exported(documents)
    return _publish(settings, part, splits.files(), counts + splits.counts())


def original_part(settings: ExportSettings, part: str, units: tuple[Unit, ...]) -> JsonObject:
    """Writes the kept documents of consecutive units with all their own columns.

    Returns the content of `parts/<part>.json`.
    """
    assert settings.corpus is not None
    selection, counts = Selection(Folder(settings.selection)), ExportCounts()
    tables, lines = ParquetRows(), JsonlRows(settings.compression)
    for unit in units:
        keep = rows_to_keep(settings.corpus, selection, unit)
        if settings.format == "parquet":
            for table in whole_rows(settings.corpus.root, unit, keep):
                tables.add(table)
        else:
            for line in jsonl_rows(settings.corpus.root, unit, keep):
                lines.add(line)
        counts += _whole(selection, unit)
    return _publish(settings, part, (tables if settings.format == "parquet" else lines).files(), counts)


def pair_part(settings: ExportSettings, part: str, units: tuple[Unit, ...]) -> JsonObject:
    """Writes the pairs of consecutive units; returns the content of `parts/<part>.json`."""
    assert settings.corpus is not None
    scores, counts, lines = ScoreSet(Folder(settings.selection)), ExportCounts(), JsonlRows(settings.compression)
    for unit in units:
        rows, of_unit = pair_rows(settings.corpus, scores, unit, settings.margins)
        for row in rows:
            lines.add(row)
        counts += of_unit
    return _publish(settings, part, lines.files(), counts)


def _trainable(settings: ExportSettings, unit: Unit) -> tuple[Documents, np.ndarray, ExportCounts]:
    """The documents of a unit that have a token to train on, their scores, and the unit's counts.

    The scores are float32[n_tokens]; NaN means no score.
    """
    read, scores = settings.source.read(unit.unit)
    mask = read.mask.copy()
    mask[read.starts[settings.first_is_no_target(read)]] = False
    documents, keep = read.trainable(mask)
    ids = documents.input_ids
    if len(ids) and not 0 <= ids.min() <= ids.max() < settings.vocabulary:
        raise RhoScoreError(
            f"unit {unit.unit} of {settings.selection} holds the token id {ids.min() if ids.min() < 0 else ids.max()}, but the "
            f"ids of its tokenizer are 0 to {settings.vocabulary - 1}. The store was made with another tokenizer than the "
            "one in its folder. Make it again."
        )
    counts = ExportCounts(documents=len(read.lengths), tokens=len(read.input_ids))
    return documents, scores[np.repeat(keep, read.lengths)], counts + _exported(documents)


def _exported(documents: Documents) -> ExportCounts:
    n_tokens, n_kept = len(documents.input_ids), int(documents.mask.sum())
    return ExportCounts(documents_exported=len(documents.lengths), tokens_exported=n_tokens, tokens_kept=n_kept)


def _whole(selection: Selection, unit: Unit) -> ExportCounts:
    table = selection.unit_table(unit.unit, ["mask", "kept"])
    kept = as_numpy(table["kept"])
    lengths = list_lengths(table["mask"])
    n_tokens = int(lengths[kept].sum())
    return ExportCounts(
        documents=len(table),
        documents_exported=int(kept.sum()),
        tokens=int(lengths.sum()),
        tokens_exported=n_tokens,
        tokens_kept=int(as_numpy(flat_values(table["mask"])).sum()),
        tokens_written=n_tokens,
        tokens_trained=n_tokens,
    )


def _written(writer: Writer) -> ExportCounts:
    return ExportCounts(tokens_written=writer.written, tokens_trained=writer.trained)


def _publish(settings: ExportSettings, part: str, files: dict[str, bytes], counts: ExportCounts) -> JsonObject:
    folder = Folder(settings.output)
    for suffix, data in files.items():
        folder.publish(f"{PIECES if settings.join else 'data'}/{part}{suffix}", data)
    sizes = {f"{part}{suffix}": len(data) for suffix, data in files.items()}
    content = {"counts": asdict(counts), "files": sizes}
    folder.publish(f"parts/{part}.json", dump_json(content))
    return content
