"""The selection job: pair units → excess → histogram → merge → threshold → mask → write.

Stages of Ray tasks over batches of units: count, look at the ties of the cut, write. Counting leaves a small file a batch, so
that a resumed run does not count again; histograms are merged in a tree of tasks, and the driver never holds a score.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from rho_score.cluster.ray_cluster import cluster_or_threads, connected, joined
from rho_score.cluster.tasks import in_tasks
from rho_score.config import SelectConfig
from rho_score.errors import RhoScoreError
from rho_score.files.arrow import as_numpy
from rho_score.files.folder import Folder
from rho_score.files.paths import check_writable
from rho_score.files.retries import retries_counted
from rho_score.files.urls import absolute
from rho_score.ranking.cuts import Cut
from rho_score.ranking.histogram import NO_COUNTS, Expert, Group, by_place, refine, without_groups
from rho_score.ranking.keys import keys_of
from rho_score.ranking.rules import Band, Rule, band, share_ties
from rho_score.selecting.batches import Batch, batches_of, fetched, histogram_in_turn, histogram_of, written
from rho_score.selecting.inputs import Prepared, claim_selection, prepare
from rho_score.selecting.masks import Place, Selector
from rho_score.selecting.options import parse_quotas, parse_shares, rule_of, rule_of_expert
from rho_score.stores.counts import GroupAccounts, accounts_in
from rho_score.stores.layout import HISTOGRAM, SUMMARY, published_units
from rho_score.stores.manifest import dump_json
from rho_score.stores.selection import histogram_file
from rho_score.stores.shapes import SelectionSummary, read_json


@dataclass(frozen=True, kw_only=True)
class SelectSummary:
    """What a selection kept. `groups`: by group's name; one group, None, where there are none."""

    output: str
    units: int
    planned: int
    """Units of the corpus: more than `units` where a score set is not finished."""
    computed: int
    total: GroupAccounts
    groups: dict[Group, GroupAccounts]
    cuts: list[dict[str, Any]]
    """A row for each ranking: expert, group, threshold (nats; None where nothing is kept at any), kept."""
    per_group: bool
    retries: dict[str, int]
    """Storage calls that were made again, by kind of error: the driver's, and those of its finished tasks."""
    approximate: bool = False
    """A dry run whose groups share the tokens at the threshold in proportion. `cuts` and the total are exact."""
    wall_s: float

    @property
    def thresholds(self) -> dict[Group, float | None]:
        """Thresholds by group, of the only ranking."""
        return {row["group"]: row["threshold"] for row in self.cuts if row["expert"] is None}

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
    base = config.base and absolute(config.base)
    config = replace(
        config, output=absolute(config.output), base=base, per_group=config.per_group or bool(config.quota)
    )
    if not config.dry_run:
        check_writable("OUTPUT", config.output)
    with retries_counted() as retries, joined():
        prepared = prepare(config)
        content, computed = _select(config, prepared)
    return _summary(config, prepared, content, computed, dict(retries), started)


def _select(config: SelectConfig, prepared: Prepared) -> tuple[dict[str, Any], int]:
    """The content of `summary.json`, and how many units were written."""
    output = Folder(config.output)
    if not config.dry_run:
        claim_selection(config.output, prepared.manifest, prepared.main)
        if output.exists(SUMMARY) and len(published_units(output)) == prepared.main.n_units:
            return read_json(output, SUMMARY, SelectionSummary), 0
    with cluster_or_threads():
        job = _Job(prepared.selector, batches_of(prepared.main, prepared.others), _rules(prepared.selector))
        content, computed = job.run()
    written_down = dump_json(content)
    if not config.dry_run:
        output.publish(SUMMARY, written_down)
    return orjson.loads(written_down), computed


