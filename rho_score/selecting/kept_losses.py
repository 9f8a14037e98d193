"""The mean loss of the tokens that selections keep and drop, under several models.

Two figures of the Rho-1 paper are such tables (Lin et al. 2024, arXiv 2404.07965): the loss of
selected and of unselected tokens over the training, and the perplexity of the tokens that one
checkpoint selects under all the others.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from rho_score.charts import check_plot, image, image_kind, lines_figure
from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.cluster.tasks import in_order, in_tasks
from rho_score.config import LossesConfig
from rho_score.errors import InputError
from rho_score.files.arrow import as_numpy, flat_values
from rho_score.files.folder import file_at
from rho_score.files.paths import check_writable
from rho_score.ranking.histogram import Group
from rho_score.safe_text import spreadsheet_cell
from rho_score.selecting.batches import Batch, batches_of, fetched
from rho_score.selecting.inputs import of_its_units
from rho_score.selecting.join import Join
from rho_score.selecting.row_ranges import JoinedUnit
from rho_score.stores.comparable import comparable, cut_otherwise
from rho_score.stores.counts import group_codes
from rho_score.stores.names import absolute_named
from rho_score.stores.reopened import Reopened
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection


@dataclass(frozen=True, kw_only=True)
class KeptLoss:
    """The losses of a selection's tokens under one model, of a group or of all documents."""

    selection: str
    scores: str
    group: Group
    """None for documents without a group, and for `LossesSummary.rows`."""
    kept: int
    dropped: int
    kept_nats: float
    """Sum over the kept tokens."""
    dropped_nats: float

    @property
    def loss_kept(self) -> float:
        """Mean loss of the kept tokens, nats; NaN without any."""
        return self.kept_nats / self.kept if self.kept else math.nan

    @property
    def loss_dropped(self) -> float:
        """Mean loss of the dropped tokens, nats; NaN without any."""
        return self.dropped_nats / self.dropped if self.dropped else math.nan


@dataclass(frozen=True, kw_only=True)
class LossesSummary:
    """The losses of every selection under every score set, in the order in which they were given."""

    rows: list[KeptLoss]
    """Over all documents."""
    groups: list[KeptLoss]
    """By group, in the order of their names; empty if the corpus has no groups."""
    left_out: int
    """Tokens that have no loss under one of the score sets."""


@dataclass(frozen=True, kw_only=True)
class LossCounter(Reopened):
    """Counts the losses of any unit. It is small, and is sent to every worker."""

    join: Join
    selections: dict[str, str]
    """URLs by name."""
    grouped: bool

    @cached_property
    def _selections(self) -> dict[str, Selection]:
        return {name: Selection.open(url) for name, url in self.selections.items()}

    def count(self, batch: Batch) -> tuple[list[Group], np.ndarray, int]:
        """The groups of a batch, their sums, and the tokens without a loss.

        Sums: float64[n_groups, n_selections, n_scores, 4] of kept and dropped tokens, and of the
        nats of either.
        """
        sums: dict[Group, np.ndarray] = {}
        left_out = 0
        for unit in batch.units:
            names, counted, missing = self._unit(unit)
            left_out += missing
            for name, of in zip(names, counted, strict=True):
                sums[name] = sums[name] + of if name in sums else of
        shape = (0, len(self.selections), len(self.join.refs), 4)
        return list(sums), np.stack(list(sums.values())) if sums else np.zeros(shape), left_out

    def _unit(self, unit: JoinedUnit) -> tuple[list[Group], np.ndarray, int]:
        found = self.join.losses(unit, ["doc_id", *(["group"] if self.grouped else [])])
        losses = [found.by_url[url] for url in self.join.refs.values()]
        present = ~np.isnan(losses).any(axis=0)
        documents = found.documents
        of = documents["group"].combine_chunks() if self.grouped else pa.nulls(len(documents), pa.string())
        codes, names = group_codes(of)
        owners = np.repeat(codes, found.lengths)[present]
        sums = np.zeros((len(names), len(self.selections), len(losses), 4))
        for s, selection in enumerate(self._selections.values()):
            kept = as_numpy(flat_values(selection.mask_of(unit.unit, documents["doc_id"])))[present]
            counts = [np.bincount(owners, of_kind, len(names)) for of_kind in (kept, ~kept)]
            for m, loss in enumerate(losses):
                nats = [np.bincount(owners, np.where(k, loss[present], 0.0), len(names)) for k in (kept, ~kept)]
                sums[:, s, m] = np.stack([*counts, *nats], axis=1)
        return names, sums, int((~present).sum())


