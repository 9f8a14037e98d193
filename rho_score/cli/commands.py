"""Runs each command and prints its result. Every function of a command returns the exit code."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rho_score.config import (
    CompareConfig,
    CurveConfig,
    DedupConfig,
    DynamicsConfig,
    ExportConfig,
    ImportConfig,
    KLConfig,
    LossesConfig,
    PlanConfig,
    PriorConfig,
    ReportConfig,
    ScoreConfig,
    SelectConfig,
    TrainConfig,
    TuneConfig,
)
from rho_score.safe_text import visible, visible_lines, without_secrets

if TYPE_CHECKING:  # the module imports numpy, which the help does not need
    from rho_score.stores.counts import GroupCounts, ScoreCounts

QUARANTINED = 3
SHOWN = 5  # quarantined documents that are printed


def fit(text: str) -> str:
    """`text` as output may show it: without credentials, with control characters made visible."""
    return visible_lines(without_secrets(text))


def _say(text: str = "") -> None:
    print(fit(text))


def _say_finished(output: str) -> None:
    _say(f"{output} is finished already; nothing to do.")


def _plan(config: PlanConfig) -> int:
    from rho_score.scoring.estimate import estimate

    _say(estimate(config))
    return 0


def _dedup(config: DedupConfig) -> int:
    from rho_score.corpus.plan import left_out
    from rho_score.deduplicating.job import dedup

    summary = dedup(config)
    if config.dry_run:
        _say("A dry run: this is what would be dropped. Nothing was written.")
    elif summary.computed == 0:
        _say_finished(summary.output)
    total, bands = summary.counts, summary.bands
    _say(
        f"documents in {total.documents:,} = kept {total.kept:,} + exact duplicates {total.exact:,} + near duplicates "
        f"{total.near:,} + unreadable {total.unreadable:,}"
    )
    _say(f"{total.bytes - total.bytes_kept:,} of {total.bytes:,} bytes of text are dropped")
    _say(
        f"{bands.bands} bands of {bands.rows} numbers: a pair with the similarity {config.similarity:g} is looked at with "
        f"probability {bands.probability(config.similarity):.3f}"
    )
    groups = summary.groups if set(summary.groups) != {None} else {}
    if groups:
        _say(f"{'group':<24} {'documents':>12} {'kept':>12} {'exact':>12} {'near':>12} {'unreadable':>12}")
    for group, row in groups.items():
        name = visible(group or "(none)")
        _say(
            f"{name:<24.24} {row.documents:>12,} {row.kept:>12,} {row.exact:>12,} {row.near:>12,} {row.unreadable:>12,}"
        )
    for cluster in summary.clusters:
        names = ", ".join(visible(name)[:60] for name in cluster.dropped)
        more = f" and {cluster.documents - 1 - len(cluster.dropped):,} more" * (
            cluster.documents - 1 > len(cluster.dropped)
        )
        _say(f"  {cluster.documents:,} documents are alike: kept {visible(cluster.kept)[:60]}, dropped {names}{more}")
    if summary.not_shards:
        _say(f"{len(summary.not_shards):,} files of the input are no shards, {left_out(summary.not_shards)}")
    if not config.dry_run:
        _say(f"{summary.output}/data: {summary.files:,} files, {summary.size:,} bytes, in {summary.wall_s:.0f} s")
    return 0


def _score(config: ScoreConfig) -> int:
    from rho_score.corpus.plan import left_out
    from rho_score.scoring.job import score, verify

    if config.verify is not None:
        _say(str(verify(config)))
        return 0
    summary = score(config)
    counts = summary.counts
    if summary.computed == 0:
        _say_finished(summary.output)
    else:
        rate = summary.computed_tokens / summary.wall_s
        _say(
            f"scored {summary.computed} of {summary.units} units in {summary.wall_s:.0f} s "
            f"({summary.computed_tokens:,} tokens, {rate:,.0f} tokens/s from start to end; once loaded the model ran "
            f"{summary.busy_share:.1%} of the time; padding {summary.padding_share:.1%})"
        )
    mean = counts.total_nats / counts.losses if counts.losses else float("nan")
    _say(
        f"documents in {counts.documents:,} = scored {counts.scored:,} + quarantined {counts.quarantined:,}; "
        f"{counts.tokens:,} tokens, mean loss {mean:.4f} nats"
    )
    if counts.losses < counts.tokens:
        _say(f"{counts.losses:,} of the tokens have a loss; {counts.tokens - counts.losses:,} are context alone")
    if summary.not_shards:
        _say(f"{len(summary.not_shards):,} files of the input are no shards, {left_out(summary.not_shards)}")
    _print_retries(summary.retries)
    _print_retries(summary.server_retries, "server", "requests")
    if summary.spent:
        _say(summary.spent)
    if summary.weight_note:
        _say(f"weights: {summary.weight_note}")
    if counts.rescored:
        _say(f"{counts.rescored:,} documents overflowed in the run's dtype and were scored again in a wider one")
    if counts.copied:
        _say(f"{counts.copied:,} documents have the tokens of another one in their unit, and its losses")
    if counts.reused:
        _say(f"{counts.reused:,} documents have losses from {config.reuse}")
    if counts.quarantined:
        _print_quarantined(summary.output, counts.quarantined)
        return 0 if config.allow_quarantine else QUARANTINED
    return 0


def _print_quarantined(output: str, n_documents: int) -> None:
    from rho_score.files.folder import Folder
    from rho_score.stores.score_set import quarantined_documents

    for doc_id, reason in itertools.islice(quarantined_documents(Folder(output), SHOWN), SHOWN):
        _say(f"  quarantined: {visible(doc_id)[:80]}: {visible(reason)[:200]}")
    more = f"and {n_documents - SHOWN:,} more; " if n_documents > SHOWN else ""
    _say(f"{more}all reasons are in {output}/quarantine/ (columns doc_id, reason)")


def _import(config: ImportConfig) -> int:
    from rho_score.corpus.plan import left_out
    from rho_score.deriving.import_scores import import_scores

    summary = import_scores(config)
    counts, rows, without = summary.counts, summary.rows, summary.documents_without_values
    if summary.computed == 0:
        _say_finished(summary.output)
    mean = counts.total_nats / counts.losses if counts.losses else float("nan")
    _say(
        f"documents {counts.scored:,} = with values {counts.scored - without:,} + without {without:,}; "
        f"{counts.losses:,} of {counts.tokens:,} tokens have a value, mean {mean:.6g}{' nats' * (config.unit == 'nats')}"
    )
    _say(f"rows of the values {rows.rows:,}, of which {rows.unknown:,} belong to no document of the score set")
    if rows.example is not None:
        _say(f"  unknown: {visible(rows.example)[:80]}")
    if summary.not_shards:
        _say(f"{len(summary.not_shards):,} files of the values are no shards, {left_out(summary.not_shards)}")
    _print_retries(summary.retries)
    if without:
        _print_without_values(summary.output, without)
        return 0 if config.allow_missing else QUARANTINED
    return 0


def _print_without_values(output: str, n_documents: int) -> None:
    from rho_score.deriving.units import documents_without_values

    for doc_id, reason in itertools.islice(documents_without_values(output), SHOWN):
        _say(f"  without values: {visible(doc_id)[:80]}: {visible(reason)[:200]}")
    more = f"and {n_documents - SHOWN:,} more; " if n_documents > SHOWN else ""
    _say(f"{more}all reasons are in {output}/without-values/ (columns doc_id, reason)")


def _prior(config: PriorConfig) -> int:
    from rho_score.deriving.prior import prior

    summary = prior(config)
    if summary.computed == 0:
        _say_finished(summary.output)
    _say(
        f"counted {summary.tokens_counted:,} tokens; {summary.words_seen:,} of the {summary.words:,} words of the tokenizer occur"
    )
    _print_mean("loss", summary.counts)
    return 0


def _kl(config: KLConfig) -> int:
    from rho_score.deriving.kl import kl

    summary = kl(config)
    if summary.computed == 0:
        _say_finished(summary.output)
    _print_mean("lower bound of the divergence", summary.counts)
    return 0


def _print_mean(what: str, counts: "ScoreCounts") -> None:
    mean = counts.total_nats / counts.losses if counts.losses else float("nan")
    _say(
        f"{counts.scored:,} documents; {counts.losses:,} of {counts.tokens:,} tokens have a value, mean {what} {mean:.4f} nats"
    )


def _select(config: SelectConfig) -> int:
    from rho_score.selecting.job import select

    summary = select(config)
    if config.dry_run:
        _say("A dry run: this is what would be kept. Nothing was written.")
        if not _documents_known(summary.total):
            _say("Only tokens with a score are counted. Documents are counted when the masks are written.")
    elif summary.computed == 0:
        _say_finished(summary.output)
    if summary.units < summary.planned:
        _say(f"{summary.units:,} of {summary.planned:,} units are used: those that every score set has published")
    whole = summary.thresholds.get(None) if not summary.per_group else None
    _print_groups(summary.groups, summary.total, summary.threshold_of, whole)
    for row in summary.cuts:
        if row["expert"] is not None:
            place = visible(row["expert"] + (f", {row['group']}" if summary.per_group else ""))
            threshold = "none" if row["threshold"] is None else f"{row['threshold']:.6g}"
            _say(f"{place:<24} threshold {threshold}, {row['kept']:,} {config.level}s kept by this reference")
    if summary.approximate:
        _say(
            "The groups share the tokens at the threshold in proportion. Their figures are exact once the masks are written."
        )
    _print_retries(summary.retries)
    if unaligned := summary.total.documents_unaligned:
        _say(f"{unaligned:,} documents have no score: the tokenizers do not read them alike.")
    for group, counts in [*summary.groups.items(), ("all", summary.total)]:
        if (ref := counts.bits_per_byte("ref")) is not None and (group is not None or len(summary.groups) > 1):
            base = counts.bits_per_byte("base") if config.base else None
            more = "" if base is None else f", base {base:.4f}"
            _say(f"{visible(group or '(none)'):<24.24} bits per byte: reference {ref:.4f}{more}")
    return 0


def _print_retries(retries: Mapping[str, int], of: str = "storage", what: str = "calls") -> None:
    if retries:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(retries.items()))
        _say(f"{of}: {sum(retries.values()):,} {what} were made again ({kinds})")


def _documents_known(total: "GroupCounts") -> bool:
    """True if the counts include documents, which a dry run over tokens does not know."""
    return total.documents > 0 or total.tokens == 0


def _print_groups(
    groups: "dict[str | None, GroupCounts]",
    total: "GroupCounts",
    threshold_of: Callable[[str | None], float | None],
    whole: float | None,
) -> None:
    _say(f"{'group':<24} {'documents':>12} {'tokens':>16} {'kept':>16} {'share kept':>11} {'threshold':>10}")
    rows = [(visible(group or "(none)"), counts, threshold_of(group)) for group, counts in groups.items()]
    known = _documents_known(total)
    for name, counts, threshold in [*(rows if set(groups) != {None} else []), ("all", total, whole)]:
        _say(
            f"{name:<24.24} {f'{counts.documents:,}' if known else '':>12} {counts.tokens:>16,} {counts.tokens_kept:>16,} "
            f"{counts.share_kept:>11.4f} {'' if threshold is None else f'{threshold:.6g}':>10}"
        )


def _curve(config: CurveConfig) -> int:
    from rho_score.reporting.curve import curve

    _say(curve(config))
    for path in (config.plot, config.csv):
        if path:
            _say(f"wrote {path}")
    return 0


def _dynamics(config: DynamicsConfig) -> int:
    from rho_score.ranking.trends import CATEGORIES
    from rho_score.selecting.dynamics import dynamics, plotted

    summary = dynamics(config)
    if summary.computed == 0:
        _say_finished(summary.output)
    _say(f"{'group':<24}" + "".join(f" {category:>9}" for category in CATEGORIES))
    for name, shares in plotted(summary):
        _say(f"{visible(name):<24.24}" + "".join(f" {shares[category]:>9.2%}" for category in CATEGORIES))
    total = summary.total
    _say(f"the mask keeps {', '.join(config.keep)}: {total.tokens_kept:,} of {total.tokens:,} tokens")
    if config.plot:
        _say(f"wrote {config.plot}")
    return 0


def _losses(config: LossesConfig) -> int:
    from rho_score.selecting.kept_losses import losses

    summary = losses(config)
    groups = [(row.group or "(none)", row) for row in summary.groups] if config.per_group else []
    head = f"{'selection':<20} {'scores':<20} {'kept':>14} {'loss kept':>10} {'dropped':>14} {'loss dropped':>13}"
    _say(head + ("  group" if groups else ""))
    for group, row in [*groups, *(("all", row) for row in summary.rows)]:
        _say(
            f"{visible(row.selection):<20.20} {visible(row.scores):<20.20} {row.kept:>14,} {row.loss_kept:>10.4f} "
            f"{row.dropped:>14,} {row.loss_dropped:>13.4f}" + (f"  {visible(group)}" if groups else "")
        )
    if summary.left_out:
        _say(f"{summary.left_out:,} tokens have no loss under one of the score sets, and are left out.")
    for path in (config.plot, config.csv):
        if path:
            _say(f"wrote {path}")
    return 0


def _compare(config: CompareConfig) -> int:
    from rho_score.reporting.compared import QUANTILES
    from rho_score.reporting.comparison import compare
    from rho_score.reporting.verdict import sentences

    summary = compare(config)
    quantiles = "".join(f" {f'{share:.0%}':>7}" for share in QUANTILES)
    _say(f"{'':<24} {'documents':>12} {'tokens':>16} {'bits per byte':>14} {'nats/token':>11}{quantiles}")
    for part in [*summary.sets, *summary.groups]:
        _say(
            f"{visible(part.label):<24.24} {part.documents:>12,} {part.tokens:>16,} {part.bits_per_byte:>14.4f} "
            f"{part.mean_loss:>11.4f}" + "".join(f" {value:>7.3f}" for value in part.quantiles)
        )
    _say("The percentages are quantiles of the documents' bits per byte.")
    for found in summary.comparisons:
        _say()
        for sentence in sentences(found):
            _say(sentence)
    for document in summary.documents:
        _say(
            f"\n{visible(document.of)}, {document.kind}: {visible(document.doc_id)[:80]}, {document.bits_per_byte:.3f}"
        )
        _say(f"  {document.excerpt}")
    _say()
    for name, (used, planned) in summary.units.items():
        if used < planned:
            _say(f"{visible(name)}: {used:,} of {planned:,} units are used, those that are published")
        if n := summary.left_out[name]:
            _say(f"{visible(name)}: {n:,} documents are left out: they have no loss, no text, or an infinite loss")
    for path in (config.page, config.csv, config.plot):
        if path:
            _say(f"wrote {path}")
    return 0


def _export(config: ExportConfig) -> int:
    from rho_score.exporting.job import export
    from rho_score.exporting.settings import trap

    summary = export(config)
    if summary.computed == 0:
        _say_finished(summary.output)
    _say(f"{summary.output}: {summary.files:,} files, {summary.size:,} bytes, in {summary.wall_s:.0f} s")
    for field in dataclasses.fields(summary.counts):
        _say(f"{field.name.replace('_', ' '):<24} {getattr(summary.counts, field.name):>16,}")
    _say(f"note: {trap(config)}")
    return 0


def _train(config: TrainConfig) -> int:
    from rho_score.training.job import train

    summary = train(config)
    share = summary.tokens_trained / summary.tokens_seen if summary.tokens_seen else 0.0
    what = f"{summary.tokens_seen:,} tokens seen, {summary.tokens_trained:,} trained on ({share:.1%})"
    if config.dry_run:
        _say("A dry run: this is what would be trained, about. Nothing was written.")
        _say(f"{summary.steps:,} steps over {summary.blocks:,} rows of {config.block_size:,} tokens; {what}")
        _print_left_out(summary.data)
        return 0
    if summary.computed == 0:
        _say_finished(summary.output)
    else:
        _say(f"trained {summary.computed:,} of {summary.steps:,} steps in {summary.wall_s:.0f} s; {what}")
    _print_left_out(summary.data)
    _print_evaluations(summary.evaluations)
    _say(f"the model is in {summary.model}")
    return 0


def _tune(config: TuneConfig) -> int:
    from rho_score.tuning.job import tune
    from rho_score.tuning.trials import last_trials, mean_loss

    summary = tune(config, tell=_say)
    if summary.best is None:
        runs = [f"{r.n_candidates} × {r.n_seeds} of {2**r.doublings} ×" for r in summary.rungs]
        _say("A dry run: nothing was written. These would be tried:")
        for candidate in summary.candidates:
            _say(f"  {candidate.name}")
        _say(f"runs of each length, in lengths of the first: {', '.join(runs)}")
        return 0
    _say(f"\n{'candidate':<40} {'steps':>8} {'seeds':>5} {'trained on':>14} {'loss':>9}  gain over all tokens, by seed")
    for trials in last_trials(summary.trials):
        name = trials[0].candidate.name
        trained = sum(trial.tokens_trained for trial in trials) / len(trials)
        shown = ", ".join(f"{gain:+.4f}" for gain in summary.gains.get(name, []))
        _say(
            f"{name:<40.40} {trials[0].steps:>8,} {len(trials):>5} {trained:>14,.0f} {mean_loss(trials):>9.4f}  {shown}"
        )
    if summary.best.is_control:
        _say("\nNo rule was better than training on all tokens with every seed. Train on all of them:")
    else:
        _say(f"\n{summary.best.rule} was the best. Train with it (N: as many tokens as you can):")
    for command in summary.commands:
        _say(f"  {command}")
    return 0


def _print_left_out(data: Mapping[str, int]) -> None:
    """Prints what became of documents that are not trained on."""
    for name, why in (
        ("unusable", "cannot be read"),
        ("other", "are left out by --within"),
        ("untrained", "have no token to train on"),
    ):
        if data[name]:
            _say(f"{data[name]:,} documents {why}; {data['documents']:,} are in the rows")


def _print_evaluations(rows: "Sequence[Mapping[str, Any]]") -> None:
    """Prints the held-out losses at the first and at the last step."""
    from rho_score.stores.training_run import before_and_after

    found = before_and_after(rows)
    if found:
        _say(f"{'held out':<32} {'tokens':>12} {'loss before':>12} {'loss after':>12} {'bits per byte':>14}")
    for name, before, row in found:
        bits = row["bits_per_byte"]
        _say(
            f"{visible(name):<32.32} {row['tokens']:>12,} {'' if before is None else f'{before:.4f}':>12} {row['loss']:>12.4f} "
            f"{'' if bits is None else f'{bits:.4f}':>14}"
        )


def _report(config: ReportConfig) -> int:
    from rho_score.reporting.page import report

    _say(f"wrote {report(config)}")
    return 0


class Command(NamedTuple):
    """A command of the program."""

    config: type
    """The configuration class, whose fields are the command's options."""
    run: Callable[[Any], int]
    """Runs the command and returns the exit code."""
    examples: Mapping[str, str]
    """Example command lines by title."""


