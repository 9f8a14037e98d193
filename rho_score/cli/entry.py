"""`rho-score plan | score | select | curve | dynamics | export | report`: parse into a frozen dataclass, make one library call, print what came out.

A configuration file (`--config FILE`, YAML) holds the same options under the same names; flags given beside it win.
"""

import functools
import gc
import logging
import operator
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import tyro

from rho_score.cli.commands import COMMANDS, fit
from rho_score.cli.paths import with_home
from rho_score.cli.pipes import outlive_readers
from rho_score.errors import InputError, RhoScoreError

EXAMPLES = {
    "plan": """Say what a run would do and cost; run nothing.

Example: rho-score plan s3://corpora/web --model HuggingFaceTB/SmolLM2-135M""",
    "score": """Score every token of a corpus with one model; write a score set. Run the same command again to resume.

Example, on this machine: rho-score score corpus/ scores/ref --model models/ref --group-column source

Example, how far from float32 its scores would be: rho-score score corpus/ scores/ref --model models/ref --verify 50

Example, on a cluster: rho-score score s3://corpora/web s3://scores/web-ref --model my-org/ref --workers 1:200 --gpus-per-worker 1

Exit codes: 0 all done; 1 failed; 2 wrong usage or input, nothing was run; 3 done, but documents were quarantined.""",
    "select": """Keep the tokens (or documents) that score best over the whole corpus; write a selection. Reads scores, never a model.

Example, the method of Rho-1: rho-score select --ref scores/ref --base scores/base selection --ratio 0.6

Example, what would that keep? rho-score select --ref scores/ref --base scores/base selection --ratio 0.6 --dry-run

Example, the best billion tokens as whole documents: rho-score select --ref scores/ref selection --tokens 1000000000 --level document

Example, without the 5 % noisiest: rho-score select --ref scores/ref --base scores/base selection --ratio 0.6 --drop-top 0.05

Example, quotas: rho-score select --ref scores/ref --base scores/base selection --quota code=0.8 --quota web=5000000000 --quota '*=0.5'

Example, two experts: rho-score select --ref math=scores/math --ref code=scores/code --base scores/base selection --combine union --ratio 0.3 --share code=0.5

Ties at the threshold go to the first in corpus order: shard's name, place in the shard, place in the document.""",
    "curve": """Print what every ratio, budget or threshold would keep, per group, from the histogram of a selection: reads no scores.

Example: rho-score curve selection

Example: rho-score curve selection --tokens 1000000000 5000000000 --threshold 0 0.5 --plot curve.svg --csv curve.csv""",
    "dynamics": """Sort every token by how its loss went over checkpoints of one model: H-H, L-H, H-L (learnt), L-L; write a selection.

Example: rho-score dynamics --scores scores/step-1000 scores/step-5000 scores/step-20000 dynamics --plot dynamics.svg

Example, train on what was learnt or stays hard: rho-score dynamics --scores scores/c0 scores/c1 dynamics --keep H-L H-H""",
    "export": """Write a selection in a form that trainers read.

Example, for Hugging Face's Trainer, in blocks: rho-score export selection train --format labels --block-size 2048

Example, nanoGPT's .bin with a mask: rho-score export selection train --format bin

Example, the kept documents with all their own columns: rho-score export sel-documents corpus-kept --format parquet""",
    "report": """Write one self-contained HTML page about a score set or a selection. Needs the stores only: no model, no corpus.

Example: rho-score report selection report.html""",
}


EXTRAS = {"jinja2": "report", "markupsafe": "report", "matplotlib": "report"}
"""Modules that come with an extra, by their name; all are imported before a command does anything."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 done, 1 failed, 2 wrong usage or input, 3 done with quarantine)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx", "httpcore", "ray", "datasets", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of tasks beside the one whose error is told
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        config = parse(arguments)
        return next(command.run for command in COMMANDS.values() if command.config is type(config))(config)
    except RhoScoreError as error:
        return _fail(error)
    except ImportError as error:
        if error.name in EXTRAS:
            return _fail(
                InputError(f"{error.name} is not installed. Run pip install 'rho-score[{EXTRAS[error.name]}]'.")
            )
        return _fail(RhoScoreError(f"{type(error).__name__}: {error}"))
    except OSError as error:  # the storage refuses
        return _fail(RhoScoreError(f"{type(error).__name__}: {error}"))
    except Exception:  # a fault of ours: as Python tells it, but for what a terminal or a log must not be shown
        print(fit(traceback.format_exc()), end="", file=sys.stderr)
        return RhoScoreError.exit_code


class _Formatter(logging.Formatter):
    """Log lines that may be shown."""

    def format(self, record: logging.LogRecord) -> str:
        return fit(super().format(record))


def parse(arguments: list[str]) -> Any:
    """The configuration that these arguments mean; prints and exits as command lines do (`--help`: 0, wrong usage: 2).

    Raises:
        InputError: the configuration file is not there, or has an unknown option or a value of another type.
    """
    arguments, file = _take_config_file(arguments)
    named = arguments[0] if arguments else ""
    given: dict[str, Any] = {}
    if file and named in COMMANDS:
        from rho_score.cli.config_file import from_file  # PyYAML, for those who need it

        given = {named: {"default": from_file(COMMANDS[named].config, file, arguments)}}
    choices = tuple(
        Annotated[command.config, tyro.conf.subcommand(name, description=EXAMPLES[name], **given.get(name, {}))]
        for name, command in COMMANDS.items()
    )
    union: Any = functools.reduce(operator.or_, choices)
    found = tyro.cli(
        union,
        prog="rho-score",
        description="Score every token of a corpus with a reference model on Ray; select tokens by a global quantile.\n\n"
        "Every command also takes --config FILE: the same options as YAML; flags win over the file.\nPaths in it may have ~ and $VARIABLE.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    return with_home(found)


def _take_config_file(arguments: list[str]) -> tuple[list[str], str | None]:
    for i, argument in enumerate(arguments):
        if argument == "--config" and i + 1 < len(arguments):
            return arguments[:i] + arguments[i + 2 :], arguments[i + 1]
        if argument.startswith("--config="):
            return arguments[:i] + arguments[i + 1 :], argument.removeprefix("--config=")
    return arguments, None


def _fail(error: RhoScoreError) -> int:
    print(fit(f"rho-score: {error}"), file=sys.stderr)
    return error.exit_code


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script and of the jobs."""
    outlive_readers()
    try:
        code = main(argv)
    except KeyboardInterrupt:
        print("rho-score: interrupted. What is published stays; the same command goes on from there.", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)  # so that a shell's loop ends too
        raise
    gc.freeze()  # else Python looks for garbage among all that was imported before it ends: a tenth of a second
    sys.exit(code)
