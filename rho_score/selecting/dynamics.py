"""Token dynamics: how each token's loss changes over checkpoints, in the four categories of Rho-1.

A line is fitted to the losses of a token at the checkpoints of one model, and delta is its end
minus its start. The category is H→L (learnt) if delta < -fall, and L→H if delta > rise. Otherwise
it is L→L if the last loss is at most the mean of all last losses, and H→H if it is above that mean
(Lin et al. 2024, arXiv 2404.07965). The result is a selection: its score is delta, and its mask
keeps the categories that were asked for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import pyarrow as pa

from rho_score.charts import check_plot, image_kind
from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.config import DynamicsConfig
from rho_score.errors import InputError
from rho_score.files.folder import Folder, file_at
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.paths import check_writable
from rho_score.files.urls import absolute
from rho_score.ranking.histogram import NO_COUNTS, Group, merge
from rho_score.ranking.trends import CATEGORIES
from rho_score.selecting.batches import Batch, batches_of, written
from rho_score.selecting.categorize import CategoryWriter, write_batch
from rho_score.selecting.inputs import claim_selection
from rho_score.selecting.join import Join
from rho_score.stores.comparable import comparable, cut_otherwise
from rho_score.stores.counts import GroupCounts, group_counts_in
from rho_score.stores.layout import HISTOGRAM, SUMMARY, published_units
from rho_score.stores.manifest import new_manifest, relative_url
from rho_score.stores.schema import SCHEMA_VERSION
from rho_score.stores.score_set import ScoreSet, require_nats
from rho_score.stores.selection import histogram_file
from rho_score.stores.shapes import DynamicsSummaryFile, read_json
from rho_score.stores.signs import signs_of_life


@dataclass(frozen=True, kw_only=True)
class DynamicsSummary:
    """How many tokens each category has, by group, and what the mask keeps."""

    output: str
    units: int
    computed: int
    """Units that this call wrote."""
    groups: dict[Group, GroupCounts]
    """By the group's name; one group, None, if there are none."""
    shares: dict[Group, dict[str, int]]
    """Tokens by group and category."""
    total: GroupCounts


def dynamics(config: DynamicsConfig) -> DynamicsSummary:
    """Categorises every token, or goes on where an earlier run of the same command stopped.

    Raises:
        InputError: an option is wrong, or the score sets do not belong together.
        RhoScoreError: the run failed. What it published stays, and the same command resumes it.
    """
    steps = _check(config)
    with joined():
        return _dynamics(config, steps)


def _dynamics(config: DynamicsConfig, steps: tuple[float, ...]) -> DynamicsSummary:
    config = replace(config, output=absolute(config.output), scores=tuple(map(absolute, config.scores)))
    sets = [ScoreSet.open(url) for url in config.scores]
    main, output = sets[0], Folder(config.output)
    require_nats(main, "dynamics")
    for i, scores in enumerate(sets[1:], 1):
        comparable(main, scores, ("checkpoint 0", f"checkpoint {i}"))
    last = sets[-1].summary
    manifest = _manifest(config, sets, steps)
    writer = CategoryWriter(
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
        with signs_of_life(output, "dynamics"), cluster_or_threads():
            batches = batches_of(main, cut_otherwise(main, sets))
            computed = _run(config, writer, batches, done)
    summary = _summary(config, read_json(output, SUMMARY, DynamicsSummaryFile), main.n_units, computed)
    if config.plot:
        from rho_score import charts

        folder, name = file_at(config.plot)
        folder.publish(name, charts.image(charts.shares_figure(plotted(summary)), image_kind(name)))
    return summary


def _run(config: DynamicsConfig, writer: CategoryWriter, batches: Sequence[Batch], done: set[str]) -> int:
    """Writes the units, the histogram and the summary; returns how many units were written."""
    histogram = NO_COUNTS

    def add(counted: pa.Table) -> None:
        nonlocal histogram
        histogram = merge([histogram, counted])

    items = ((batch, done.intersection(batch.names)) for batch in batches)
    computed, groups = written(
        "dynamics", partial(write_batch, writer), items, batches, workers=config.workers, each=add
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
        "mean_last_loss": writer.mean_last,
        "categories": [{"group": group, **{c: counts.get((group, c), 0) for c in CATEGORIES}} for group in names],
    }
    output.publish(SUMMARY, dump_json(content))
    return computed


def _summary(config: DynamicsConfig, content: JsonObject, units: int, computed: int) -> DynamicsSummary:
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
    """The share of each category in the whole and in each group, the largest group first."""
    every = {c: sum(counts[c] for counts in summary.shares.values()) for c in CATEGORIES}
    rows = [("all", every)]
    if len(summary.shares) > 1:
        largest = sorted(summary.shares.items(), key=lambda item: -sum(item[1].values()))
        rows += [("(none)" if group is None else group, counts) for group, counts in largest]
    return [
        (name, {c: n / total for c, n in counts.items()}) for name, counts in rows if (total := sum(counts.values()))
    ]


def _check(config: DynamicsConfig) -> tuple[float, ...]:
    """The steps of the checkpoints. Raises InputError if an option is wrong."""
    n = len(config.scores)
    if n < 2:
        raise InputError(f"--scores needs the score sets of two checkpoints or more, got {n}.")
    if config.steps and len(config.steps) != n:
        raise InputError(f"--steps says where each checkpoint is. It needs {n} numbers, got {len(config.steps)}.")
    if any(not b > a for a, b in zip(config.steps, config.steps[1:], strict=False)):
        raise InputError("--steps must rise. Give the earliest checkpoint first.")
    if not (config.rise >= 0 and config.fall >= 0):
        raise InputError(f"--rise and --fall must not be negative, got {config.rise} and {config.fall} nats.")
    if config.plot:
        check_plot(config.plot)
    check_writable("OUTPUT", config.output)
    return config.steps or tuple(float(i) for i in range(n))


def _manifest(config: DynamicsConfig, sets: Sequence[ScoreSet], steps: tuple[float, ...]) -> JsonObject:
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
