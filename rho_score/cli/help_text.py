"""The help of the command line.

tyro parses the command line, but its own help shows Python types, and it groups options only by
nested dataclasses, which would change the names of fields and flags. So argparse lays out what
`describe` finds.
"""

import argparse
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rho_score.config.describe import EVERY_COMMAND, Option, describe, paragraphs

_ABOUT = "Score every token of a corpus, and select the tokens worth training on."
_MORE = (
    "Run `rho-score COMMAND --help` for options and examples. Exit codes: 0 done; 1 failed; 2 wrong usage or input, nothing "
    "was run; 3 done, but documents were quarantined or have no values."
)
_SPACE, _HYPHEN = "\u00a0", "\u2011"
"""They replace spaces and hyphens where no line may be broken, until the lines are made."""


def overview(commands: Mapping[str, type], width: int) -> str:
    """The help of the whole program. commands: each command's configuration class, by its name."""
    parser = _parser("rho-score COMMAND [OPTIONS]", _filled([_ABOUT], width), width)
    section = parser.add_argument_group("Commands")
    for name, config in commands.items():
        section.add_argument(name, help=paragraphs(config)[0])
    parser.epilog = _filled([_MORE], width)
    return parser.format_help()


def command_help(name: str, config: type, examples: Mapping[str, str], width: int) -> str:
    """The help of one command. examples: command lines by title."""
    groups = describe(config)
    options = [option for group in groups for option in group.options]
    places = [option.metavar for option in options if not option.flags]
    required = [f"{option.flags[0]} {_short(option)}" for option in options if option.flags and option.required]
    usage = " ".join(["rho-score", name, *places, *required, "[OPTIONS]"])
    shown = "\n".join(f"  {title}:\n{_continued(command, width)}" for title, command in examples.items())
    parser = _parser(usage, f"{_filled(paragraphs(config), width)}\n\nExamples:\n{shown}", width)
    for group in [*groups, EVERY_COMMAND]:
        section = parser.add_argument_group(group.title, _filled([group.note], width - 2) or None)
        for option in group.options:
            _add(section, option)
    return parser.format_help().replace(_SPACE, " ").replace(_HYPHEN, "-")


def _short(option: Option) -> str:
    return option.name.upper() if option.metavar.startswith("{") else option.metavar


def _parser(usage: str, description: str, width: int) -> argparse.ArgumentParser:
    def layout(prog: str) -> argparse.HelpFormatter:
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=width)

    return argparse.ArgumentParser(usage=usage, description=description, formatter_class=layout, add_help=False)


def _add(section: Any, option: Option) -> None:
    """Adds an option to a section of the help."""
    text = option.help
    if option.required and option.flags:
        text += " (required)"
    elif option.default:
        text += f" (default:{_SPACE}{option.default.replace(' ', _SPACE)})"
    text = text.replace("%", "%%").replace("-", _HYPHEN)
    if not option.flags:
        section.add_argument(option.metavar, help=text)
    elif option.metavar:
        section.add_argument(*option.flags, metavar=option.metavar, help=text)
    else:
        section.add_argument(*option.flags, action="store_true", help=text)


def _filled(texts: Sequence[str], width: int) -> str:
    return "\n\n".join(textwrap.fill(text, width, break_on_hyphens=False) for text in texts)


def _continued(command: str, width: int) -> str:
    """A command broken into lines that a shell joins. Options stay with their first value."""
    whole = re.sub(r"(?<= )(--\S+) (?!-)", rf"\1{_SPACE}", command)
    lines = textwrap.wrap(
        whole, width - 2, initial_indent="    ", subsequent_indent="      ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return " \\\n".join(lines)
