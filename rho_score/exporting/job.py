"""The export job: writes a selection, part by part, as files that trainers read.

    OUT/manifest.json            what the export is made from, and how
    OUT/tokenizer/               the tokenizer, for token formats
    OUT/data/part-00000.…        the files of each part, see the modules of the formats
    OUT/parts/part-00000.json    the part's counts and sizes of files, written when it is complete
    OUT/pieces/                  the parts until they are joined, see `joined`
    OUT/_SUCCESS.json            the totals, and the counts and files of every part; written last

A part holds some consecutive units. If documents are ordered by difficulty, it is a range of that
order instead (`difficulty`). A document without a token to train on teaches nothing. It is left out
of every format, and the counts show how many there are.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import orjson

from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.config import ExportConfig
from rho_score.corpus.units import Unit
from rho_score.exporting.counts import ExportCounts
from rho_score.exporting.difficulty import cut_order
from rho_score.exporting.joined import PIECES, join
from rho_score.exporting.settings import ExportSettings, resolve_settings
from rho_score.exporting.tasks import Task, original_part, pair_part, range_part, run_task, sort_part, token_part
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.paths import check_writable
from rho_score.files.urls import absolute
from rho_score.stores.claim import claim
from rho_score.stores.layout import SUCCESS
from rho_score.stores.open import open_store
from rho_score.stores.signs import signs_of_life
from rho_score.stores.stages import remove_all, run_stage

RUNS = "runs"


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export wrote."""

    output: str
    format: str
    parts: int
    computed: int
    """Parts that this call wrote."""
    files: int
    size: int
    """Bytes of all files."""
    counts: ExportCounts
    wall_s: float


def export(config: ExportConfig) -> ExportSummary:
    """Exports a selection, or goes on where an earlier run of the same command stopped.

    Raises:
        InputError: an option is wrong, the selection is not finished, or the format needs something
            that is missing.
        RhoScoreError: the run failed. What it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    config = replace(config, selection=absolute(config.selection), output=absolute(config.output))
    output = Folder(config.output)
    check_writable("OUTPUT", config.output)
    with joined():
        selection = open_store(config.selection)
        settings, manifest = resolve_settings(config, selection)
        tokenizer = [] if settings.corpus else list(selection.folder.listing("tokenizer"))
        claim(output, manifest, {f"tokenizer/{name}": selection.folder.read(f"tokenizer/{name}") for name in tokenizer})
        n_before = len(output.listing("parts"))
        if not output.exists(SUCCESS):
            with signs_of_life(output, "export"):
                with cluster_or_threads():
                    content = _run(config, settings, selection.units)
                output.publish(SUCCESS, dump_json(content))
    if config.order != "corpus":
        remove_all(output, RUNS)
    if config.join or config.val_share:
        remove_all(output, PIECES)
    content = orjson.loads(output.read(SUCCESS))
    return ExportSummary(
        output=output.url,
        format=config.format,
        parts=len(content["parts"]),
        computed=len(content["parts"]) - n_before,
        files=content["files"],
        size=content["bytes"],
        counts=ExportCounts(**content["counts"]),
        wall_s=time.monotonic() - started,
    )


def _run(config: ExportConfig, settings: ExportSettings, units: tuple[Unit, ...]) -> JsonObject:
    """Runs the job; returns the content of `_SUCCESS.json`."""
    n, seen = config.units_per_part, ExportCounts()
    parts = {f"part-{i // n:05}": units[i : i + n] for i in range(0, len(units), n)}
    if config.order == "corpus":
        work = pair_part if settings.format == "dpo" else original_part if settings.corpus else token_part
        tasks = [
            Task(name=name, n_units=len(of), work=work, settings=settings, rest=(of,)) for name, of in parts.items()
        ]
    else:
        names = {name: name.replace("part", "run") for name in parts}
        sort = [
            Task(name=names[name], n_units=len(of), work=sort_part, settings=settings, rest=(of,))
            for name, of in parts.items()
        ]
        runs = _stage("sort", RUNS, sort, config)
        seen = _total(runs)
        ranges = cut_order(((run["keys"], run["tokens"]) for run in runs.values()), len(parts))
        tasks = [
            Task(name=name, n_units=len(of), work=range_part, settings=settings, rest=(tuple(runs), keys))
            for (name, of), keys in zip(parts.items(), ranges, strict=True)
        ]
    done = _stage("export", "parts", tasks, config)
    counts = seen + _total(done)
    if not settings.join:
        sizes = [size for part in done.values() for size in part["files"].values()]
        return {"counts": asdict(counts), "files": len(sizes), "bytes": sum(sizes), "parts": done}
    joined, added, lost = join(settings, list(done))
    counts += ExportCounts(tokens_written=added, tokens_trained=-lost)
    return {
        "counts": asdict(counts), "files": len(joined), "bytes": sum(joined.values()), "joined": joined, "parts": done,
    }  # fmt: skip


def _stage(what: str, under: str, tasks: list[Task], config: ExportConfig) -> dict[str, JsonObject]:
    """Runs the tasks that have no result yet; returns all results by task name, in task order."""
    return run_stage(what, Folder(config.output), under, tasks, run_task, workers=config.workers, tokens_of=_tokens_of)


def _tokens_of(content: JsonObject) -> int:
    counts = ExportCounts(**content["counts"])
    return counts.tokens or counts.tokens_exported


def _total(results: Mapping[str, JsonObject]) -> ExportCounts:
    return sum((ExportCounts(**result["counts"]) for result in results.values()), ExportCounts())
