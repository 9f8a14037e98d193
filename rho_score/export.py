"""The export job: a selection becomes what trainers read. A part of the corpus in, a part's files out.

    OUT/manifest.json            what the export is made from and how; OUT/tokenizer/ beside it for token formats
    OUT/data/part-00000.…        the files of each part: see `formats`, `streams`, `originals`
    OUT/parts/part-00000.json    its counts and its files' sizes, written after them: a part that has it is complete
    OUT/_SUCCESS.json            totals, and every part's counts and files; written last

A part is a run of consecutive units; ordered by difficulty it is a range of that order, cut out of sorted runs (`order`).
A document without a token to train on teaches nothing and is left out of every format; the counts tell how many.
"""

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import reduce
from typing import Any

import orjson

from rho_score.claims import claim
from rho_score.columns import Columns
from rho_score.config import ExportConfig
from rho_score.engine import check_own_cluster, cluster, in_tasks, joined, result
from rho_score.errors import InputError
from rho_score.formats import Frame
from rho_score.inspect import load_store_tokenizer
from rho_score.order import cut_order
from rho_score.originals import Corpus, corpus_root, open_score_set
from rho_score.parts import Counts, Job, Task, original_part, range_part, run_task, sort_part, token_part
from rho_score.paths import check_writable
from rho_score.progress import Progress
from rho_score.storage import Folder, absolute
from rho_score.store import SUCCESS, Selection, beside, dump_json, new_manifest, relative_url
from rho_score.streams import bin_dtype, megatron_dtype
from rho_score.tokens import prefix_id
from rho_score.units import Unit

LAYOUT_VERSION = 2  # 1: with blocks and rows of which no label is left
ORIGINALS = ("parquet", "jsonl")
RUNS = "runs"
MASK = {
    "labels": "labels[i] is token i itself, or -100; models that shift inside (Hugging Face) take it as it is",
    "bin": "mask[i] = 1: train on predicting token i; weigh the loss of data[i + 1] with mask[i + 1]",
    "megatron": "mask[i] = 1: train on predicting token i; the loss mask of labels tokens[1:] is mask[1:]",
}


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export wrote. `computed`: parts of this run; all else is of the whole export. `size`: bytes of the files."""

    output: str
    format: str
    parts: int
    computed: int
    files: int
    size: int
    counts: Counts
    wall_s: float


def export(config: ExportConfig) -> ExportSummary:
    """Export a selection, or go on where an earlier run of the same command stopped.

    Raises:
        InputError: wrong usage, no finished selection, or what the format needs is not there.
        RhoScoreError: the run failed; what it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    config = replace(config, selection=absolute(config.selection), output=absolute(config.output))
    output = Folder(config.output)
    check_writable("OUTPUT", config.output)
    with joined():
        check_own_cluster()
        selection = Selection.open(config.selection)
        job, manifest = _prepare(config, selection)
        tokenizer = [] if job.corpus else list(selection.folder.listing("tokenizer"))
        claim(output, manifest, {f"tokenizer/{name}": selection.folder.read(f"tokenizer/{name}") for name in tokenizer})
        n_before = len(output.listing("parts"))
        if not output.exists(SUCCESS):
            with cluster(local_cpus=max(2, os.cpu_count() or 2)):
                content = _run(config, job, selection.units)
            output.publish(SUCCESS, dump_json(content))
    if config.order != "corpus":
        _remove_runs(output)
    content = orjson.loads(output.read(SUCCESS))
    return ExportSummary(
        output=output.url,
        format=config.format,
        parts=len(content["parts"]),
        computed=len(content["parts"]) - n_before,
        files=content["files"],
        size=content["bytes"],
        counts=Counts(**content["counts"]),
        wall_s=time.monotonic() - started,
    )


def _run(config: ExportConfig, job: Job, units: tuple[Unit, ...]) -> dict[str, Any]:
    """The whole job; returns the content of `_SUCCESS.json`."""
    n, seen = config.units_per_part, Counts()
    parts = {f"part-{i // n:05}": units[i : i + n] for i in range(0, len(units), n)}
    if config.order == "corpus":
        work = original_part if job.corpus else token_part
        tasks = [Task(name=name, n_units=len(of), work=work, job=job, rest=(of,)) for name, of in parts.items()]
    else:
        names = {name: name.replace("part", "run") for name in parts}
        sort = [
            Task(name=names[name], n_units=len(of), work=sort_part, job=job, rest=(of,)) for name, of in parts.items()
        ]
        runs = _stage("sort", RUNS, sort, config)
        seen = _total(runs)
        ranges = cut_order(((run["keys"], run["tokens"]) for run in runs.values()), len(parts))
        tasks = [
            Task(name=name, n_units=len(of), work=range_part, job=job, rest=(tuple(runs), keys))
            for (name, of), keys in zip(parts.items(), ranges, strict=True)
        ]
    done = _stage("export", "parts", tasks, config)
    sizes = [size for part in done.values() for size in part["files"].values()]
    return {"counts": asdict(seen + _total(done)), "files": len(sizes), "bytes": sum(sizes), "parts": done}


