"""The commands that read score sets and selections. Every function runs one and returns the exit code."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from rho_score.cli.output import documents_known, print_retries, say, say_finished, say_written
from rho_score.config import CompareConfig, CurveConfig, DynamicsConfig, ExportConfig, LossesConfig, SelectConfig
from rho_score.safe_text import visible

if TYPE_CHECKING:  # the module imports numpy, which the help does not need
    from rho_score.stores.counts import GroupCounts


def run_select(config: SelectConfig) -> int:
    from rho_score.selecting.job import select

    summary = select(config)
    if config.dry_run:
        say("A dry run: this is what would be kept. Nothing was written.")
        if not documents_known(summary.total):
            say("Only tokens with a score are counted. Documents are counted when the masks are written.")
    elif summary.computed == 0:
        say_finished(summary.output)
    if summary.units < summary.planned:
        say(f"{summary.units:,} of {summary.planned:,} units are used: those that every score set has published")
    whole = summary.thresholds.get(None) if not summary.per_group else None
    _print_groups(summary.groups, summary.total, summary.threshold_of, whole)
    for row in summary.cuts:
        if row["expert"] is not None:
            place = visible(row["expert"] + (f", {row['group']}" if summary.per_group else ""))
            threshold = "none" if row["threshold"] is None else f"{row['threshold']:.6g}"
            say(f"{place:<24} threshold {threshold}, {row['kept']:,} {config.level}s kept by this reference")
    if summary.approximate:
        say(
            "The groups share the tokens at the threshold in proportion. Their figures are exact once the masks are written."
        )
    print_retries(summary.retries)
    if unaligned := summary.total.documents_unaligned:
        say(f"{unaligned:,} documents have no score: the tokenizers do not read them alike.")
    for group, counts in [*summary.groups.items(), ("all", summary.total)]:
        if (ref := counts.bits_per_byte("ref")) is not None and (group is not None or len(summary.groups) > 1):
            base = counts.bits_per_byte("base") if config.base else None
            more = "" if base is None else f", base {base:.4f}"
            say(f"{visible(group or '(none)'):<24.24} bits per byte: reference {ref:.4f}{more}")
    return 0


def _print_groups(
    groups: "dict[str | None, GroupCounts]",
    total: "GroupCounts",
    threshold_of: Callable[[str | None], float | None],
    whole: float | None,
) -> None:
    say(f"{'group':<24} {'documents':>12} {'tokens':>16} {'kept':>16} {'share kept':>11} {'threshold':>10}")
    rows = [(visible(group or "(none)"), counts, threshold_of(group)) for group, counts in groups.items()]
    known = documents_known(total)
    for name, counts, threshold in [*(rows if set(groups) != {None} else []), ("all", total, whole)]:
        say(
            f"{name:<24.24} {f'{counts.documents:,}' if known else '':>12} {counts.tokens:>16,} {counts.tokens_kept:>16,} "
            f"{counts.share_kept:>11.4f} {'' if threshold is None else f'{threshold:.6g}':>10}"
        )


def run_curve(config: CurveConfig) -> int:
    from rho_score.reporting.curve import curve

    say(curve(config))
    say_written(config.plot, config.csv)
    return 0


def run_dynamics(config: DynamicsConfig) -> int:
    from rho_score.ranking.trends import CATEGORIES
    from rho_score.selecting.dynamics import dynamics, plotted

    summary = dynamics(config)
    if summary.computed == 0:
        say_finished(summary.output)
    say(f"{'group':<24}" + "".join(f" {category:>9}" for category in CATEGORIES))
    for name, shares in plotted(summary):
        say(f"{visible(name):<24.24}" + "".join(f" {shares[category]:>9.2%}" for category in CATEGORIES))
    total = summary.total
    say(f"the mask keeps {', '.join(config.keep)}: {total.tokens_kept:,} of {total.tokens:,} tokens")
    say_written(config.plot)
    return 0


def run_losses(config: LossesConfig) -> int:
    from rho_score.selecting.kept_losses import losses

    summary = losses(config)
    groups = [(row.group or "(none)", row) for row in summary.groups] if config.per_group else []
    head = f"{'selection':<20} {'scores':<20} {'kept':>14} {'loss kept':>10} {'dropped':>14} {'loss dropped':>13}"
    say(head + ("  group" if groups else ""))
    for group, row in [*groups, *(("all", row) for row in summary.rows)]:
        say(
            f"{visible(row.selection):<20.20} {visible(row.scores):<20.20} {row.kept:>14,} {row.loss_kept:>10.4f} "
            f"{row.dropped:>14,} {row.loss_dropped:>13.4f}" + (f"  {visible(group)}" if groups else "")
        )
    if summary.left_out:
        say(f"{summary.left_out:,} tokens have no loss under one of the score sets, and are left out.")
    say_written(config.plot, config.csv)
    return 0


def run_compare(config: CompareConfig) -> int:
    from rho_score.reporting.compared import QUANTILES
    from rho_score.reporting.comparison import compare
    from rho_score.reporting.verdict import sentences

    summary = compare(config)
    quantiles = "".join(f" {f'{share:.0%}':>7}" for share in QUANTILES)
    say(f"{'':<24} {'documents':>12} {'tokens':>16} {'bits per byte':>14} {'nats/token':>11}{quantiles}")
    for part in [*summary.sets, *summary.groups]:
        say(
            f"{visible(part.label):<24.24} {part.documents:>12,} {part.tokens:>16,} {part.bits_per_byte:>14.4f} "
            f"{part.mean_loss:>11.4f}" + "".join(f" {value:>7.3f}" for value in part.quantiles)
        )
    say("The percentages are quantiles of the documents' bits per byte.")
    for found in summary.comparisons:
        say()
        for sentence in sentences(found):
            say(sentence)
    for document in summary.documents:
        say(f"\n{visible(document.of)}, {document.kind}: {visible(document.doc_id)[:80]}, {document.bits_per_byte:.3f}")
        say(f"  {document.excerpt}")
    say()
    for name, (used, planned) in summary.units.items():
        if used < planned:
            say(f"{visible(name)}: {used:,} of {planned:,} units are used, those that are published")
        if n := summary.left_out[name]:
            say(f"{visible(name)}: {n:,} documents are left out: they have no loss, no text, or an infinite loss")
    say_written(config.page, config.csv, config.plot)
    return 0


def run_export(config: ExportConfig) -> int:
    from rho_score.exporting.job import export
    from rho_score.exporting.settings import trap

    summary = export(config)
    if summary.computed == 0:
        say_finished(summary.output)
    say(f"{summary.output}: {summary.files:,} files, {summary.size:,} bytes, in {summary.wall_s:.0f} s")
    for field in dataclasses.fields(summary.counts):
        say(f"{field.name.replace('_', ' '):<24} {getattr(summary.counts, field.name):>16,}")
    say(f"note: {trap(config)}")
    return 0
