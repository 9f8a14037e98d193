"""What is published in a store of any kind: how much of how much, and what it holds.

Counts are exact for a finished store and for one of which at most `SAMPLE` files are published. Of
more files, evenly spaced ones are read, and the counts are estimated from them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypedDict, TypeVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.config import TuneConfig
from rho_score.corpus.plan import Plan, read_plan
from rho_score.deduplicating.settings import parts_of
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.parquet import BROKEN, footer, read_table
from rho_score.stores.counts import GroupCounts, ScoreCounts, group_counts_in
from rho_score.stores.layout import (
    PLAN,
    SUCCESS,
    SUMMARY,
    data_name,
    published_units,
    quarantine_name,
    quarantined_units,
)
from rho_score.stores.manifest import resolve_relative
from rho_score.stores.schema import QUARANTINE
from rho_score.stores.shapes import SelectionSummary, Totals, read_json
from rho_score.stores.training_run import TrainingRun
from rho_score.tuning.candidates import candidates_of, rungs_of
from rho_score.watching.reasons import by_reason

SAMPLE = 256
"""Files that are read at most, of each kind."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is published in a store."""

    finished: bool
    """True if the command that wrote it has nothing left to do."""
    unit: str = "units"
    """What `done` and `of` count, in the plural."""
    done: int
    of: int | None
    """None if it is not known from the storage."""
    counts: dict[str, int] = field(default_factory=dict)
    """What is in the published units, by name."""
    exact: bool = True
    """False if the counts are estimated from some of the files."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Quarantined documents by their reason, the most frequent first."""
    reasons_exact: bool = True


class _Plan(NamedTuple):
    units: list[str]
    text_bytes: dict[str, int]


class _Counted(TypedDict):
    counts: dict[str, int]


class _Exported(TypedDict):
    counts: dict[str, int]
    parts: dict[str, JsonObject]
    bytes: int


class _Trained(TypedDict):
    steps: int
    tokens_seen: int
    tokens_trained: int


def contents_of(output: Folder, manifest: JsonObject) -> Contents:
    """What the store with this manifest holds.

    Raises:
        InputError: one of its summaries is damaged.
        RhoScoreError: the storage failed.
    """
    kinds: dict[str, Callable[[Folder, JsonObject], Contents]] = {
        "score set": _score_set, "selection": _selection, "export": _export, "training run": _training_run,
        "tuning": _tuning, "deduplicated corpus": _deduplicated,
    }  # fmt: skip
    return kinds[manifest["kind"]](output, manifest)


def _score_set(output: Folder, _: JsonObject) -> Contents:
    plan = _read_plan(output)
    quarantined = sorted(quarantined_units(output))
    reasons, reasons_exact = _reasons(output, quarantined)
    there = published_units(output)
    done = [unit for unit in plan.units if unit in there]
    if output.exists(SUCCESS) and len(done) == len(plan.units):
        totals = ScoreCounts.of(read_json(output, SUCCESS, Totals))
        counts = _score_counts(asdict(totals), sum(plan.text_bytes.values()))
        return Contents(
            finished=True, done=len(plan.units), of=len(plan.units), counts=counts, reasons=reasons,
            reasons_exact=reasons_exact,
        )  # fmt: skip
    sample = _sampled(done)
    found = _read_each(sample, lambda unit: ScoreCounts.of(_footer(output, data_name(unit))["accounts"]))
    n_bytes = sum(plan.text_bytes[unit] for unit in done)
    exact = len(found) == len(done)
    sampled_bytes = sum(plan.text_bytes[unit] for unit in found)
    scale = 1.0 if exact else n_bytes / sampled_bytes if sampled_bytes else len(done) / max(1, len(found))
    total = _scaled(asdict(ScoreCounts.total(found.values())), scale)
    return Contents(
        finished=False, done=len(done), of=len(plan.units) or None, counts=_score_counts(total, n_bytes), exact=exact,
        reasons=reasons, reasons_exact=reasons_exact,
    )  # fmt: skip


def _score_counts(counts: Mapping[str, Any], text_bytes: int) -> dict[str, int]:
    names = ("documents", "scored", "quarantined", "tokens", "losses")
    return {name: int(counts[name]) for name in names} | {"text_bytes": text_bytes}


def _selection(output: Folder, _: JsonObject) -> Contents:
    plan, there = _read_plan(output), published_units(output)
    done = [unit for unit in plan.units if unit in there]
    if output.exists(SUMMARY) and len(done) == len(plan.units):
        groups = group_counts_in(read_json(output, SUMMARY, SelectionSummary))
        counts = _group_counts(sum(groups.values(), GroupCounts()), 1.0)
        return Contents(finished=True, done=len(done), of=len(plan.units), counts=counts)
    found = _read_each(
        _sampled(done), lambda unit: sum(group_counts_in(_footer(output, data_name(unit))).values(), GroupCounts())
    )
    scale = len(done) / max(1, len(found))
    total = _group_counts(sum(found.values(), GroupCounts()), scale)
    return Contents(
        finished=False, done=len(done), of=len(plan.units) or None, counts=total, exact=len(found) == len(done)
    )


def _group_counts(counts: GroupCounts, scale: float) -> dict[str, int]:
    names = ("documents", "documents_kept", "tokens", "tokens_kept")
    return {name: round(getattr(counts, name) * scale) for name in names}


def _export(output: Folder, manifest: JsonObject) -> Contents:
    if output.exists(SUCCESS):
        content = read_json(output, SUCCESS, _Exported)
        n = len(content["parts"])
        counts = {**content["counts"], "bytes": content["bytes"]}
        return Contents(finished=True, unit="parts", done=n, of=n, counts=counts)
    return _parts(output, of=_export_parts(output, manifest))


