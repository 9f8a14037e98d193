"""The commands of the program, with their options and examples."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rho_score.cli.score_commands import run_dedup, run_import, run_kl, run_plan, run_prior, run_score
from rho_score.cli.select_commands import run_compare, run_curve, run_dynamics, run_export, run_losses, run_select
from rho_score.cli.status_commands import run_status
from rho_score.cli.train_commands import run_report, run_train, run_tune, run_view
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
    StatusConfig,
    TrainConfig,
    TuneConfig,
    ViewConfig,
)


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
        run_plan,
        {
            "What a run would cost": "rho-score plan s3://corpora/web --model HuggingFaceTB/SmolLM2-135M "
            "--tokens-per-second 40000 --price-per-hour 2",
        },
    ),
    "dedup": Command(
        DedupConfig,
        run_dedup,
        {
            "Drop exact and near duplicates": "rho-score dedup corpus/ deduplicated --group-column source",
            "Only look": "rho-score dedup corpus/ deduplicated --similarity 0.7 --dry-run",
        },
    ),
    "score": Command(
        ScoreConfig,
        run_score,
        {
            "On this machine": "rho-score score corpus/ scores/ref --model models/ref --group-column source",
            "On a cluster of GPUs": "rho-score score s3://corpora/web s3://scores/web-ref --model my-org/ref "
            "--workers 1:200 --gpus-per-worker 1",
            "How much the scores would differ from float32": "rho-score score corpus/ scores/ref --model models/ref --verify 50",
        },
    ),
    "import": Command(
        ImportConfig,
        run_import,
        {
            "A classifier's score of each document": "rho-score import quality/ scores/quality --like scores/ref --unit other "
            "--level document --values-column score",
            "Losses of another framework, with the ids of their tokens": "rho-score import losses/ scores/other --like scores/ref "
            "--unit nats --values-column loss --ids-column input_ids",
        },
    ),
    "prior": Command(
        PriorConfig,
        run_prior,
        {
            "How rare each token is in the corpus": "rho-score prior scores/base scores/prior",
            "How rare it is in curated text": "rho-score prior scores/base scores/prior --counted-in scores/curated",
        },
    ),
    "kl": Command(
        KLConfig,
        run_kl,
        {
            "Where a model and its reference disagree": "rho-score kl scores/base scores/ref scores/kl",
        },
    ),
    "select": Command(
        SelectConfig,
        run_select,
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
        run_curve,
        {
            "Common ratios": "rho-score curve selection",
            "Two budgets, and a figure": "rho-score curve selection --tokens 1000000000 5000000000 --plot curve.svg",
        },
    ),
    "dynamics": Command(
        DynamicsConfig,
        run_dynamics,
        {
            "Keep the tokens that were learnt": "rho-score dynamics learnt "
            "--scores scores/step-1000 scores/step-5000 scores/step-20000",
            "Also keep the tokens that stayed hard": "rho-score dynamics hard --scores scores/step-1000 scores/step-20000 "
            "--keep H-L H-H --plot dynamics.svg",
        },
    ),
    "losses": Command(
        LossesConfig,
        run_losses,
        {
            "What a run did to the tokens that were kept, and to the others": "rho-score losses selection "
            "--scores step-1000=scores/step-1000 --scores step-5000=scores/step-5000",
        },
    ),
    "compare": Command(
        CompareConfig,
        run_compare,
        {
            "Is this data like mine": "rho-score compare scores/mine scores/extra --page compare.html",
            "Which groups of a corpus differ from the rest": "rho-score compare scores/ref --per-group --csv groups.csv",
        },
    ),
    "export": Command(
        ExportConfig,
        run_export,
        {
            "Blocks for Hugging Face's Trainer": "rho-score export selection train --format labels --block-size 2048",
            "A .bin file for nanoGPT, with a mask": "rho-score export selection train --format bin",
            "The kept documents with all their columns": "rho-score export selection kept --format parquet",
        },
    ),
    "train": Command(
        TrainConfig,
        run_train,
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
        run_tune,
        {
            "Which ratio, in an hour": "rho-score tune models/base tuning --scores scores/ref --eval held-out=held-out/ "
            "--ratio 0.2 0.4 0.6 0.8",
            "Tokens or documents, live or beforehand": "rho-score tune models/base tuning --scores scores/ref "
            "--base scores/base --eval held-out=held-out/ --minutes 240",
        },
    ),
    "status": Command(
        StatusConfig,
        run_status,
        {
            "How far a run is": "rho-score status s3://scores/web-ref",
            "Until it ends, with what it has cost": "rho-score status s3://scores/web-ref --watch --price-per-hour 2",
        },
    ),
    "report": Command(ReportConfig, run_report, {"A page about a selection": "rho-score report selection report.html"}),
    "view": Command(
        ViewConfig,
        run_view,
        {
            "Explore a selection": "rho-score view selection",
            "Two selections, document by document": "rho-score view selection --beside other-selection",
            "On another machine, to be reached through a tunnel": "rho-score view s3://scores/web-ref --port 8765 --no-browser",
        },
    ),
}
