"""The deduplication job: writes a corpus again without its exact and near duplicates.

    OUT/manifest.json      what the output is made from, and how
    OUT/plan.parquet       the units of the corpus
    OUT/signatures/        MinHash signatures, in partitions by the keys of their bands (`sign`)
    OUT/pairs/             the similar pairs of each partition (`pairs`)
    OUT/data/              the kept documents (`write`)
    OUT/dropped/           the others, and why they were dropped
    OUT/parts/             counts and files of each part
    OUT/_SUCCESS.json      the totals and the largest clusters; written last

signatures/ and pairs/ are removed at the end. Until then, a run resumes from them: each task's JSON
file is written last. Which documents are kept depends on the corpus and the options alone.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import orjson

from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.config import DedupConfig
from rho_score.corpus.plan import Plan, make_plan
from rho_score.deduplicating.bands import Bands
from rho_score.deduplicating.counts import DedupCounts
from rho_score.deduplicating.decide import Decisions, decide
from rho_score.deduplicating.pairs import PAIRS, PairsTask, find_pairs
from rho_score.deduplicating.settings import DedupSettings, PartTask, check_options, parts_of, resolve_settings
from rho_score.deduplicating.sign import SIGNATURES, sign_part
from rho_score.deduplicating.write import PARTS, WriteTask, ids_of, write_part
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.paths import check_writable
from rho_score.files.urls import absolute
from rho_score.ranking.histogram import Group
from rho_score.stores.claim import claim, refuse_output_in_input
from rho_score.stores.layout import PLAN, SUCCESS
from rho_score.stores.signs import signs_of_life
from rho_score.stores.stages import remove_all, run_stage

LARGEST, MEMBERS = 10, 4


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Documents that are alike. One of them is kept."""

    documents: int
    kept: str
    """The id of the kept document."""
    dropped: list[str]
    """The ids of the first few others."""


@dataclass(frozen=True, kw_only=True)
class DedupSummary:
    """What was kept of a corpus."""

    output: str
    bands: Bands
    computed: int
    """Parts that this call wrote."""
    counts: DedupCounts
    groups: dict[Group, DedupCounts]
    clusters: list[Cluster]
    """The largest clusters."""
    files: int
    size: int
    """Bytes of the files in `data/`."""
    wall_s: float
    not_shards: tuple[str, ...] = field(default=())
    """Files of the input that were left out because their names are not those of shards."""


def dedup(config: DedupConfig) -> DedupSummary:
    """Writes a corpus without its duplicates, or goes on where an earlier run of the same command stopped.

    Raises:
        InputError: an option is wrong, or the corpus cannot be read.
        RhoScoreError: the run failed. What it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    config = replace(config, output=absolute(config.output))
    check_options(config)
    check_writable("OUTPUT", config.output)
    with joined() if not config.dry_run else nullcontext():
        plan = make_plan(config)
        refuse_output_in_input(Folder(config.output), config.input)
        settings, manifest = resolve_settings(config, plan)
        with _work_folder(config) as place:
            settings, output = replace(settings, output=place), Folder(place)
            if not config.dry_run:
                claim(output, manifest, {PLAN: plan.to_parquet()})
            n_before = len(output.listing(PARTS))
            if not output.exists(SUCCESS):
                with nullcontext() if config.dry_run else signs_of_life(output, "dedup"):
                    with nullcontext() if config.dry_run else cluster_or_threads():
                        content = _run(config, settings, plan)
                    output.publish(SUCCESS, dump_json(content))
            for folder in (SIGNATURES, PAIRS):
                remove_all(output, folder)
            content = orjson.loads(output.read(SUCCESS))
    return DedupSummary(
        output=config.output,
        bands=settings.bands,
        computed=len(content["parts"]) - n_before,
        counts=DedupCounts(**content["counts"]),
        groups={row.pop("group"): DedupCounts(**row) for row in content["groups"]},
        clusters=[Cluster(**cluster) for cluster in content["clusters"]],
        files=content["files"],
        size=content["bytes"],
        wall_s=time.monotonic() - started,
        not_shards=plan.not_shards,
    )


@contextmanager
def _work_folder(config: DedupConfig) -> Iterator[str]:
    """The folder that files are written to: the output, or a temporary folder in a dry run."""
    if not config.dry_run:
        yield config.output
        return
    with tempfile.TemporaryDirectory(prefix="rho-score-dedup-") as folder:
        yield folder


def _run(config: DedupConfig, settings: DedupSettings, plan: Plan) -> JsonObject:
    """Runs the stages; returns the content of `_SUCCESS.json`."""
    output, workers = Folder(settings.output), config.workers
    parts = parts_of(plan, config.units_per_part)
    names = tuple(part.name for part in parts)
    sign = [PartTask(settings=settings, part=part) for part in parts]
    signed = run_stage("sign", output, SIGNATURES, sign, sign_part, workers=workers)
    compare = [PairsTask(settings=settings, partition=i, parts=names) for i in range(settings.partitions)]
    pairs = run_stage("compare", output, PAIRS, compare, find_pairs, workers=workers)
    counted = [tuple(signed[name]["documents"]) for name in names]
    decisions = decide(output, list(pairs), [sum(of) for of in counted])
    write = [
        WriteTask(settings=settings, part=part, documents=of, decisions=decisions.of_part(part.number))
        for part, of in zip(parts, counted, strict=True)
    ]
    done = run_stage("write", output, PARTS, write, write_part, workers=workers)
    groups: dict[Group, DedupCounts] = {}
    for part in done.values():
        for row in part["groups"]:
            group = row["group"]
            counts = DedupCounts(**{name: value for name, value in row.items() if name != "group"})
            groups[group] = groups.get(group, DedupCounts()) + counts
    total = sum(groups.values(), DedupCounts())
    sizes = [size for part in done.values() for size in part["files"].values()]
    return {
        "counts": asdict(total),
        "groups": [{"group": group, **asdict(counts)} for group, counts in groups.items()],
        "clusters": _largest(output, names, decisions),
        "files": len(sizes),
        "bytes": sum(sizes),
        "parts": done,
    }


def _largest(output: Folder, parts: Sequence[str], decisions: Decisions) -> list[JsonObject]:
    found = []
    for root, n_documents in decisions.largest(LARGEST):
        numbers = np.array([root, *decisions.members(root, MEMBERS)], np.int64)
        kept, *dropped = ids_of(output, list(parts), decisions.starts, numbers)
        found.append({"documents": n_documents, "kept": kept, "dropped": dropped})
    return found
