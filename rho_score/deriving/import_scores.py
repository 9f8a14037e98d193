"""The import job: values of another program → by document id to their units → aligned → score set.

    OUT/work/values-000000.parquet       the rows of a unit of the values, by partition
    OUT/work/documents-000000.parquet    the ids of the documents of a batch of units, by partition
    OUT/work/matched-000000.parquet      a joined partition, by batch of units
    OUT/without-values/UNIT.parquet      the documents of a unit that have no values, with reasons
    OUT/data/UNIT.parquet                as in any score set

The files in `work` are removed at the end.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.cluster.tasks import in_tasks, result
from rho_score.config import ImportConfig, Precision, ValuesConfig
from rho_score.corpus.content import columns_of
from rho_score.corpus.plan import Plan, make_plan
from rho_score.deriving.align import Alignment
from rho_score.deriving.like import check_output, claim_like
from rho_score.deriving.shuffle import WORK, Matched, Shuffle, n_partitions, total
from rho_score.deriving.units import Batch, DerivedUnits, Published, Written, batches_of, finished_before, write_all
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.retries import retries_counted
from rho_score.files.urls import absolute
from rho_score.models.vocabulary import Vocabulary
from rho_score.stores.claim import refuse_output_in_input
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import SUCCESS
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.shapes import Totals, read_json
from rho_score.stores.signs import signs_of_life
from rho_score.stores.stages import remove_all

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What an import did. Counts cover the whole score set."""

    output: str
    units: int
    computed: int
    """Units that this call wrote."""
    counts: ScoreCounts
    """`losses` are the tokens with a value, `total_nats` is the sum of the values in their unit."""
    documents_without_values: int
    rows: Matched
    """What became of the rows of the values."""
    not_shards: tuple[str, ...]
    """Files of the values that were left out because their names are not those of shards."""
    retries: dict[str, int]
    wall_s: float


def import_scores(config: ImportConfig) -> ImportSummary:
    """Imports values, or goes on where an earlier run of the same command stopped.

    Raises:
        InputError: an option is wrong, or the values cannot be read.
        RhoScoreError: the run failed, or no row of the values has the id of a document. What it published stays, and the
            same command resumes it.
    """
    started = time.monotonic()
    config = replace(config, output=absolute(config.output), like=absolute(config.like))
    _check(config)
    with retries_counted() as retries, joined():
        like = ScoreSet.open(config.like)
        values = ValuesConfig(
            input=config.values,
            values_column=config.values_column,
            id_column=config.id_column,
            ids_column=config.ids_column,
        )
        plan = make_plan(values)
        output = Folder(config.output)
        refuse_output_in_input(output, config.values)
        manifest = _claim(config, like, plan)
        if (written := finished_before(output)) is None:
            with signs_of_life(output, "import"), cluster_or_threads():
                written = _run(config, manifest, like, plan, values)
        remove_all(output, WORK)
    rows = Matched(**read_json(output, SUCCESS, Totals)["rows_of_values"])
    return ImportSummary(
        output=config.output,
        units=like.n_units,
        computed=written.computed,
        counts=written.counts,
        documents_without_values=written.without,
        rows=rows,
        not_shards=plan.not_shards,
        retries=dict(retries),
        wall_s=time.monotonic() - started,
    )


def _check(config: ImportConfig) -> None:
    check_output(config.output, config.workers)
    if config.ids_column is not None and config.level != "token":
        raise InputError(f"--ids-column is for --level token, not {config.level}. Leave it out.")
    if config.reduce != "sum" and config.level != "byte":
        raise InputError(f"--reduce is for --level byte, not {config.level}. Leave it out.")


def _claim(config: ImportConfig, like: ScoreSet, plan: Plan) -> JsonObject:
    derived: JsonObject = {
        "from": "values",
        "values_sha256": plan.digest,
        **{name: getattr(config, name) for name in ("unit", "level", "values_column", "id_column", "ids_column")},
        **({"reduce": config.reduce} if config.level == "byte" else {}),
    }
    return claim_like(
        like, config.output, derived, precision=config.precision, in_nats=config.unit == "nats",
        places={"values": plan.root},
    )  # fmt: skip


def _run(config: ImportConfig, manifest: JsonObject, like: ScoreSet, plan: Plan, values: ValuesConfig) -> Written:
    batches = batches_of(like)
    precision: Precision = manifest["parts"]["precision"]
    shuffle = Shuffle(
        root=plan.root,
        columns=columns_of(values),
        whole=config.level == "document",
        like=config.like,
        output=config.output,
        n_values=len(plan.units),
        n_batches=len(batches),
        partitions=n_partitions(sum(unit.text_bytes for unit in plan.units), like.summary["scored"]),
    )
    rows = _shuffled(shuffle, plan, batches, config.workers)
    if rows.unknown == rows.rows:
        first = next(iter(like.unit_table(like.units[0].unit, ["doc_id"])["doc_id"].to_pylist()), None)
        raise RhoScoreError(
            f"none of the {rows.rows:,} rows of {config.values} has the id of a document of {config.like}: they have ids such as "
            f"{rows.example!r}, and the score set has ids such as {first!r}. Name the right column with --id-column, and run the "
            "command into another OUTPUT."
        )
    vocabulary = None
    if config.level == "byte":
        from rho_score.stores.tokenizer import load_store_tokenizer  # transformers is slow to import

        vocabulary = Vocabulary.of(load_store_tokenizer(like))
    writer = ImportWriter(
        shuffle=shuffle,
        units=DerivedUnits(
            like=config.like, output=config.output, fingerprint=manifest["fingerprint"], precision=precision
        ),
        alignment=Alignment(
            level=config.level, reduce=config.reduce, with_ids=config.ids_column is not None, precision=precision,
            vocabulary=vocabulary,
        ),
    )  # fmt: skip
    return write_all(
        "import", like, Folder(config.output), writer.write, workers=config.workers,
        about={"rows_of_values": rows._asdict()},
    )  # fmt: skip


def _shuffled(shuffle: Shuffle, plan: Plan, batches: list[Batch], workers: int | None) -> Matched:
    """Runs the stages before the units are written. What is written already is not written again."""
    there = Folder(shuffle.output).names(WORK)

    def todo(name: str, items: Iterable[T]) -> list[T]:
        return [item for i, item in enumerate(items) if f"{name}-{i:06}.parquet" not in there]

    partitions = range(shuffle.partitions)
    if left := todo("matched", partitions):
        _stage("sort values", shuffle.scatter_values, todo("values", enumerate(plan.units)), workers)
        _stage("sort documents", shuffle.scatter_documents, todo("documents", batches), workers)
        _stage("match", shuffle.match, left, workers)
    return total(map(shuffle.matched, partitions))


def _stage(what: str, work: Callable[[Any], Any], items: list[Any], workers: int | None) -> None:
    with Progress(what, n_units=len(items)) as progress:
        for _, reference in in_tasks(partial(_call, work), items, workers=workers):
            result(reference)
            progress.add(units=1)


def _call(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


@dataclass(frozen=True, kw_only=True)
class ImportWriter:
    """Writes any batch of units. It is small, and is sent to every worker."""

    shuffle: Shuffle
    units: DerivedUnits
    alignment: Alignment

    def write(self, batch: Batch, units: list[str]) -> list[Published]:
        """Writes these units of a batch."""
        rows = self.shuffle.rows_of(batch)
        return self.units.write(units, lambda _, tokens: self.alignment.align(tokens, rows))
