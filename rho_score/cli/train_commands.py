"""The commands that train, and the pages. Every function runs one and returns the exit code."""

from collections.abc import Mapping, Sequence
from typing import Any

from rho_score.cli.output import say, say_finished
from rho_score.config import ReportConfig, TrainConfig, TuneConfig, ViewConfig
from rho_score.safe_text import visible


def run_train(config: TrainConfig) -> int:
    from rho_score.training.job import train

    summary = train(config)
    share = summary.tokens_trained / summary.tokens_seen if summary.tokens_seen else 0.0
    what = f"{summary.tokens_seen:,} tokens seen, {summary.tokens_trained:,} trained on ({share:.1%})"
    if config.dry_run:
        say("A dry run: this is what would be trained, about. Nothing was written.")
        say(f"{summary.steps:,} steps over {summary.blocks:,} rows of {config.block_size:,} tokens; {what}")
        _print_left_out(summary.data)
        return 0
    if summary.computed == 0:
        say_finished(summary.output)
    else:
        say(f"trained {summary.computed:,} of {summary.steps:,} steps in {summary.wall_s:.0f} s; {what}")
    _print_left_out(summary.data)
    _print_evaluations(summary.evaluations)
    say(f"the model is in {summary.model}")
    return 0


def run_tune(config: TuneConfig) -> int:
    from rho_score.tuning.job import tune
    from rho_score.tuning.trials import last_trials, mean_loss

    summary = tune(config, tell=say)
    if summary.best is None:
        runs = [f"{r.n_candidates} × {r.n_seeds} of {2**r.doublings} ×" for r in summary.rungs]
        say("A dry run: nothing was written. These would be tried:")
        for candidate in summary.candidates:
            say(f"  {candidate.name}")
        say(f"runs of each length, in lengths of the first: {', '.join(runs)}")
        return 0
    say(f"\n{'candidate':<40} {'steps':>8} {'seeds':>5} {'trained on':>14} {'loss':>9}  gain over all tokens, by seed")
    for trials in last_trials(summary.trials):
        name = trials[0].candidate.name
        trained = sum(trial.tokens_trained for trial in trials) / len(trials)
        shown = ", ".join(f"{gain:+.4f}" for gain in summary.gains.get(name, []))
        say(
            f"{name:<40.40} {trials[0].steps:>8,} {len(trials):>5} {trained:>14,.0f} {mean_loss(trials):>9.4f}  {shown}"
        )
    if summary.best.is_control:
        say("\nNo rule was better than training on all tokens with every seed. Train on all of them:")
    else:
        say(f"\n{summary.best.rule} was the best. Train with it (N: as many tokens as you can):")
    for command in summary.commands:
        say(f"  {command}")
    return 0


def _print_left_out(data: Mapping[str, int]) -> None:
    """Prints what became of documents that are not trained on."""
    for name, why in (
        ("unusable", "cannot be read"),
        ("other", "are left out by --within"),
        ("untrained", "have no token to train on"),
    ):
        if data[name]:
            say(f"{data[name]:,} documents {why}; {data['documents']:,} are in the rows")


def _print_evaluations(rows: "Sequence[Mapping[str, Any]]") -> None:
    """Prints the held-out losses at the first and at the last step."""
    from rho_score.stores.training_run import before_and_after

    found = before_and_after(rows)
    if found:
        say(f"{'held out':<32} {'tokens':>12} {'loss before':>12} {'loss after':>12} {'bits per byte':>14}")
    for name, before, row in found:
        bits = row["bits_per_byte"]
        say(
            f"{visible(name):<32.32} {row['tokens']:>12,} {'' if before is None else f'{before:.4f}':>12} {row['loss']:>12.4f} "
            f"{'' if bits is None else f'{bits:.4f}':>14}"
        )


def run_report(config: ReportConfig) -> int:
    from rho_score.reporting.page import report

    say(f"wrote {report(config)}")
    return 0


def run_view(config: ViewConfig) -> int:
    from rho_score.viewing.job import view

    def tell(url: str) -> None:
        print(f"{url}\nThe page is served to whoever on this machine has this URL. Ctrl-C ends it.", flush=True)

    view(config, tell)
    return 0
