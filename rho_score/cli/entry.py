"""The entry point: parses the command line into a frozen dataclass and runs its command.

A configuration file (`--config FILE`, YAML) holds the same options under the same names. Flags win
over it.
"""

import atexit
import functools
import logging
import operator
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from rho_score.cli.commands import COMMANDS
from rho_score.cli.help_text import command_help, overview
from rho_score.cli.output import fit
from rho_score.cli.pipes import outlive_readers
from rho_score.errors import InputError, RhoScoreError
from rho_score.version import __version__

EXTRAS = {
    "jinja2": "report", "markupsafe": "report", "matplotlib": "report", "accelerate": "train", "tensorboardX": "train",
    "duckdb": "view",
}  # fmt: skip
"""The extra that each optional module comes with. A command imports them before anything else."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0: done. 1: failed. 2: wrong usage or input. 3: done, but documents were quarantined or have no values. From 10 on: what
    `status` found, see `watching.state`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx", "httpcore", "ray", "datasets", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that nobody asked for
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # only one task's error is shown
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
    except OSError as error:  # from the storage
        return _fail(RhoScoreError(f"{type(error).__name__}: {error}"))
    except Exception:  # a bug: the traceback, without what a terminal or a log must not show
        print(fit(traceback.format_exc()), end="", file=sys.stderr)
        return RhoScoreError.exit_code


class _Formatter(logging.Formatter):
    """Formats log lines as output may show them, see `fit`."""

    def format(self, record: logging.LogRecord) -> str:
        return fit(super().format(record))


def parse(arguments: list[str]) -> Any:
    """The configuration that the arguments describe.

    It prints and exits with 0 for `--help` and `--version`, and with 2 for wrong usage.

    Raises:
        InputError: the configuration file cannot be read, or it has an unknown option, a value of
            the wrong type, or an environment variable that is not set.
    """
    arguments, file = _take_config_file(arguments)
    named, *rest = arguments or [""]
    _answer(named, arguments)
    if named not in COMMANDS:  # tyro reports it, or writes shell completions
        commands = (Annotated[c.config, tyro.conf.subcommand(name)] for name, c in COMMANDS.items())
        union: Any = functools.reduce(operator.or_, commands)
        return tyro.cli(union, prog="rho-score", args=arguments)
    kind, default = COMMANDS[named].config, {}
    if file:
        from rho_score.cli.config_file import from_file

        default = {"default": from_file(kind, file, arguments)}
    found = tyro.cli(kind, prog=f"rho-score {named}", args=rest, **default)
    from rho_score.cli.paths import with_home

    return with_home(found)


def _answer(named: str, arguments: list[str]) -> None:
    """Prints the version or the help and exits, if the command line asks for one of them."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if named == "--version":
        print(f"rho-score {__version__}")
    elif "-h" in options or "--help" in options:
        width = min(max(shutil.get_terminal_size().columns, 60), 100)
        if command := COMMANDS.get(named):
            print(command_help(named, command.config, command.examples, width), end="")
        else:
            print(overview({name: command.config for name, command in COMMANDS.items()}, width), end="")
    else:
        return
    raise SystemExit(0)


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
    """Runs the command line and ends the process: the entry point of the console script."""
    outlive_readers()
    try:
        code = main(argv)
    except KeyboardInterrupt:
        print("rho-score: interrupted. What is published stays. The same command goes on from there.", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)  # so that a shell's loop ends too
        raise
    _end(code)


def _end(code: int) -> NoReturn:
    """Ends the process without the end of the interpreter, which has nothing left to do.

    There, libraries abort a process whose work is done (Ray, where the cluster has lost nodes), or print a page about
    objects that are still referenced (DuckDB).
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def run_job(script: str) -> NoReturn:
    """Runs the command X with the process's arguments: the entry point of `ray_jobs/X.py`."""
    run([Path(script).stem.replace("import_scores", "import"), *sys.argv[1:]])
