"""Checks and resolves every option of a deduplication before anything is written."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rho_score.config import DedupConfig
from rho_score.corpus.columns import Columns
from rho_score.corpus.content import columns_of
from rho_score.corpus.formats import format_of
from rho_score.corpus.plan import Plan
from rho_score.corpus.units import Unit
from rho_score.corpus.whole_rows import without_rows
from rho_score.deduplicating.bands import Bands, choose_bands
from rho_score.deduplicating.shingles import method
from rho_score.errors import InputError
from rho_score.files.json import JsonObject
from rho_score.safe_text import visible
from rho_score.stores.manifest import new_manifest, relative_url

LAYOUT_VERSION = 1
PARTITION_BYTES = 512_000_000
JSONL_DOCUMENT_BYTES = 1000  # a guess, for the number of partitions alone
ROW_BYTES = 24  # of a band of a document in a partition, besides its signature
MOST_PERMUTATIONS = 4096


@dataclass(frozen=True, kw_only=True)
class DedupSettings:
    """What a task must know. It is cheap to send."""

    root: str
    output: str
    columns: Columns
    similarity: float
    shingle: int
    permutations: int
    bands: Bands
    partitions: int
    write: bool
    """False in a dry run, which counts and writes no part."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive units of one folder and one format, which become one file of the output."""

    name: str
    number: int
    units: tuple[Unit, ...]

    @property
    def folder(self) -> str:
        """The folder of its shards, with a slash at its end; it may hold KEY=VALUE."""
        return folder_of(self.units[0])


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """A task of a part, as `stores.stages.run_stage` takes it."""

    settings: DedupSettings
    part: Part

    @property
    def name(self) -> str:
        """The name of the part."""
        return self.part.name

    @property
    def n_units(self) -> int:
        """The number of units of the part."""
        return len(self.part.units)


def resolve_settings(config: DedupConfig, plan: Plan) -> tuple[DedupSettings, JsonObject]:
    """Resolves every default, once `check_options` has been called; returns the settings and the manifest."""
    columns = columns_of(config)
    if columns.kind == "pair":
        raise InputError(
            "dedup compares whole rows, but a row with --chosen-column is two documents. Compare its prompts or responses "
            "with --text-column."
        )
    if (shard := without_rows(plan.units)) is not None:
        raise InputError(
            f"dedup writes documents again with all their columns, which is not possible from tars ({visible(shard)}). Write the "
            "samples as Parquet or JSON Lines first."
        )
    bands = choose_bands(config.similarity, config.permutations)
    settings = DedupSettings(
        root=plan.root,
        output=config.output,
        columns=columns,
        similarity=config.similarity,
        shingle=config.shingle,
        permutations=config.permutations,
        bands=bands,
        partitions=config.partitions or _partitions(plan, bands, config.permutations),
        write=not config.dry_run,
    )
    parts: dict[str, Any] = {
        "layout_version": LAYOUT_VERSION,
        **method(),
        "plan_sha256": plan.digest,
        "unit_bytes": config.unit_bytes,
        "units_per_part": config.units_per_part,
        "columns": columns._asdict(),
        **({"text_of_chats": "messages"} if columns.kind == "messages" and columns.context is not None else {}),
        "similarity": config.similarity,
        "shingle": config.shingle,
        "permutations": config.permutations,
        "bands": bands.bands,
        "rows": bands.rows,
        "partitions": settings.partitions,
    }
    formats = sorted({"parquet" if format_of(unit).ROWS == "tables" else "jsonl" for unit in plan.units})
    place = {"root": relative_url(plan.root, config.output), "not_shards": list(plan.not_shards)}
    return settings, new_manifest("deduplicated corpus", parts, input=place, formats=formats)


def parts_of(plan: Plan, units_per_part: int) -> list[Part]:
    """Cuts the units into parts, in corpus order."""
    parts: list[Part] = []
    for _, of in groupby(plan.units, key=lambda unit: (folder_of(unit), unit.format)):
        units = tuple(of)
        for start in range(0, len(units), units_per_part):
            some = units[start : start + units_per_part]
            parts.append(Part(name=f"part-{len(parts):05}", number=len(parts), units=some))
    return parts


def folder_of(unit: Unit) -> str:
    """The folder of a unit's shard below the corpus, with a slash at its end, or ""."""
    return unit.shard[: unit.shard.rfind("/") + 1]


def _partitions(plan: Plan, bands: Bands, permutations: int) -> int:
    documents = sum(unit.rows or unit.text_bytes // JSONL_DOCUMENT_BYTES for unit in plan.units)
    return 1 + documents * bands.bands * (ROW_BYTES + permutations // 2) // PARTITION_BYTES


def check_options(config: DedupConfig) -> None:
    """Raises InputError for options that are wrong whatever the corpus holds."""
    if config.token_files is not None or config.split_at != "eos":
        raise InputError(
            "dedup compares texts. --token-files and --split-at are for token ids, so remove duplicates before tokenizing."
        )
    if not 0 < config.similarity <= 1:
        raise InputError(f"--similarity must be above 0 and at most 1, got {config.similarity:g}.")
    if not 1 <= config.permutations <= MOST_PERMUTATIONS:
        raise InputError(f"--permutations must be between 1 and {MOST_PERMUTATIONS}, got {config.permutations}.")
    for name in ("shingle", "units_per_part", "partitions"):
        if (value := getattr(config, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