COMMANDS = {
    "plan": Command(
        PlanConfig,
        _plan,
        {
            "What a run would cost": "rho-score plan s3://corpora/web --model HuggingFaceTB/SmolLM2-135M "
            "--tokens-per-second 40000 --price-per-hour 2",
        },
    ),
    "dedup": Command(
        DedupConfig,
        _dedup,
        {
            "Drop exact and near duplicates": "rho-score dedup corpus/ deduplicated --group-column source",
            "Only look": "rho-score dedup corpus/ deduplicated --similarity 0.7 --dry-run",
        },
    ),
    "score": Command(
        ScoreConfig,
        _score,
        {
            "On this machine": "rho-score score corpus/ scores/ref --model models/ref --group-column source",
            "On a cluster of GPUs": "rho-score score s3://corpora/web s3://scores/web-ref --model my-org/ref "
            "--workers 1:200 --gpus-per-worker 1",
            "How much the scores would differ from float32": "rho-score score corpus/ scores/ref --model models/ref --verify 50",
        },
    ),
    "import": Command(
        ImportConfig,
        _import,
        {
            "A classifier's score of each document": "rho-score import quality/ scores/quality --like scores/ref --unit other "
            "--level document --values-column score",
            "Losses of another framework, with the ids of their tokens": "rho-score import losses/ scores/other --like scores/ref "
            "--unit nats --values-column loss --ids-column input_ids",
        },
    ),
    "prior": Command(
        PriorConfig,
        _prior,
        {
            "How rare each token is in the corpus": "rho-score prior scores/base scores/prior",
            "How rare it is in curated text": "rho-score prior scores/base scores/prior --counted-in scores/curated",
        },
    ),
    "kl": Command(
        KLConfig,
        _kl,
        {
            "Where a model and its reference disagree": "rho-score kl scores/base scores/ref scores/kl",
        },
    ),
    "select": Command(
        SelectConfig,
        _select,
        {
            "The method of Rho-1": "rho-score select selection --ref scores/ref --base scores/base --ratio 0.6",
            "The best billion tokens, as whole documents": "rho-score select selection --ref scores/ref "
            "--tokens 1000000000 --level document",
            "Two references, each with its own share": "rho-score select selection --ref math=scores/math "
            "--ref code=scores/code --base scores/base --combine union --ratio 0.3 --share code=0.5",
        },
    ),
    "curve": Command(
        CurveConfig,
        _curve,
        {
            "Common ratios": "rho-score curve selection",
            "Two budgets, and a figure": "rho-score curve selection --tokens 1000000000 5000000000 --plot curve.svg",
        },
    ),
    "dynamics": Command(
        DynamicsConfig,
        _dynamics,
        {
            "Keep the tokens that were learnt": "rho-score dynamics learnt "
            "--scores scores/step-1000 scores/step-5000 scores/step-20000",
            "Also keep the tokens that stayed hard": "rho-score dynamics hard --scores scores/step-1000 scores/step-20000 "
            "--keep H-L H-H --plot dynamics.svg",
        },
    ),
    "losses": Command(
        LossesConfig,
        _losses,
        {
            "What a run did to the tokens that were kept, and to the others": "rho-score losses selection "
            "--scores step-1000=scores/step-1000 --scores step-5000=scores/step-5000",
        },
    ),
    "compare": Command(
        CompareConfig,
        _compare,
        {
            "Is this data like mine": "rho-score compare scores/mine scores/extra --page compare.html",
            "Which groups of a corpus differ from the rest": "rho-score compare scores/ref --per-group --csv groups.csv",
        },
    ),
    "export": Command(
        ExportConfig,
        _export,
        {
            "Blocks for Hugging Face's Trainer": "rho-score export selection train --format labels --block-size 2048",
            "A .bin file for nanoGPT, with a mask": "rho-score export selection train --format bin",
            "The kept documents with all their columns": "rho-score export selection kept --format parquet",
        },
    ),
    "train": Command(
        TrainConfig,
        _train,
        {
            "A reference model, from curated text": "rho-score train models/base runs/ref --text curated/ --epochs 1",
            "The method of Rho-1, live": "rho-score train models/base runs/slm --scores scores/ref --ratio 0.6 --tokens 1000000000 "
            "--eval held-out=held-out/",
            "On eight GPUs": "rho-score train my-org/base s3://runs/slm --scores s3://scores/ref --ratio 0.6 --steps 10000 "
            "--workers 8 --fsdp",
        },
    ),
    "tune": Command(
        TuneConfig,
        _tune,
        {
            "Which ratio, in an hour": "rho-score tune models/base tuning --scores scores/ref --eval held-out=held-out/ "
            "--ratio 0.2 0.4 0.6 0.8",
            "Tokens or documents, live or beforehand": "rho-score tune models/base tuning --scores scores/ref "
            "--base scores/base --eval held-out=held-out/ --minutes 240",
        },
    ),
    "report": Command(ReportConfig, _report, {"A page about a selection": "rho-score report selection report.html"}),
}
