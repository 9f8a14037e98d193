"""Token dynamics: how each token's loss went over checkpoints of one model, in the four categories of Rho-1.

A line is fitted to the losses of a token at the checkpoints; delta is its end minus its start. delta < -fall: H→L, learnt;
delta > rise: L→H; else L→L where the last loss is at most the mean of all last losses, and H→H where it is above it
(Lin et al. 2024, arXiv 2404.07965). The result is a selection: its score is delta, its mask the categories asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.charts import check_plot, image_kind
from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.config import DynamicsConfig
from rho_score.errors import InputError
from rho_score.files.arrow import as_numpy, flat_values, list_column, list_lengths
from rho_score.files.folder import Folder, file_at
from rho_score.files.parquet import parquet_bytes
from rho_score.files.paths import check_writable
from rho_score.files.urls import absolute
from rho_score.ranking.histogram import NO_COUNTS, Counter, Group, merge
from rho_score.ranking.keys import round_score
from rho_score.ranking.scores import UnitScores, score_lists
from rho_score.ranking.trends import CATEGORIES, categories, fitted_change
from rho_score.selecting.batches import Batch, batches_of, written
from rho_score.selecting.counts import count_groups, group_codes
from rho_score.selecting.inputs import claim_selection, comparable, cut_otherwise
from rho_score.selecting.join import Join
from rho_score.selecting.row_ranges import JoinedUnit
from rho_score.stores.counts import GroupCounts, group_counts_in
from rho_score.stores.layout import HISTOGRAM, SUMMARY, data_name, published_units
from rho_score.stores.manifest import dump_json, new_manifest, relative_url
from rho_score.stores.schema import SCHEMA_VERSION, dynamics_schema
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection, histogram_file
from rho_score.stores.shapes import DynamicsSummaryFile, read_json
from rho_score.stores.unit_file import footers


@dataclass(frozen=True, kw_only=True)
class DynamicsSummary:
    """How many tokens each category has, by group, and what the mask keeps."""

    output: str
    units: int
    computed: int
    groups: dict[Group, GroupCounts]
    shares: dict[Group, dict[str, int]]
    """Tokens by group and category."""
    total: GroupCounts


def dynamics(config: DynamicsConfig) -> DynamicsSummary:
    """Categorise every token, or go on where an earlier run of the same command stopped.

    Raises:
        InputError: fewer than two score sets, or sets that do not belong together.
        RhoScoreError: the run failed; what it published stays, and the same command resumes it.
    """
    steps = _check(config)
    with joined():
        return _dynamics(config, steps)


def _dynamics(config: DynamicsConfig, steps: tuple[float, ...]) -> DynamicsSummary:
    config = replace(config, output=absolute(config.output), scores=tuple(map(absolute, config.scores)))
    sets = [ScoreSet.open(url) for url in config.scores]
    main, output = sets[0], Folder(config.output)
    for i, scores in enumerate(sets[1:], 1):
        comparable(main, scores, ("checkpoint 0", f"checkpoint {i}"))
    last = sets[-1].summary
    manifest = _manifest(config, sets, steps)
    sorter = Sorter(
        join=Join(
            refs={str(i): url for i, url in enumerate(config.scores)},
            base=None,
            combine="min",
            bits=16,
            vocabularies={},
        ),
        config=config,
        steps=steps,
        mean_last=last["total_nats"] / last["losses"] if last["losses"] else 0.0,
        fingerprint=manifest["fingerprint"],
        grouped=main.grouped,
    )
    claim_selection(config.output, manifest, main)
    done = published_units(output)
    computed = 0
    if not (output.exists(SUMMARY) and len(done) == main.n_units):
        with cluster_or_threads():
            batches = batches_of(main, cut_otherwise(main, sets))
            computed = _run(config, sorter, batches, done)
    summary = _summary(config, read_json(output, SUMMARY, DynamicsSummaryFile), main.n_units, computed)
    if config.plot:
        from rho_score import charts

        folder, name = file_at(config.plot)
        folder.publish(name, charts.image(charts.shares_figure(plotted(summary)), image_kind(name)))
    return summary


def _run(config: DynamicsConfig, sorter: "Sorter", batches: Sequence[Batch], done: set[str]) -> int:
    """Write the units, the histogram and the summary; how many units were written."""
    histogram = NO_COUNTS

    def add(counted: pa.Table) -> None:
        nonlocal histogram
        histogram = merge([histogram, counted])

    items = ((batch, done.intersection(batch.names)) for batch in batches)
    computed, groups = written(
        "dynamics", partial(_sort_batch, sorter), items, batches, workers=config.workers, each=add
    )
    output = Folder(config.output)
    output.publish(HISTOGRAM, histogram_file(histogram, 16))
    by_category = histogram.group_by(["group", "expert"]).aggregate([("count", "sum")]).to_pylist()
    names = sorted(groups, key=lambda group: (group is None, group or ""))
    counts = {(row["group"], row["expert"]): row["count_sum"] for row in by_category}
    content = {
        "units": sum(len(batch.units) for batch in batches),
        "score": "delta",
        "level": "token",
        "keep": "low",
        "high_first": False,
        "bits": 16,
        "groups": [{"group": group, **asdict(groups[group])} for group in names],
        "thresholds": [],
        "mean_last_loss": sorter.mean_last,
        "categories": [{"group": group, **{c: counts.get((group, c), 0) for c in CATEGORIES}} for group in names],
    }
    output.publish(SUMMARY, dump_json(content))
    return computed


def _summary(config: DynamicsConfig, content: Mapping[str, Any], units: int, computed: int) -> DynamicsSummary:
    groups = group_counts_in(content)
    return DynamicsSummary(
        output=config.output,
        units=units,
        computed=computed,
        groups=groups,
        shares={row["group"]: {c: row[c] for c in CATEGORIES} for row in content["categories"]},
        total=sum(groups.values(), GroupCounts()),
    )


def plotted(summary: DynamicsSummary) -> list[tuple[str, dict[str, float]]]:
    """Shares of the categories: of the whole and of each group, the largest first."""
    every = {c: sum(counts[c] for counts in summary.shares.values()) for c in CATEGORIES}
    rows = [("all", every)]
    if len(summary.shares) > 1:
        largest = sorted(summary.shares.items(), key=lambda item: -sum(item[1].values()))
        rows += [("(none)" if group is None else group, counts) for group, counts in largest]
    return [
        (name, {c: n / total for c, n in counts.items()}) for name, counts in rows if (total := sum(counts.values()))
    ]


def _check(config: DynamicsConfig) -> tuple[float, ...]:
    """Where the checkpoints are; raises InputError."""
    n = len(config.scores)
    if n < 2:
        raise InputError(f"--scores needs the score sets of two checkpoints or more, got {n}.")
    if config.steps and len(config.steps) != n:
        raise InputError(f"--steps says where each checkpoint is: {n} numbers, got {len(config.steps)}.")
    if any(not b > a for a, b in zip(config.steps, config.steps[1:], strict=False)):
        raise InputError("--steps must rise: the earliest checkpoint first.")
    if not (config.rise >= 0 and config.fall >= 0):
        raise InputError(f"--rise and --fall are nats, not negative; got {config.rise} and {config.fall}.")
    if config.plot:
        check_plot(config.plot)
    check_writable("OUTPUT", config.output)
    return config.steps or tuple(float(i) for i in range(n))


def _manifest(config: DynamicsConfig, sets: Sequence[ScoreSet], steps: tuple[float, ...]) -> dict[str, Any]:
    main = sets[0]
    parts = {
        "schema_version": SCHEMA_VERSION,
        "scores": {f"checkpoint-{i}": scores.manifest["fingerprint"] for i, scores in enumerate(sets)},
        "held": {f"checkpoint-{i}": scores.held for i, scores in enumerate(sets)},
        "main": "checkpoint-0",
        "score": "delta",
        "level": "token",
        "per_group": False,
        "steps": steps,
        "rise": config.rise,
        "fall": config.fall,
        "categories": [c for c in CATEGORIES if c in config.keep],
        "group_column": main.manifest["parts"]["group_column"],
        "tokenizer_sha256": main.tokenizer_sha256,
    }
    places = {f"checkpoint-{i}": relative_url(url, config.output) for i, url in enumerate(config.scores)}
    return new_manifest("selection", parts, scores=places)


@dataclass(frozen=True, kw_only=True)
class Sorter:
    """The categories of any unit; small, and sent to every worker."""

    join: Join
    config: DynamicsConfig
    steps: tuple[float, ...]
    mean_last: float
    fingerprint: str
    grouped: bool

    @cached_property
    def _output(self) -> Folder:
        return Folder(self.config.output)

    def write(self, unit: JoinedUnit) -> tuple[dict[str, Any], pa.Table]:
        """Publish a unit; its metadata and its table."""
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

    def read(self, unit: str) -> tuple[dict[str, Any], pa.Table]:
        """A published unit: its metadata and what is counted of its table."""
        columns = ["delta", "category", *(["group"] if self.grouped else [])]
        return next(footers(self._output, [unit])), Selection(self._output).unit_table(unit, columns)


def _sort_batch(sorter: Sorter, item: tuple[Batch, set[str]]) -> tuple[int, dict[Group, GroupCounts], pa.Table]:
    """Write a batch: how many units that were, its accounts, and its histogram of delta, a category for an expert."""
    batch, published = item
    counter, groups = Counter(16), dict[Group, GroupCounts]()
    for unit in batch.units:
        metadata, table = sorter.read(unit.unit) if unit.unit in published else sorter.write(unit)
        for group, one in group_counts_in(metadata).items():
            groups[group] = groups.get(group, GroupCounts()) + one
        delta = as_numpy(flat_values(table["delta"])).astype(np.float32)
        codes = as_numpy(pc.fill_null(flat_values(table["category"]), -1))
        groups_of = table["group"].combine_chunks() if sorter.grouped else pa.nulls(len(table), pa.string())
        owners, found = group_codes(groups_of)
        for code, name in enumerate(CATEGORIES):
            counter.add(name, np.where(codes == code, delta, np.nan), list_lengths(table["delta"]), owners, found)
    return len(batch.units) - len(published), groups, counter.table()