def _summary(
    config: SelectConfig,
    prepared: Prepared,
    content: Mapping[str, Any],
    computed: int,
    retries: dict[str, int],
    started: float,
) -> SelectSummary:
    groups = accounts_in(content)
    return SelectSummary(
        output=config.output,
        units=prepared.main.n_units,
        planned=prepared.planned,
        computed=computed,
        total=sum(groups.values(), GroupAccounts()),
        groups=groups,
        cuts=content["thresholds"],
        per_group=config.per_group,
        retries=retries,
        approximate=content.get("approximate", False),
        wall_s=time.monotonic() - started,
    )


def _rules(selector: Selector) -> Callable[[Place], Rule]:
    """How much each ranking keeps."""
    config = selector.config
    quotas = parse_quotas(config.quota)
    shares = parse_shares(config.share, list(selector.join.refs))
    whole = Rule(ratio=config.ratio, tokens=config.tokens, threshold=config.threshold)

    def rule(place: Place) -> Rule:
        expert, group = place
        found = rule_of(group, quotas) if quotas else rule_of_expert(expert, shares, whole)
        return replace(found, drop_top=config.drop_top)

    return rule


class _Job:
    """One run; a stage a method."""

    def __init__(self, selector: Selector, batches: list[Batch], rules: Callable[[Place], Rule]) -> None:
        self.selector, self.batches, self.rules = selector, batches, rules
        self.config = selector.config
        self.n_units = sum(len(batch.units) for batch in batches)

    def run(self) -> tuple[dict[str, Any], int]:
        """The content of `summary.json`, and how many units were written."""
        if self.config.document_score == "kept-share":
            self.selector = replace(self.selector, token_cuts=self._token_cuts())
        histogram, bands, within = self._bands()
        output = Folder(self.config.output)
        if self.config.dry_run and not self._needs_masks():
            return self._foreseen(histogram, bands), 0
        ties = self._ties(bands, within)
        bands_kept = {place: b.kept(_in_budget(b, ties.get(place))) for place, b in bands.items()}
        computed, groups = self._write(bands, ties, set() if self.config.dry_run else published_units(output))
        if not self.config.dry_run:
            output.publish(HISTOGRAM, histogram_file(histogram, self.selector.bits))
        return self._content(bands, bands_kept, groups), computed

    def _token_cuts(self) -> dict[Expert, Cut]:
        """For documents by their share of kept tokens: the cut of all tokens, by expert."""
        tokens = replace(
            self.config, level="token", document_score="mean", ratio=self.config.token_ratio, tokens=None, threshold=None,
            per_group=False, quota=(), sample=None, drop_top=0.0,
        )  # fmt: skip
        rule = Rule(ratio=self.config.token_ratio)
        _, bands, _ = _Job(replace(self.selector, config=tokens), self.batches, lambda _: rule)._bands()
        return {expert: band.keep for (expert, _), band in bands.items()}

    def _bands(self) -> tuple[pa.Table, dict[Place, Band], dict[Place, list[int]] | None]:
        """The histogram by group, where each ranking is cut, and what was counted in detail for that."""
        bits, high = self.selector.bits, self.selector.best_high
        histogram = coarse = self._counted(None)
        within: dict[Place, list[int]] = {}
        dropped: dict[Place, int] = {}
        whole = self.config.level == "document"
        while True:
            tables = self._by_place(histogram)
            rules = {place: self.rules(place) for place in tables}
            bands = {
                place: band(
                    table, rules[place], high=high, bits=bits, whole=whole, dropped_tokens=dropped.get(place, 0)
                )
                for place, table in tables.items()
            }
            if (
                bits == 32
                and self.config.scope == "corpus"
                and (more := self._unrefined(bands, rules, histogram, within))
            ):
                within = more
                histogram = refine(coarse, self._counted(within))
                continue
            needs = {p: b.drop for p, b in bands.items() if whole and b.drop and rules[p].tokens is not None}
            if needs and not dropped:
                dropped = self._tokens_before(needs, tables, within or None)
                continue
            return histogram, bands, within or None

    def _counted(self, within: Mapping[Place, list[int]] | None) -> pa.Table:
        """The histogram of all batches."""
        if self.config.dry_run and not connected():
            count = partial(self.selector.count, within=within)
            return histogram_in_turn(count, self.batches, workers=self.config.workers)
        return histogram_of(partial(self.selector.counts, within=within), self.batches, workers=self.config.workers)

    def _by_place(self, histogram: pa.Table) -> dict[Place, pa.Table]:
        """A histogram for each ranking: by expert, and by group where each group has its own cut."""
        whole = histogram if self.config.per_group else without_groups(histogram)
        found = dict(by_place(whole))
        if unknown := set(parse_quotas(self.config.quota)) - {"*", *(group for _, group in found)}:
            raise RhoScoreError(
                f"--quota: no group is called {min(unknown)!r}; there are: {_some(g for _, g in found)}."
            )
        for expert in self.selector.experts:
            if not self.config.per_group:
                found.setdefault((expert, None), NO_COUNTS)
        return found

    def _unrefined(
        self,
        bands: Mapping[Place, Band],
        rules: Mapping[Place, Rule],
        histogram: pa.Table,
        within: Mapping[Place, list[int]],
    ) -> dict[Place, list[int]]:
        """`within`, and the high halves where cuts fall that were not counted in detail; empty where there are none."""
        wanted: dict[Place, set[int]] = {}
        for (expert, group), _ in by_place(histogram):
            place = (expert, group if self.config.per_group else None)
            highs = {cut.key >> 16 for cut in bands[place].cuts if not cut.nothing}
            if (threshold := rules[place].threshold) is not None:
                highs.add(int(keys_of(np.array([threshold]), 32)[0]) >> 16)
            wanted[expert, group] = highs | set(within.get((expert, group), ()))
        found = {place: sorted(highs) for place, highs in wanted.items()}
        return {} if found == within else found

    def _tokens_before(
        self, drops: Mapping[Place, Cut], tables: Mapping[Place, pa.Table], within: Any
    ) -> dict[Place, int]:
        """The tokens of the documents before each cut."""
        found = self._at_cuts({place: Band(cut) for place, cut in drops.items()}, within, lengths=True)
        tokens = {}
        for place, cut in drops.items():
            keys, held = (as_numpy(tables[place][name]) for name in ("key", "tokens"))
            past = keys > cut.key if cut.high else keys < cut.key
            at = [n for batch in found[place] for n in batch[0]]
            tokens[place] = int(held[past].sum()) + sum(at[: cut.ties])
        return tokens

    def _at_cuts(self, bands: Mapping[Place, Band], within: Any, *, lengths: bool) -> dict[Place, list[Any]]:
        """For each ranking and batch, what it has at each of the cuts: how many items, or the tokens of each."""
        n = len(self.batches)
        found: dict[Place, Any] = {
            p: [None] * n if lengths else np.zeros((n, len(b.cuts)), int) for p, b in bands.items()
        }
        work = partial(self.selector.at_cuts, bands=bands, within=within, lengths=lengths)
        for index, counted in fetched(in_tasks(work, self.batches, workers=self.config.workers)):
            for place, counts in counted.items():
                found[place][index] = counts
        return found

    def _ties(self, bands: Mapping[Place, Band], within: Any) -> dict[Place, np.ndarray]:
        """How many of its items at each cut a batch keeps, int64[n_batches, n_cuts], where not all or none are kept."""
        quotas: dict[Place, np.ndarray] = {}
        for lengths in (False, True):
            chosen = {
                place: b
                for place, b in bands.items()
                if any(cut.partial for cut in b.cuts) and any(cut.budget is not None for cut in b.cuts) == lengths
            }
            found = self._at_cuts(chosen, within, lengths=lengths) if chosen and self.config.scope == "corpus" else {}
            for place, at in found.items():
                shares = []
                for i, cut in enumerate(chosen[place].cuts):
                    items = [counts[i] for counts in at]
                    shares.append(
                        share_ties(cut, [len(one) for one in items] if lengths and cut.budget is None else items)
                    )
                quotas[place] = np.array(shares, np.int64).T
        return quotas

    def _write(
        self, bands: Mapping[Place, Band], ties: Mapping[Place, np.ndarray], done: set[str]
    ) -> tuple[int, dict[Group, GroupAccounts]]:
        """Write the masks; how many units that were, and the accounts by group."""
        items = (
            (batch, done.intersection(batch.names), {place: n[batch.index].tolist() for place, n in ties.items()})
            for batch in self.batches
        )
        work = partial(_write_batch, self.selector, bands)
        return written("select", work, items, self.batches, workers=self.config.workers)

    def _needs_masks(self) -> bool:
        """Whether what is kept shows in the masks only, not in the histogram."""
        alone = self.config.scope == "corpus" and self.config.min_run == 1 and self.config.level == "token"
        return not alone or len(self.selector.experts) > 1

    def _foreseen(self, histogram: pa.Table, bands: Mapping[Place, Band]) -> dict[str, Any]:
        """What would be kept of the scored tokens, from the histogram alone; documents are not known from it."""
        groups: dict[Group, GroupAccounts] = {}
        kept_so_far: dict[
            Group, float
        ] = {}  # at each cut, so that what is rounded of its groups adds up to what it keeps
        for (_, name), mine in by_place(histogram):
            ranked = name if self.config.per_group else None
            keys, tokens = (as_numpy(mine[column]) for column in ("key", "tokens"))
            before = kept_so_far.get(ranked, 0.0)
            kept_so_far[ranked] = before + float((_share_kept(keys, bands[None, ranked]) * tokens).sum())
            groups[name] = GroupAccounts(
                tokens=int(tokens.sum()),
                tokens_scored=int(tokens.sum()),
                tokens_kept=round(kept_so_far[ranked]) - round(before),
            )
        kept = {place: b.kept() for place, b in bands.items()}
        return self._content(bands, kept, groups) | {
            "approximate": any(cut.partial for b in bands.values() for cut in b.cuts)
        }

    def _content(
        self, bands: Mapping[Place, Band], kept: Mapping[Place, int], groups: Mapping[Group, GroupAccounts]
    ) -> dict[str, Any]:
        """`summary.json`."""
        names = sorted(groups, key=lambda group: (group is None, group or ""))
        bits = self.selector.bits
        return {
            "units": self.n_units,
            "score": self.selector.score,
            "level": self.config.level,
            "keep": "high" if self.selector.high else "low",
            "high_first": self.selector.best_high,
            "bits": bits,
            "groups": [{"group": group, **asdict(groups[group])} for group in names],
            "thresholds": [
                {
                    "expert": expert,
                    "group": group,
                    "threshold": None if one.keep.nothing else one.keep.value(bits),
                    "dropped_from": None if one.drop is None or one.drop.nothing else one.drop.value(bits),
                    "kept": kept[expert, group],
                }
                for (expert, group), one in (bands.items() if self.config.scope == "corpus" else ())
            ],
        }


def _some(names: Iterable[Group]) -> str:
    every = sorted({repr(name) for name in names})
    return ", ".join(every[:20]) + (f" and {len(every) - 20} more" if len(every) > 20 else "")


def _in_budget(band: Band, ties: np.ndarray | None) -> int:
    """With a budget, how many of the documents at the cut fit it; `ties`: of each batch."""
    return 0 if band.keep.budget is None or ties is None else int(ties[:, 0].sum())


def _share_kept(keys: np.ndarray, band: Band) -> np.ndarray:
    """Share of the items of each key that a band keeps, float64[n]."""

    def before(cut: Cut) -> np.ndarray:
        past = keys > cut.key if cut.high else keys < cut.key
        return np.where(past, 1.0, np.where(keys == cut.key, cut.ties / max(cut.tied, 1), 0.0))

    share: np.ndarray = before(band.keep) if band.drop is None else before(band.keep) - before(band.drop)
    return share.clip(0)


def _write_batch(selector: Selector, bands: Mapping[Place, Band], item: tuple[Batch, set[str], Any]) -> Any:
    batch, published, ties = item
    return selector.write(batch, published, bands, ties)