def _stage(what: str, under: str, tasks: list[Task], config: ExportConfig) -> dict[str, dict[str, Any]]:
    """Run the tasks whose result is not there yet; all results by the task's name, in the tasks' order."""
    output = Folder(config.output)
    there = {name.removesuffix(".json") for name in output.listing(under) if name.endswith(".json")}
    todo = [task for task in tasks if task.name not in there]
    with ThreadPoolExecutor(16) as pool:
        read = pool.map(lambda name: orjson.loads(output.read(f"{under}/{name}.json")), sorted(there))
        found = dict(zip(sorted(there), read, strict=True))
    with Progress(what, n_units=sum(task.n_units for task in todo)) as progress:
        for index, reference in in_tasks(run_task, todo, workers=config.workers):
            content: dict[str, Any] = result(reference)
            found[todo[index].name] = content
            counts = Counts(**content["counts"])
            progress.add(
                units=todo[index].n_units,
                tokens=counts.tokens or counts.tokens_exported,
            )
    return {task.name: found[task.name] for task in tasks}


def _remove_runs(output: Folder) -> None:
    """Remove the sorted runs, file by file: not every object store takes a request for many."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: output.remove(f"{RUNS}/{name}"), output.listing(RUNS)))


def _total(results: Mapping[str, dict[str, Any]]) -> Counts:
    return reduce(Counts.__add__, (Counts(**result["counts"]) for result in results.values()), Counts())


def _prepare(config: ExportConfig, selection: Selection) -> tuple[Job, dict[str, Any]]:
    """Check the options and resolve every default; the work of a task, and the manifest."""
    whole = config.format in ORIGINALS
    _check_options(config)
    scores = open_score_set(selection, config.scores)
    tokenizer = load_store_tokenizer(selection)
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    prefix = scores.manifest["parts"].get("prefix_id") if scores else prefix_id(tokenizer)
    eos = tokenizer.eos_token_id if config.eos_id is None else config.eos_id
    if config.format == "bin" and eos is None:
        raise InputError(
            "the tokenizer has no EOS, and a .bin needs a token between documents: name one with --eos-id."
        )
    if eos is None and config.train_eos:
        raise InputError("--train-eos: the tokenizer has no EOS. Name one with --eos-id.")
    if eos is not None and not 0 <= eos < vocabulary:
        raise InputError(f"--eos-id {eos} is no id of the tokenizer, whose ids are 0 to {vocabulary - 1}.")
    pad = next((i for i in (eos, tokenizer.pad_token_id, prefix) if i is not None), 0)
    frame = Frame(prefix_id=prefix if config.prefix else None, eos_id=eos, train_eos=config.train_eos)
    job = Job(
        selection=config.selection,
        output=config.output,
        format=config.format,
        block_size=config.block_size,
        hard_first=config.order == "hard-first",
        frame=frame,
        pad_id=pad,
        vocabulary=vocabulary,
        compression=config.compression,
        corpus=_corpus(config, selection) if whole else None,
    )
    parts = {
        "layout_version": LAYOUT_VERSION,
        "selection": selection.manifest["fingerprint"],
        "format": config.format,
        "units_per_part": config.units_per_part,
        "block_size": config.block_size,
        "order": config.order,
        "compression": config.compression,
        **({} if whole else {**asdict(frame), "pad_id": pad if config.block_size else None}),
    }
    dtypes = {"bin": bin_dtype, "megatron": megatron_dtype}
    about = {"dtype": dtypes[config.format](vocabulary).name} if config.format in dtypes else {}
    about |= {} if whole else {"mask": MASK[config.format]}
    place = relative_url(config.selection, config.output)
    return job, new_manifest("export", parts, source=place, vocabulary=vocabulary, **about)


def _check_options(config: ExportConfig) -> None:
    if config.units_per_part < 1:
        raise InputError(f"--units-per-part must be at least 1, got {config.units_per_part}.")
    if config.block_size is not None and (config.format != "labels" or config.block_size < 2):
        raise InputError(
            f"--block-size is for --format labels and at least 2, got {config.block_size}, {config.format}."
        )
    if config.order != "corpus" and config.format in ORIGINALS:
        raise InputError(
            f"--order {config.order} is for token formats; --format {config.format} keeps the corpus' order."
        )
    if config.format in ORIGINALS and (config.train_eos or not config.prefix or config.eos_id is not None):
        raise InputError(
            f"--train-eos, --no-prefix and --eos-id are for token formats; --format {config.format} keeps the text."
        )
    if config.compression != "none" and config.format != "jsonl":
        raise InputError("--compression is for --format jsonl; Parquet is compressed by itself.")


def _corpus(config: ExportConfig, selection: Selection) -> Corpus:
    """The corpus behind a selection of documents."""
    level = selection.manifest["parts"]["level"]
    if level != "document":
        raise InputError(
            f"--format {config.format} writes whole documents, and {config.selection} selects by {level}. Make a selection "
            "with `rho-score select … --level document`, or export tokens: --format labels, bin or megatron."
        )
    lines = [unit.shard for unit in selection.units if unit.format != ".parquet"]
    if config.format == "parquet" and lines:
        raise InputError(
            f"{len(set(lines))} shards are JSONL ({lines[0]}), whose columns have no declared types: in Parquet they would "
            "be guessed. Use --format jsonl, which takes both kinds."
        )
    scores = open_score_set(selection, config.scores)
    if scores is None:
        raise InputError(
            f"the score set that {config.selection} was made from is not where it was. Name it with --scores."
        )
    columns = (scores.manifest["parts"].get(name) for name in ("text_column", "id_column", "group_column"))
    noted = scores.manifest.get("input", {}).get("root")
    if config.input is None and noted is None:
        raise InputError("the score set does not tell where its corpus is. Give the place with --input.")
    root = Folder(beside(scores.folder, noted)) if config.input is None else corpus_root(config.input)
    moved = config.input is not None
    return Corpus(root=root, moved=moved, columns=Columns(*columns), quarantine=scores.folder)
