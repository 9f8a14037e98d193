"""The scoring job: plan, then read, tokenize, score and publish each unit as one file."""

import itertools
import logging
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace

import torch

from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import check_own_cluster, cluster, joined
from rho_score.config import ScoreConfig
from rho_score.corpus.plan import Plan, left_out, make_plan
from rho_score.corpus.units import Unit
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.files.paths import check_writable
from rho_score.files.retries import retries_counted
from rho_score.models.tokenizer import tokenizer_files
from rho_score.scoring.attempts import clear
from rho_score.scoring.limits import check_limits, worker_range
from rho_score.scoring.live import LiveProgress
from rho_score.scoring.measures import Measures
from rho_score.scoring.pipeline import configure_data, scored_units
from rho_score.scoring.preflight import check_pool
from rho_score.scoring.settings import ScoringSettings, resolve_settings
from rho_score.scoring.spending import Account
from rho_score.scoring.unit_stats import UnitStats, busy_share, server_retries
from rho_score.scoring.verify import Comparison
from rho_score.scoring.verify import verify as compare_with_plain
from rho_score.stores.claim import claim, refuse_changed_input, refuse_output_in_input
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import MANIFEST, PLAN, SUCCESS, published_units, quarantined_units
from rho_score.stores.manifest import read_manifest
from rho_score.stores.score_set import score_counts_of
from rho_score.stores.shapes import Totals, read_json
from rho_score.stores.signs import signs_of_life
from rho_score.stores.unit_file import footers

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What a run did. `computed` counts the units of this run, `counts` covers the whole score set."""

    output: str
    units: int
    computed: int
    computed_tokens: int
    counts: ScoreCounts
    wall_s: float
    busy_share: float
    """Share of the workers' time during which the model ran, from each worker's first unit to its last."""
    padding_share: float
    """Share of the positions that went through the model and were padding."""
    weight_note: str
    """Which weights of its files the model does not use, and which of its own are tied instead of stored.

    Empty if there are none of either kind.
    """
    retries: dict[str, int]
    """Storage calls that were made again, by kind of error: those of the driver and of published units."""
    server_retries: dict[str, int]
    """Requests to a server that were made again, by kind of failure: those of published units."""
    spent: str
    """What the score set has cost so far, with a price; empty otherwise."""
    not_shards: tuple[str, ...] = ()
    """Files of the input that were left out because their names are not those of shards."""


def score(config: ScoreConfig) -> ScoreSummary:
    """Scores a corpus, or resumes the run of the same command that stopped before.

    Raises:
        InputError: wrong usage or input, found before anything was run.
        RhoScoreError: the run failed, or it stopped before more than `config.spend_at_most` was
            spent. What it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    with retries_counted() as retries, Progress("score") as progress:
        workers = worker_range(config.workers)
        check_limits(config)
        check_writable("OUTPUT", config.output)
        with joined():
            check_own_cluster()
            progress.phase("listing the corpus")
            plan = make_plan(config)
            if plan.not_shards:
                log.info("%d files of the input are no shards, %s", len(plan.not_shards), left_out(plan.not_shards))
            output = Folder(config.output)
            config = replace(config, output=output.url)
            refuse_output_in_input(output, config.input)
            found = read_manifest(output) if output.exists(MANIFEST) else None
            refuse_changed_input(output, found, plan)
            progress.phase("reading the model's files")
            done = not config.only_quarantined and _is_whole(output, plan)
            account = Account(config, output, done=done)
            settings = resolve_settings(config, plan, found, workers, done=done, purse=account.check_purse)
            if not done:
                check_pool(workers=workers[0], cpus=settings.cpus, gpus=settings.gpus)
            summary = _run(settings, output, account, started, progress, done=done)
    return replace(summary, retries=dict(retries))


def verify(config: ScoreConfig) -> Comparison:
    """Compares the scores of `config.verify` random documents with those of a plain float32 forward.

    Raises:
        InputError: wrong usage or input, as for `score`.
    """
    if config.verify is None or config.verify < 1:
        raise InputError(f"--verify takes a number of documents, got {config.verify}.")
    check_limits(config)
    plan = make_plan(config)
    settings = resolve_settings(config, plan, None, worker_range(config.workers))
    if settings.gpus and not torch.cuda.is_available():
        raise InputError(
            "--verify runs here, and here is no GPU. Give --gpus-per-worker 0, or run it on a node that has one."
        )
    torch.set_num_threads(settings.cpus)
    gpu = settings.gpus > 0 or (config.server is not None and torch.cuda.is_available())
    return compare_with_plain(settings, gpu=gpu)