def losses(config: LossesConfig) -> LossesSummary:
    """Computes the mean losses of kept and of dropped tokens.

    Raises:
        InputError: an option is wrong, or the stores are not of one corpus and tokenizer.
    """
    named = absolute_named(config.scores, "--scores", default="scores")
    selections = absolute_named(config.selection, "SELECTION", default="selection")
    _check(config, len(named))
    with joined():
        sets = [ScoreSet.open(url) for url in named.values()]
        main = sets[0]
        for name, scores in zip(named, sets, strict=True):
            comparable(main, scores, (next(iter(named)), name))
        for url in selections.values():
            if not of_its_units(main, Selection.open(url)):
                raise InputError(
                    f"{url} was not made from {main.folder.url} or a score set of the same corpus, tokenizer and units. Score "
                    "the corpus of the selection, with the same --unit-bytes."
                )
        join = Join(refs=named, base=None, combine="min", bits=16, vocabularies={})
        counter = LossCounter(join=join, selections=selections, grouped=main.grouped)
        with cluster_or_threads():
            summary = _run(counter, batches_of(main, cut_otherwise(main, sets)), config.workers)
    if config.csv:
        folder, name = file_at(config.csv)
        folder.publish(name, _csv(summary))
    if config.plot:
        folder, name = file_at(config.plot)
        folder.publish(
            name,
            image(
                _figure(summary, config.steps, f"mean {main.score_label} (nats)" if main.in_nats else "mean value"),
                image_kind(name),
            ),
        )
    return summary


def _check(config: LossesConfig, n_scores: int) -> None:
    if config.steps and len(config.steps) != n_scores:
        raise InputError(f"--steps says where each score set is. It needs {n_scores} numbers, got {len(config.steps)}.")
    if config.plot:
        check_plot(config.plot)
    if config.csv:
        check_writable("--csv", config.csv, file=True)


def _run(counter: LossCounter, batches: Sequence[Batch], workers: int | None) -> LossesSummary:
    sums: dict[Group, np.ndarray] = {}
    left_out = 0
    with Progress("losses", n_units=sum(len(batch.units) for batch in batches)) as progress:
        counted = fetched(in_tasks(partial(_count, counter), batches, workers=workers))
        for index, (groups, found, missing) in in_order(counted):  # so that sums of floats are always the same
            left_out += missing
            progress.add(units=len(batches[index].units))
            for group, of in zip(groups, found, strict=True):
                sums[group] = sums[group] + of if group in sums else of
    names = sorted(sums, key=lambda group: (group is None, group or ""))
    shape = (len(counter.selections), len(counter.join.refs), 4)
    whole = sum((sums[name] for name in names), np.zeros(shape))
    by_group = [row for name in names for row in _rows(counter, name, sums[name])]
    return LossesSummary(
        rows=_rows(counter, None, whole), groups=by_group if counter.grouped else [], left_out=left_out
    )


def _count(counter: LossCounter, batch: Batch) -> tuple[list[Group], np.ndarray, int]:
    return counter.count(batch)


def _rows(counter: LossCounter, group: Group, sums: np.ndarray) -> list[KeptLoss]:
    return [
        KeptLoss(
            selection=selection,
            scores=scores,
            group=group,
            kept=int(sums[s, m, 0]),
            dropped=int(sums[s, m, 1]),
            kept_nats=float(sums[s, m, 2]),
            dropped_nats=float(sums[s, m, 3]),
        )
        for s, selection in enumerate(counter.selections)
        for m, scores in enumerate(counter.join.refs)
    ]


def _csv(summary: LossesSummary) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # keeps a \r in its row
    writer.writerow(["documents", "group", "selection", "scores", "kept", "dropped", "loss_kept", "loss_dropped"])
    for documents, rows in (("all", summary.rows), ("group", summary.groups)):
        for row in rows:
            place = (documents, spreadsheet_cell(row.group or ""), row.selection, row.scores)
            writer.writerow([*place, row.kept, row.dropped, row.loss_kept, row.loss_dropped])
    return sink.getvalue().encode()


def _figure(summary: LossesSummary, steps: tuple[float, ...], label: str) -> Figure:
    by_selection: dict[str, list[KeptLoss]] = {}
    for row in summary.rows:
        by_selection.setdefault(row.selection, []).append(row)
    lines: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    for name, rows in by_selection.items():
        places = steps or tuple(range(len(rows)))
        lines[f"{name}, kept" if len(by_selection) == 1 else name] = (places, [row.loss_kept for row in rows])
        if len(by_selection) == 1:
            lines[f"{name}, dropped"] = (places, [row.loss_dropped for row in rows])
    return lines_figure(lines, x="step" if steps else "score set", y=label)
