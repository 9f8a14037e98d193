"""Compares the bits per byte of score sets, or of the groups of one, under one model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rho_score.cluster.progress import Progress
from rho_score.cluster.ray_cluster import cluster_or_threads, joined
from rho_score.cluster.tasks import in_order, in_tasks, result
from rho_score.config import CompareConfig
from rho_score.errors import InputError
from rho_score.files.folder import file_at
from rho_score.files.paths import check_writable
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.histogram import Group
from rho_score.ranking.rates import Rates
from rho_score.reporting.compared import TAILS, CompareSummary, Comparison, PartStats
from rho_score.reporting.comparison_csv import csv_of
from rho_score.reporting.same_model import check_same_model, same_parts
from rho_score.reporting.shown_documents import ShownDocument, shown_documents
from rho_score.reporting.tally import Candidates, Tally, best_of
from rho_score.stores.layout import published_units
from rho_score.stores.names import named_or_told_apart
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.tokenizer import load_store_tokenizer

REST = "the other documents"
MOST_GROUPS = 20
"""Groups of a set alone of which documents are shown, the largest first."""
_MERGED = 32  # samples of a group that wait until they are added up
_Pair = tuple[Comparison, Rates, Rates]
"""A comparison with the first's rates and the other's."""


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """A score set with what was counted of it."""

    scores: ScoreSet
    units: list[str]
    groups: dict[Group, Rates]
    """In the order of the groups' names."""
    whole: Rates
    left_out: int
    candidates: Candidates


def compare(config: CompareConfig) -> CompareSummary:
    """Compares the first score set with the others, or the groups of one with one another.

    Raises:
        InputError: an option is wrong, the score sets cannot be compared, or one has no document
            with bits per byte. The message says what differs.
    """
    named = named_or_told_apart(config.scores)
    _check(config, len(named))
    with joined():
        sets = {name: ScoreSet.open(url, finished=not config.allow_unfinished) for name, url in named.items()}
        check_same_model(sets)
        if config.per_group and not any(scores.grouped for scores in sets.values()):
            raise InputError("--per-group needs groups, but the score sets have none. Score with --group-column.")
        main = next(iter(sets.values()))
        tokenizer = load_store_tokenizer(main)
        with cluster_or_threads():
            counted = _all_counted(config, sets, Vocabulary.of(tokenizer))
    parts = {(name, group): rates for name, of in counted.items() for group, rates in of.groups.items()}
    pairs = _pairs(counted, per_group=config.per_group)
    summary = CompareSummary(
        sets=[PartStats.of(of.whole, name, None, name) for name, of in counted.items()],
        groups=[
            PartStats.of(rates, name, group, _label(name, group, len(sets) > 1))
            for (name, group), rates in parts.items()
        ]
        if config.per_group
        else [],
        comparisons=[comparison for comparison, _, _ in pairs],
        documents=_documents(counted, pairs, tokenizer),
        left_out={name: of.left_out for name, of in counted.items()},
        units={name: (len(of.units), of.scores.n_units) for name, of in counted.items()},
    )
    _publish(config, summary, {name: of.whole for name, of in counted.items()}, pairs, main, tokenizer)
    return summary


def _check(config: CompareConfig, n_sets: int) -> None:
    if n_sets < 2 and not config.per_group:
        raise InputError(
            "compare needs two or more score sets, of which the first is yours, or one set with --per-group."
        )
    for option, least in (("documents", 0), ("min_tokens", 1)):
        if (value := getattr(config, option)) < least:
            raise InputError(f"--{option.replace('_', '-')} must be at least {least}, got {value}.")
    if config.plot:
        from rho_score.charts import check_plot  # matplotlib and jinja2 are an extra

        check_plot(config.plot)
    if config.page:
        import rho_score.reporting.comparison_page  # noqa: F401

        check_writable("--page", config.page, file=True)
    if config.csv:
        check_writable("--csv", config.csv, file=True)


def _all_counted(config: CompareConfig, sets: Mapping[str, ScoreSet], vocabulary: Vocabulary) -> dict[str, _Counted]:
    units = {name: _units(scores) for name, scores in sets.items()}
    alone = len(sets) == 1
    counted: dict[str, _Counted] = {}
    middle = None
    with Progress("compare", n_units=sum(map(len, units.values()))) as progress:
        for name, scores in sets.items():
            tally = Tally(
                url=scores.folder.url,
                vocabulary=vocabulary,
                grouped=config.per_group and scores.grouped,
                shown=config.documents if alone or counted else 0,
                shown_by_group=alone,
                min_tokens=config.min_tokens,
                middle=middle,
            )
            counted[name] = found = _counted(tally, scores, units[name], progress, config.workers)
            if not found.whole.documents:
                raise InputError(f"{scores.folder.url} has no document with a loss and text. Nothing can be compared.")
            [middle] = next(iter(counted.values())).whole.quantiles((0.5,))
    return counted


