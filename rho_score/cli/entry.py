"""The entry point: parse the command line into a frozen dataclass, run its command, and return the exit code.

A configuration file (`--config FILE`, YAML) holds the same options under the same names. Flags win over it.
"""

import functools
import gc
import logging
import operator
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from rho_score.cli.commands import COMMANDS, fit
from rho_score.cli.help_text import command_help, overview
from rho_score.cli.pipes import outlive_readers
from rho_score.errors import InputError, RhoScoreError
from rho_score.version import __version__

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
    """The configuration that these arguments mean.

    It prints and exits as command lines do: with 0 after `--help` and `--version`, with 2 after wrong usage.

    Raises:
        InputError: the configuration file is not there, or has an unknown option or a value of another type.
    """
    arguments, file = _take_config_file(arguments)
    named, *rest = arguments or [""]
    _answer(named, arguments)
    if named not in COMMANDS:  # tyro says so, or writes the completions of a shell
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
    """Print the version or the help if the command line asks for it, and exit."""
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
    """Entry point of the console script."""
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


def run_job(script: str) -> NoReturn:
    """Entry point of `ray_jobs/X.py`: run the command X with the arguments of the process."""
    run([Path(script).stem, *sys.argv[1:]])