def _is_whole(output: Folder, plan: Plan) -> bool:
    """True if a run has finished, and no file was removed since."""
    return output.exists(SUCCESS) and {unit.unit for unit in plan.units} <= published_units(output)


def _run(
    settings: ScoringSettings, output: Folder, account: Account, started: float, progress: Progress, *, done: bool
) -> ScoreSummary:
    tokenizer = {f"tokenizer/{path.name}": path.read_bytes() for path in tokenizer_files(settings.config.model)}
    claim(output, settings.manifest, {PLAN: settings.plan.to_parquet(), **tokenizer})
    if done:
        return _finish(settings, output, account, started, progress)
    with signs_of_life(output, "score"):
        return _finish(settings, output, account, started, progress)


def _finish(
    settings: ScoringSettings, output: Folder, account: Account, started: float, progress: Progress
) -> ScoreSummary:
    """Scores what is left of a score set that is begun, and adds up its counts."""
    account.note_check()
    done = _done(settings, output)
    todo = [unit for unit in settings.plan.units if unit.unit not in done]
    earlier = [unit.unit for unit in settings.plan.units if unit.unit in done]
    computed, stats = _computed(settings, todo, earlier, account, progress) if todo else ([], [])
    if todo:
        clear(output)
    if not todo and output.exists(SUCCESS):
        total = ScoreCounts.of(read_json(output, SUCCESS, Totals))
    else:
        before = (
            score_counts_of(output, unit, found) for unit, found in zip(earlier, footers(output, earlier), strict=True)
        )
        total = ScoreCounts.total(itertools.chain(computed, before))
    spent = account.close(len(earlier) + len(computed), len(settings.plan.units))
    if missing := len(todo) - len(computed):
        raise RhoScoreError(f"{missing} units were not published. Run the same command again to resume.")
    if not output.exists(SUCCESS):
        output.publish(SUCCESS, dump_json({"units": len(settings.plan.units), **asdict(total)}))
    return ScoreSummary(
        output=output.url,
        units=len(settings.plan.units),
        computed=len(computed),
        computed_tokens=sum(counts.tokens for counts in computed),
        counts=total,
        wall_s=time.monotonic() - started,
        busy_share=busy_share(stats),
        padding_share=sum(p.padding for p in stats) / max(sum(p.positions for p in stats), 1),
        weight_note=next((one.note for one in stats if one.note), ""),
        retries={},
        server_retries=server_retries(stats),
        spent=spent,
        not_shards=settings.plan.not_shards,
    )


def _computed(
    settings: ScoringSettings, todo: list[Unit], earlier: list[str], account: Account, progress: Progress
) -> tuple[list[ScoreCounts], list[UnitStats]]:
    """Scores and publishes the units `todo`, on Ray. Returns their counts and statistics.

    Units that there is no money for are left out.
    """
    computed: list[ScoreCounts] = []
    stats: list[UnitStats] = []
    if earlier:
        log.info("resuming: %d of %d units are published, %d to do", len(earlier), len(settings.plan.units), len(todo))
    progress.phase("starting Ray")
    sizes = {unit.unit: float(max(unit.text_bytes, 1)) for unit in settings.plan.units}
    with (
        cluster(local_cpus=settings.workers[1] * settings.cpus + 2),
        LiveProgress(progress, sizes=sizes, before=earlier, most_workers=settings.workers[1]) as live,
    ):
        configure_data()
        account.open()
        measures = Measures(progress)
        with closing(scored_units(settings, todo, live.reporter, account.ledger)) as units:
            for unit, counts, one in units:
                if one.paid:
                    computed.append(counts)
                    stats.append(one)
                    live.publish(unit, counts.tokens, one.ended - one.started)
                    measures.publish(counts, one)
                if account.stops_after(unit, paid=one.paid):
                    break
        account.settle()
    return computed, stats


def _done(settings: ScoringSettings, output: Folder) -> set[str]:
    """The units that this run does not score, because they are published already."""
    done = published_units(output)
    if settings.config.only_quarantined:
        if left := len(settings.plan.units) - len(done):
            raise InputError(
                f"--only-quarantined is for a finished run, and {left} units are left. Run without it first, then with it."
            )
        if again := quarantined_units(output):
            output.remove(SUCCESS)
            done -= again
    return done