def _units(scores: ScoreSet) -> list[str]:
    """The names of the units that are published, in corpus order."""
    names: list[str] = scores.plan_names()["unit"].to_pylist()
    if scores.finished:
        return names
    published = published_units(scores.folder)
    return [name for name in names if name in published]


def _counted(tally: Tally, scores: ScoreSet, units: list[str], progress: Progress, workers: int | None) -> _Counted:
    size = max(1, min(64, len(units) // 64))
    batches = [units[i : i + size] for i in range(0, len(units), size)]
    groups: dict[Group, list[Rates]] = {}
    left_out = 0
    candidates: Candidates = {}
    tasks = ((index, result(reference)) for index, reference in in_tasks(tally.count, batches, workers=workers))
    for index, found in in_order(tasks):  # so that sums of floats are always the same
        left_out += found.left_out
        candidates = best_of(tally.shown, candidates, found.candidates)
        for group, rates in found.groups.items():
            waiting = groups.setdefault(group, [])
            waiting.append(rates)
            if len(waiting) >= _MERGED:
                groups[group] = [Rates.total(waiting)]
        tokens = sum(round(rates.added.tokens) for rates in found.groups.values())
        progress.add(tokens=tokens, units=len(batches[index]))
    names = sorted(groups, key=lambda group: (group is None, group or ""))
    merged = {name: Rates.total(groups[name]) for name in names}
    return _Counted(
        scores=scores,
        units=units,
        groups=merged,
        whole=Rates.total(list(merged.values())),
        left_out=left_out,
        candidates=candidates,
    )


def _pairs(counted: Mapping[str, _Counted], *, per_group: bool) -> list[_Pair]:
    """Every comparison, with the rates of both sides."""
    (first_name, first), *others = counted.items()
    if not others:
        if len(first.groups) < 2:
            raise InputError(f"{first.scores.folder.url} has only one group, which cannot be compared with others.")
        return [
            _pair(first.whole.without(rates), rates, first_name, group, _label("", group, False), REST)
            for group, rates in first.groups.items()
        ]
    pairs = []
    for name, of in others:
        pairs.append(_pair(first.whole, of.whole, name, None, name, first_name, whole=True))
        if per_group:
            pairs += [
                _pair(first.whole, rates, name, group, _label(name, group, True), first_name)
                for group, rates in of.groups.items()
            ]
    return pairs


def _pair(
    first: Rates, other: Rates, name: str, group: Group, label: str, against: str, *, whole: bool = False
) -> _Pair:
    found = Comparison.of(first, other, name=name, group=group, whole=whole, label=label, against=against)
    return found, first, other


def _label(name: str, group: Group, several: bool) -> str:
    shown = "(no group)" if group is None else group
    return f"{name}, {shown}" if several else shown


def _documents(
    counted: Mapping[str, _Counted], pairs: Sequence[_Pair], tokenizer: PreTrainedTokenizerBase
) -> list[ShownDocument]:
    """The documents to show of each set, or of each group of a set alone."""
    alone = len(counted) == 1
    if alone:
        pairs = sorted(pairs, key=lambda pair: -pair[2].documents)[:MOST_GROUPS]
    found = []
    for comparison, first, _ in pairs:
        if alone or comparison.whole:
            of = counted[comparison.name]
            key = comparison.group if alone else None
            chosen = {kind: candidates for (group, kind), candidates in of.candidates.items() if group == key}
            found += shown_documents(of.scores, comparison.label, chosen, first.quantiles(TAILS), tokenizer)
    return found


def _publish(
    config: CompareConfig, summary: CompareSummary, sets: Mapping[str, Rates], pairs: Sequence[_Pair], main: ScoreSet,
    tokenizer: PreTrainedTokenizerBase,
) -> None:  # fmt: skip
    """Writes the files that were asked for."""
    drawn = dict(sets) if len(sets) > 1 else {comparison.label: other for comparison, _, other in pairs}
    if config.csv:
        folder, name = file_at(config.csv)
        folder.publish(name, csv_of(summary))
    if config.plot:
        from rho_score.charts import image, image_kind
        from rho_score.reporting.comparison_figures import distributions

        folder, name = file_at(config.plot)
        folder.publish(name, image(distributions(drawn), image_kind(name)))
    if config.page:
        from rho_score.reporting.comparison_page import write_page

        write_page(config, summary, drawn, same_parts(main), tokenizer)
