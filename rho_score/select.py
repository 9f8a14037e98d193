"""The selection job: pair units → excess → histogram → merge → threshold → mask → write.

Three passes over the units, each a Ray Data stage over many units a task: count, find the ties at the cut, write. Counting
leaves a small file a unit, so that a resumed run does not count again; the driver holds histograms, never scores.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import Dataset, TaskPoolStrategy

from rho_score.config import SelectConfig
from rho_score.engine import cluster
from rho_score.errors import InputError
from rho_score.histogram import Cut, cut_budget, cut_items, cut_threshold, merge
from rho_score.masks import Group, GroupAccounts, UnitSelector, accounts_in, share_ties
from rho_score.progress import Progress
from rho_score.schema import SCHEMA_VERSION
from rho_score.storage import Folder
from rho_score.store import (
    HISTOGRAM,
    PLAN,
    SUMMARY,
    ScoreSet,
    claim,
    difference,
    dump_json,
    footers,
    histogram_file,
    new_manifest,
    published_units,
    relative_url,
)

COMPARABLE = [
    "tokenizer_sha256",
    "context",
    "overlap",
    "prefix_id",
    "text_column",
    "id_column",
    "group_column",
]
UNITS_PER_TASK = 64


@dataclass(frozen=True, kw_only=True)
class SelectSummary:
    """What a selection kept. `groups`, `thresholds`: by group's name; one group, None, where there are none."""

    output: str
    units: int
    computed: int
    total: GroupAccounts
    groups: dict[Group, GroupAccounts]
    thresholds: dict[Group, float | None]
    per_group: bool
    wall_s: float

    def threshold_of(self, group: Group) -> float | None:
        """The threshold that applies to a group, nats; None where nothing was kept at any."""
        return self.thresholds.get(group if self.per_group else None)


