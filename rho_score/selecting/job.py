"""The selection job: pair units → excess → histogram → merge → threshold → mask → write.

Its stages are Ray tasks over batches of units: they count, share out the ties of a cut, and write.
Counting leaves a small file for each batch, so that a resumed run does not count again. Histograms
are merged in a tree of tasks, and the driver never holds a score.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import orjson

from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.config import SelectConfig
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.paths import check_writable
from rho_score.files.retries import retries_counted
from rho_score.files.urls import absolute
from rho_score.ranking.cuts import BudgetCut, Cut
from rho_score.ranking.histogram import Group, Ranking
from rho_score.ranking.rules import KeptRange, Rule
from rho_score.selecting.batches import Batch, batches_of, written
from rho_score.selecting.count import BatchCounter
from rho_score.selecting.global_cut import GlobalCut
from rho_score.selecting.inputs import Prepared, claim_selection, prepare
from rho_score.selecting.options import parse_quotas, parse_shares, rule_of_group, rule_of_reference
from rho_score.selecting.ranked_items import Ranker
from rho_score.selecting.summary import SelectSummary, foreseen_groups, summary_content
from rho_score.selecting.write import MaskWriter
from rho_score.stores.counts import GroupCounts, group_counts_in
from rho_score.stores.layout import HISTOGRAM, SUMMARY, published_units
from rho_score.stores.selection import histogram_file
from rho_score.stores.shapes import SelectionSummary, read_json
from rho_score.stores.signs import signs_of_life


def select(config: SelectConfig) -> SelectSummary:
    """Selects tokens or documents, or goes on where an earlier run of the same command stopped.

    Raises:
        InputError: an option is wrong, or the score sets do not belong together.
        RhoScoreError: the run failed. What it published stays, and the same command resumes it.
    """
    started = time.monotonic()
    config = replace(
        config,
        output=absolute(config.output),
        base=config.base and absolute(config.base),
        per_group=config.per_group or bool(config.quota),
    )
    if not config.dry_run:
        check_writable("OUTPUT", config.output)
    with retries_counted() as retries, joined():
        prepared = prepare(config)
        content, computed = _select(config, prepared)
    groups = group_counts_in(content)
    return SelectSummary(
        output=config.output,
        units=prepared.main.n_units,
        planned=prepared.planned,
        computed=computed,
        total=sum(groups.values(), GroupCounts()),
        groups=groups,
        cuts=content["thresholds"],
        per_group=config.per_group,
        retries=dict(retries),
        approximate=content.get("approximate", False),
        wall_s=time.monotonic() - started,
    )


def _select(config: SelectConfig, prepared: Prepared) -> tuple[JsonObject, int]:
    """Runs the job; returns the content of `summary.json` and how many units were written."""
    output = Folder(config.output)
    if not config.dry_run:
        claim_selection(config.output, prepared.manifest, prepared.main)
        if output.exists(SUMMARY) and len(published_units(output)) == prepared.main.n_units:
            return read_json(output, SUMMARY, SelectionSummary), 0
    with nullcontext() if config.dry_run else signs_of_life(output, "select"):
        with cluster_or_threads():
            batches = batches_of(prepared.main, prepared.others)
            content, computed = _run(prepared.ranker, prepared.manifest["fingerprint"], batches)
        written_down = dump_json(content)
        if not config.dry_run:
            output.publish(SUMMARY, written_down)
    return orjson.loads(written_down), computed


def _run(ranker: Ranker, fingerprint: str, batches: Sequence[Batch]) -> tuple[JsonObject, int]:
    """Counts, cuts and writes; returns the same as `_select`."""
    config, n_units = ranker.config, sum(len(batch.units) for batch in batches)
    if config.document_score == "kept-share":
        ranker = replace(ranker, token_cuts=_token_cuts(ranker, fingerprint, batches))
    cut = GlobalCut(BatchCounter(ranker=ranker, fingerprint=fingerprint), batches, _rules(ranker)).run()
    if config.dry_run and not _needs_masks(ranker):
        groups = foreseen_groups(cut.histogram, cut.ranges, per_group=config.per_group)
        kept = {ranking: one.kept() for ranking, one in cut.ranges.items()}
        approximate = any(c.partial for one in cut.ranges.values() for c in one.cuts)
        return summary_content(ranker, n_units, cut.ranges, kept, groups) | {"approximate": approximate}, 0
    ties = cut.ties()
    writer = MaskWriter(ranker=ranker, fingerprint=fingerprint, ranges=cut.ranges, weightings=cut.weightings())
    computed, groups = _write(writer, batches, ties)
    if not config.dry_run:
        Folder(config.output).publish(HISTOGRAM, histogram_file(cut.histogram, ranker.bits))
    kept = {ranking: one.kept(_in_budget(one, ties.get(ranking))) for ranking, one in cut.ranges.items()}
    return summary_content(ranker, n_units, cut.ranges, kept, groups), computed


def _rules(ranker: Ranker) -> Callable[[Ranking], Rule]:
    """A function that returns the rule of a ranking."""
    config = ranker.config
    quotas = parse_quotas(config.quota)
    shares = parse_shares(config.share, list(ranker.join.refs))
    common = Rule(ratio=config.ratio, tokens=config.tokens, threshold=config.threshold)

    def rule(ranking: Ranking) -> Rule:
        own = rule_of_group(ranking.group, quotas) if quotas else rule_of_reference(ranking.reference, shares, common)
        return replace(own, drop_top=config.drop_top)

    return rule


def _token_cuts(ranker: Ranker, fingerprint: str, batches: Sequence[Batch]) -> dict[str | None, Cut]:
    """The cut of all tokens by reference, if documents are ranked by their share of kept tokens."""
    ratio = ranker.config.token_ratio
    tokens = replace(
        ranker.config, level="token", document_score="mean", ratio=ratio, tokens=None, threshold=None,
        per_group=False, quota=(), sample=None, drop_top=0.0,
    )  # fmt: skip
    counter = BatchCounter(ranker=replace(ranker, config=tokens), fingerprint=fingerprint)
    cut = GlobalCut(counter, batches, lambda _: Rule(ratio=ratio)).run()
    return {ranking.reference: kept.keep for ranking, kept in cut.ranges.items()}


def _needs_masks(ranker: Ranker) -> bool:
    """True if the histogram is not enough to tell what is kept, so that masks must be made."""
    config = ranker.config
    alone = config.scope == "corpus" and config.min_run == 1 and config.level == "token"
    return not alone or len(ranker.references) > 1


def _in_budget(kept: KeptRange, ties: np.ndarray | None) -> int:
    """How many documents at the cut fit the budget of tokens; 0 without a budget.

    ties: how many each batch keeps at each cut, int64[n_batches, n_cuts].
    """
    return int(ties[:, 0].sum()) if isinstance(kept.keep, BudgetCut) and ties is not None else 0


def _write(
    writer: MaskWriter, batches: Sequence[Batch], ties: Mapping[Ranking, np.ndarray]
) -> tuple[int, dict[Group, GroupCounts]]:
    """Writes the masks; returns how many units were written, and the counts by group."""
    config = writer.ranker.config
    done = set() if config.dry_run else published_units(Folder(config.output))
    items = (
        (batch, done.intersection(batch.names), {ranking: n[batch.index].tolist() for ranking, n in ties.items()})
        for batch in batches
    )
    return written("select", partial(_write_batch, writer), items, batches, workers=config.workers)


def _write_batch(
    writer: MaskWriter, item: tuple[Batch, set[str], dict[Ranking, list[int]]]
) -> tuple[int, dict[Group, GroupCounts], None]:
    batch, published, ties = item
    return writer.write(batch, published, ties)
