"""The commands that read corpora and write score sets. Every function runs one and returns the exit code."""

from rho_score.cli.output import (
    QUARANTINED,
    SHOWN,
    print_left_out,
    print_mean,
    print_reasons,
    print_retries,
    say,
    say_finished,
)
from rho_score.config import DedupConfig, ImportConfig, KLConfig, PlanConfig, PriorConfig, ScoreConfig
from rho_score.safe_text import visible


def run_plan(config: PlanConfig) -> int:
    from rho_score.scoring.plan_lines import estimate

    say(estimate(config))
    return 0


def run_dedup(config: DedupConfig) -> int:
    from rho_score.deduplicating.job import dedup

    summary = dedup(config)
    if config.dry_run:
        say("A dry run: this is what would be dropped. Nothing was written.")
    elif summary.computed == 0:
        say_finished(summary.output)
    total, bands = summary.counts, summary.bands
    say(
        f"documents in {total.documents:,} = kept {total.kept:,} + exact duplicates {total.exact:,} + near duplicates "
        f"{total.near:,} + unreadable {total.unreadable:,}"
    )
    say(f"{total.bytes - total.bytes_kept:,} of {total.bytes:,} bytes of text are dropped")
    say(
        f"{bands.bands} bands of {bands.rows} numbers: a pair with the similarity {config.similarity:g} is looked at with "
        f"probability {bands.probability(config.similarity):.3f}"
    )
    groups = summary.groups if set(summary.groups) != {None} else {}
    if groups:
        say(f"{'group':<24} {'documents':>12} {'kept':>12} {'exact':>12} {'near':>12} {'unreadable':>12}")
    for group, row in groups.items():
        name = visible(group or "(none)")
        say(
            f"{name:<24.24} {row.documents:>12,} {row.kept:>12,} {row.exact:>12,} {row.near:>12,} {row.unreadable:>12,}"
        )
    for cluster in summary.clusters:
        names = ", ".join(visible(name)[:60] for name in cluster.dropped)
        more = f" and {cluster.documents - 1 - len(cluster.dropped):,} more" * (
            cluster.documents - 1 > len(cluster.dropped)
        )
        say(f"  {cluster.documents:,} documents are alike: kept {visible(cluster.kept)[:60]}, dropped {names}{more}")
    print_left_out(summary.not_shards)
    if not config.dry_run:
        say(f"{summary.output}/data: {summary.files:,} files, {summary.size:,} bytes, in {summary.wall_s:.0f} s")
    return 0


def run_score(config: ScoreConfig) -> int:
    from rho_score.files.folder import Folder
    from rho_score.scoring.job import score, verify
    from rho_score.stores.score_set import quarantined_documents

    if config.verify is not None:
        say(str(verify(config)))
        return 0
    summary = score(config)
    counts = summary.counts
    if summary.computed == 0:
        say_finished(summary.output)
    else:
        rate = summary.computed_tokens / summary.wall_s
        say(
            f"scored {summary.computed} of {summary.units} units in {summary.wall_s:.0f} s "
            f"({summary.computed_tokens:,} tokens, {rate:,.0f} tokens/s from start to end; once loaded the model ran "
            f"{summary.busy_share:.1%} of the time; padding {summary.padding_share:.1%})"
        )
    say(
        f"documents in {counts.documents:,} = scored {counts.scored:,} + quarantined {counts.quarantined:,}; "
        f"{counts.tokens:,} tokens, mean loss {counts.mean:.4f} nats"
    )
    if counts.losses < counts.tokens:
        say(f"{counts.losses:,} of the tokens have a loss; {counts.tokens - counts.losses:,} are context alone")
    print_left_out(summary.not_shards)
    print_retries(summary.retries)
    print_retries(summary.server_retries, "server", "requests")
    if summary.spent:
        say(summary.spent)
    if summary.weight_note:
        say(f"weights: {summary.weight_note}")
    if counts.rescored:
        say(f"{counts.rescored:,} documents overflowed in the run's dtype and were scored again in a wider one")
    if counts.copied:
        say(f"{counts.copied:,} documents have the tokens of another one in their unit, and its losses")
    if counts.reused:
        say(f"{counts.reused:,} documents have losses from {config.reuse}")
    if counts.quarantined:
        quarantined = quarantined_documents(Folder(summary.output), SHOWN)
        print_reasons("quarantined", quarantined, counts.quarantined, f"{summary.output}/quarantine")
        return 0 if config.allow_quarantine else QUARANTINED
    return 0


def run_import(config: ImportConfig) -> int:
    from rho_score.deriving.import_scores import import_scores
    from rho_score.deriving.units import documents_without_values

    summary = import_scores(config)
    counts, rows, without = summary.counts, summary.rows, summary.documents_without_values
    if summary.computed == 0:
        say_finished(summary.output)
    say(
        f"documents {counts.scored:,} = with values {counts.scored - without:,} + without {without:,}; "
        f"{counts.losses:,} of {counts.tokens:,} tokens have a value, mean {counts.mean:.6g}{' nats' * (config.unit == 'nats')}"
    )
    say(f"rows of the values {rows.rows:,}, of which {rows.unknown:,} belong to no document of the score set")
    if rows.example is not None:
        say(f"  unknown: {visible(rows.example)[:80]}")
    print_left_out(summary.not_shards, "values")
    print_retries(summary.retries)
    if without:
        listed = documents_without_values(summary.output)
        print_reasons("without values", listed, without, f"{summary.output}/without-values")
        return 0 if config.allow_missing else QUARANTINED
    return 0


def run_prior(config: PriorConfig) -> int:
    from rho_score.deriving.prior import prior

    summary = prior(config)
    if summary.computed == 0:
        say_finished(summary.output)
    say(
        f"counted {summary.tokens_counted:,} tokens; {summary.words_seen:,} of the {summary.words:,} words of the tokenizer occur"
    )
    print_mean("loss", summary.counts)
    return 0


def run_kl(config: KLConfig) -> int:
    from rho_score.deriving.kl import kl

    summary = kl(config)
    if summary.computed == 0:
        say_finished(summary.output)
    print_mean("lower bound of the divergence", summary.counts)
    return 0