def select(config: SelectConfig) -> SelectSummary:
    """Select tokens or documents, or go on where an earlier run of the same command stopped.

    Raises:
        InputError: wrong usage, or score sets that do not belong together.
        RhoScoreError: the run failed; what it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    selector, manifest, ref = _prepare(config)
    output, units = Folder(config.output), [unit.unit for unit in ref.units]
    tokenizer = {f"tokenizer/{name}": ref.folder.read(f"tokenizer/{name}") for name in ref.folder.listing("tokenizer")}
    claim(output, manifest, {PLAN: ref.folder.read(PLAN), **tokenizer})
    done = published_units(output)
    todo = [unit for unit in units if unit not in done]
    if todo or not output.exists(SUMMARY):
        with cluster(local_cpus=max(2, os.cpu_count() or 2)):
            content = _run(config, selector, units, todo)
        output.publish(SUMMARY, dump_json(content))
    content = orjson.loads(output.read(SUMMARY))
    groups = accounts_in(content)
    return SelectSummary(
        output=output.url,
        units=len(units),
        computed=len(todo),
        total=sum(groups.values(), GroupAccounts()),
        groups=groups,
        thresholds={row["group"]: row["threshold"] for row in content["thresholds"]},
        per_group=config.per_group,
        wall_s=time.monotonic() - started,
    )


def _run(config: SelectConfig, selector: UnitSelector, units: list[str], todo: list[str]) -> dict[str, Any]:
    """The whole job; returns the content of `summary.json`."""
    output, high = Folder(config.output), _keeps_high(config)
    counted = _over_units(units, _count_units, config.workers, selector=selector)
    histogram = merge(_blocks(counted))
    cuts = {group: _cut(config, rows, high=high) for group, rows in _by_group(histogram).items()}
    tied = _over_units(units, _tie_units, config.workers, selector=selector, cuts=cuts)
    quotas = _share(units, _blocks(tied), cuts)
    by_unit = {unit: {g: q[unit] for g, q in quotas.items() if unit in q} for unit in todo}
    every: list[Mapping[str, Any]] = list(footers(output, [unit for unit in units if unit not in by_unit]))
    with Progress("select", n_units=len(todo)) as progress:
        written = _over_units(todo, _write_units, config.workers, selector=selector, cuts=cuts, quotas=by_unit)
        for row in (row for block in _blocks(written) for row in block.to_pylist()):
            every.append(row)
            accounts = sum(accounts_in(row).values(), GroupAccounts())
            progress.add(documents=accounts.documents, tokens=accounts.tokens)
    output.publish(HISTOGRAM, histogram_file(histogram))
    groups: dict[Group, GroupAccounts] = defaultdict(GroupAccounts)
    for row in every:
        for group, accounts in accounts_in(row).items():
            groups[group] += accounts
    names = sorted(groups, key=lambda group: (group is None, group or ""))
    return {
        "units": len(units),
        "score": selector.score,
        "level": config.level,
        "keep": "high" if high else "low",
        "groups": [{"group": group, **asdict(groups[group])} for group in names],
        "thresholds": [
            {"group": group, "threshold": cut.threshold if cut.kept or cut.budget else None}
            for group, cut in cuts.items()
        ],
    }


def _over_units(units: list[str], work: Callable[..., pa.Table], workers: int | None, **arguments: Any) -> Dataset:
    """A Ray Data stage: `work` on tables of at most 64 units, in corpus order, `workers` at a time (None: Ray's choice)."""
    n_units = max(1, min(UNITS_PER_TASK, len(units) // 32))
    tables = [pa.table({"unit": pa.array(units[i : i + n_units], pa.string())}) for i in range(0, len(units), n_units)]
    dataset = ray.data.from_arrow(tables or [pa.table({"unit": pa.array([], pa.string())})])
    return dataset.map_batches(
        work,
        fn_kwargs=arguments,
        batch_size=None,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(size=workers),
    )


def _blocks(dataset: Dataset) -> Iterable[pa.Table]:
    return dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def _count_units(batch: pa.Table, *, selector: UnitSelector) -> pa.Table:
    return merge(selector.counts(unit) for unit in batch["unit"].to_pylist())


_TIES = pa.schema([("unit", pa.string()), ("group", pa.string()), ("tokens", pa.list_(pa.int64()))])


def _tie_units(batch: pa.Table, *, selector: UnitSelector, cuts: dict[Group, Cut]) -> pa.Table:
    rows = [
        {"unit": unit, "group": group, "tokens": tokens}
        for unit in batch["unit"].to_pylist()
        for group, tokens in selector.ties(unit, cuts).items()
    ]
    return pa.Table.from_pylist(rows, schema=_TIES)


_GROUP_FIELDS = [("group", pa.string()), *((name, pa.int64()) for name in GroupAccounts.__dataclass_fields__)]
_WRITTEN = pa.schema([("unit", pa.string()), ("groups", pa.list_(pa.struct(_GROUP_FIELDS)))])


def _write_units(
    batch: pa.Table, *, selector: UnitSelector, cuts: dict[Group, Cut], quotas: dict[str, dict[Group, int]]
) -> pa.Table:
    rows = []
    for unit in batch["unit"].to_pylist():
        groups = selector.write(unit, cuts, quotas[unit])
        rows.append({"unit": unit, "groups": [{"group": group, **asdict(a)} for group, a in groups.items()]})
    return pa.Table.from_pylist(rows, schema=_WRITTEN)


def _share(units: list[str], tied: Iterable[pa.Table], cuts: Mapping[Group, Cut]) -> dict[Group, dict[str, int]]:
    """By group and unit, how many items at the cut are kept: the first in corpus order."""
    found = {(row["group"], row["unit"]): row["tokens"] for block in tied for row in block.to_pylist()}
    return {
        group: share_ties(cut, {unit: found[group, unit] for unit in units if (group, unit) in found})
        for group, cut in cuts.items()
    }


def _by_group(histogram: pa.Table) -> dict[Group, pa.Table]:
    names = histogram["group"].unique().to_pylist()
    groups = {name: histogram.filter(pc.equal(histogram["group"], name)) for name in names if name is not None}
    if None in names or not names:
        groups[None] = histogram.filter(histogram["group"].is_null())
    return groups


def _cut(config: SelectConfig, histogram: pa.Table, *, high: bool) -> Cut:
    if config.threshold is not None:
        return cut_threshold(histogram, config.threshold, high=high)
    if config.ratio is not None:
        return cut_items(histogram, round(config.ratio * (pc.sum(histogram["count"]).as_py() or 0)), high=high)
    assert config.tokens is not None
    cut = cut_items if config.level == "token" else cut_budget
    return cut(histogram, config.tokens, high=high)


def _keeps_high(config: SelectConfig) -> bool:
    return config.base is not None if config.keep == "auto" else config.keep == "high"


def _prepare(config: SelectConfig) -> tuple[UnitSelector, dict[str, Any], ScoreSet]:
    """Open and compare the score sets; the manifest and the work on a unit."""
    _check_rule(config)
    ref, base = ScoreSet.open(config.ref), ScoreSet.open(config.base) if config.base else None
    if base and (differs := difference(ref.manifest["parts"], base.manifest["parts"], "ref", "base", COMPARABLE)):
        raise InputError(
            f"{config.ref} and {config.base} cannot be compared token by token:\n{differs}\n"
            "Score both models over the same files with the same tokenizer, context, overlap and columns."
        )
    if base and [unit.unit for unit in ref.units] != [unit.unit for unit in base.units]:
        raise InputError(
            f"{config.ref} ({len(ref.units)} units) and {config.base} ({len(base.units)}) are cut into different units. "
            "Score both models over the same files with the same --unit-bytes."
        )
    if config.per_group and not ref.grouped:
        raise InputError(f"--per-group needs groups, and {config.ref} has none: score with --group-column.")
    score = "excess" if base else "loss"
    parts = {
        "schema_version": SCHEMA_VERSION,
        "ref": ref.manifest["fingerprint"],
        "base": base.manifest["fingerprint"] if base else None,
        "score": score,
        "level": config.level,
        "keep": "high" if _keeps_high(config) else "low",
        "ratio": config.ratio,
        "tokens": config.tokens,
        "threshold": config.threshold,
        "per_group": config.per_group,
        "group_column": ref.manifest["parts"]["group_column"],
        "tokenizer_sha256": ref.manifest["parts"]["tokenizer_sha256"],
    }
    places = {
        name: relative_url(url, config.output) for name, url in (("ref", config.ref), ("base", config.base)) if url
    }
    manifest = new_manifest("selection", parts, scores=places)
    selector = UnitSelector(
        ref=config.ref,
        base=config.base,
        output=config.output,
        fingerprint=manifest["fingerprint"],
        level=config.level,
        per_group=config.per_group,
        score="excess" if base else "loss",
    )
    return selector, manifest, ref


def _check_rule(config: SelectConfig) -> None:
    rules = {"--ratio": config.ratio, "--tokens": config.tokens, "--threshold": config.threshold}
    given = [flag for flag, value in rules.items() if value is not None]
    if len(given) != 1:
        raise InputError(f"give exactly one of {', '.join(rules)}; got {' and '.join(given) or 'none'}.")
    if config.ratio is not None and not 0 <= config.ratio <= 1:
        raise InputError(f"--ratio is a share between 0 and 1, got {config.ratio}.")
    if config.tokens is not None and config.tokens < 0:
        raise InputError(f"--tokens is a number of tokens, got {config.tokens}.")
    if config.tokens is not None and config.per_group:
        raise InputError(
            "--per-group applies a ratio or a threshold within each group; a budget of --tokens is for the whole."
        )