def _export_parts(output: Folder, manifest: JsonObject) -> int | None:
    """The parts that an export will have; None if the store that it is made of cannot be found."""
    if manifest.get("source") is None:
        return None
    try:
        source = Folder(resolve_relative(output, manifest["source"]))
        return -(-len(_read_plan(source).units) // int(manifest["parts"]["units_per_part"])) or None
    except (RhoScoreError, OSError):
        return None


def _deduplicated(output: Folder, manifest: JsonObject) -> Contents:
    if output.exists(SUCCESS):
        content = read_json(output, SUCCESS, _Exported)
        n = len(content["parts"])
        return Contents(finished=True, unit="parts", done=n, of=n, counts=content["counts"])
    units = read_plan(output.read(PLAN)) if output.exists(PLAN) else ()
    of = len(parts_of(Plan(root="", units=units), int(manifest["parts"]["units_per_part"])))
    return _parts(output, of=of or None)


def _parts(output: Folder, *, of: int | None) -> Contents:
    """What an unfinished store holds whose parts have a JSON file each, with counts of their own or by group."""
    done = sorted(name for name in output.names("parts") if name.endswith(".json"))
    found = _read_each(_sampled(done), lambda name: _part_counts(orjson.loads(output.read(f"parts/{name}"))))
    total: Counter[str] = Counter()
    for counts in found.values():
        total.update(counts)
    return Contents(
        finished=False, unit="parts", done=len(done), of=of, counts=_scaled(total, len(done) / max(1, len(found))),
        exact=len(found) == len(done),
    )  # fmt: skip


def _part_counts(part: JsonObject) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in part.get("groups", [part.get("counts", {})]):
        total.update({name: int(value) for name, value in row.items() if name != "group"})
    return total


def _training_run(output: Folder, manifest: JsonObject) -> Contents:
    if output.exists(SUCCESS):
        done = read_json(output, SUCCESS, _Trained)
        counts = {name: done[name] for name in ("tokens_seen", "tokens_trained")}
        return Contents(finished=True, unit="steps", done=done["steps"], of=done["steps"], counts=counts)
    log = TrainingRun(output).log()
    rows = log.slice(max(0, len(log) - 1)).to_pylist()
    counts = {name: int(rows[0][name]) for name in ("tokens_seen", "tokens_trained")} if rows else {}
    of = manifest["parts"].get("length", {}).get("steps")
    return Contents(finished=False, unit="steps", done=int(rows[0]["step"]) if rows else 0, of=of, counts=counts)


def _tuning(output: Folder, manifest: JsonObject) -> Contents:
    parts = manifest["parts"]
    config = TuneConfig(
        model="", output="", scores=(), eval=(), base="base" if "base" in parts["scores"] else None, seeds=parts["seeds"],
        ratio=tuple(parts["ratio"]), documents=tuple(parts["documents"]), learning_rate=tuple(parts["learning_rate"]),
    )  # fmt: skip
    of = sum(rung.n_candidates * rung.n_seeds for rung in rungs_of(len(candidates_of(config)), config.seeds))
    runs = [
        f"trials/{name}/{run}" for name in output.names("trials") - {"timing"} for run in output.names(f"trials/{name}")
    ]
    with ThreadPoolExecutor(16) as pool:
        done = sum(pool.map(lambda run: output.exists(f"{run}/{SUCCESS}"), runs))
    return Contents(finished=output.exists(SUCCESS), unit="runs", done=done, of=of)


def _read_plan(output: Folder) -> _Plan:
    """The units of a store in corpus order; none if the plan is not written yet."""
    if not output.exists(PLAN):
        return _Plan([], {})
    schema = pa.schema(
        [pa.field("unit", pa.string(), nullable=False), pa.field("text_bytes", pa.int64(), nullable=False)]
    )
    table = read_table(output.read(PLAN), schema, f"{output.url}/{PLAN}")
    units = table["unit"].to_pylist()
    return _Plan(units, dict(zip(units, table["text_bytes"].to_pylist(), strict=True)))


def _reasons(output: Folder, units: Sequence[str]) -> tuple[dict[str, int], bool]:
    """The quarantined documents of these units by their reason, and whether the counts are exact."""

    def read(unit: str) -> list[str]:
        name = quarantine_name(unit)
        table = read_table(output.read(name), QUARANTINE, f"{output.url}/{name}")
        reasons: list[str] = table["reason"].to_pylist()
        return reasons

    found = _read_each(_sampled(units), read)
    counts = by_reason(reason for reasons in found.values() for reason in reasons)
    return _scaled(counts, len(units) / max(1, len(found))), len(found) == len(units)


def _footer(folder: Folder, name: str) -> JsonObject:
    with folder.open_mapped(name) as file:
        return footer(pq.ParquetFile(file))


def _sampled(names: Sequence[str]) -> list[str]:
    """At most `SAMPLE` of the names, evenly spaced."""
    n = min(SAMPLE, len(names))
    return [names[i * len(names) // n] for i in range(n)]


def _read_each(names: Sequence[str], read: Callable[[str], T]) -> dict[str, T]:
    """What `read` returns for each name. Files that are gone or damaged are left out: a run may be replacing them."""

    def tried(name: str) -> list[T]:
        try:
            return [read(name)]
        except (InputError, *BROKEN):
            return []

    with ThreadPoolExecutor(16) as pool:
        return {name: found[0] for name, found in zip(names, pool.map(tried, names), strict=True) if found}


def _scaled(counts: Mapping[str, Any], scale: float) -> dict[str, int]:
    return {name: round(value * scale) for name, value in counts.items()}
