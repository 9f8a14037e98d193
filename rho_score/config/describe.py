"""What the configuration classes say about their options, for the help and for the reference
pages."""

import ast
import inspect
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from tyro.conf import Positional, UseAppendAction

from rho_score.config.option import Group

_ARGUMENTS = Group("Arguments")


class Option(NamedTuple):
    """One field of a configuration."""

    name: str
    """The field's name, which is also its key in a configuration file."""
    flags: tuple[str, ...]
    """("--ratio",). Empty for a positional argument."""
    metavar: str
    """How the value is written, such as RATIO. Empty for a switch."""
    default: str
    """Empty if there is no default that tells the reader anything."""
    required: bool
    help: str
    """One paragraph without line breaks."""


class OptionGroup(NamedTuple):
    """Options under one heading."""

    title: str
    note: str
    """What holds for all of them; may be empty."""
    options: list[Option]


_CONFIG = (
    "Read options from a YAML file, under the names that they have here. Options on the command line win, and "
    "--no-NAME turns off what the file turns on. Paths in the file may contain ~ and $VARIABLE."
)
EVERY_COMMAND = OptionGroup(
    "Every command",
    "",
    [
        Option("config", ("--config",), "FILE", "", False, _CONFIG),
        Option("help", ("-h", "--help"), "", "", False, "Show this help."),
    ],
)
"""The options that every command has besides its fields."""


def describe(config: type) -> list[OptionGroup]:
    """The options of a configuration class by group, in the order of its fields. Positional
    arguments come first."""
    hints = get_type_hints(config, include_extras=True)
    texts = field_texts(config)
    groups: dict[Group, list[Option]] = {_ARGUMENTS: []}
    for field in fields(config):
        kind, *notes = get_args(hints[field.name])
        group = next((note for note in notes if isinstance(note, Group)), _ARGUMENTS)
        groups.setdefault(group, []).append(_option(field, kind, notes, texts[field.name]))
    return [OptionGroup(group.title, group.note, options) for group, options in groups.items() if options]


def paragraphs(config: type) -> list[str]:
    """The docstring of a configuration class: its first line, and the paragraphs below."""
    return (inspect.getdoc(config) or "").split("\n\n")


def _option(field: "Field[Any]", kind: Any, notes: Sequence[Any], text: str) -> Option:
    words = field.name.replace("_", "-")
    flags = [] if Positional in notes else [f"--{words}"]
    if field.default is True:
        flags.append(f"--no-{words}")
    metavar = next((note.metavar for note in notes if hasattr(note, "metavar")), "")
    if choices := next((get_args(part) for part in (kind, *get_args(kind)) if get_origin(part) is Literal), ()):
        metavar = f"{{{','.join(choices)}}}"
    if get_origin(kind) is tuple and UseAppendAction not in notes:
        metavar += " ..."
    return Option(field.name, tuple(flags), metavar, _default(field.default), field.default is MISSING, text)


def _default(value: Any) -> str:
    if value is MISSING or value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def field_texts(config: type) -> dict[str, str]:
    """The docstring under each field of a class and of the classes that it inherits from."""
    found: dict[str, str] = {}
    for owner in config.__mro__[:-1]:
        [definition] = ast.parse(inspect.getsource(owner)).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).split())
    return found
