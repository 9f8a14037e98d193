"""The options of a command as plain values, from the fields of its dataclass and the docstring under each.

This is a stand-in for `rho_score.config.describe`, with the same names: once that module exists, import from it.
"""

import ast
import inspect
from dataclasses import MISSING, fields
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from tyro.conf import Positional, UseAppendAction


class Option(NamedTuple):
    """One field of a configuration. `flags` is empty for a positional argument, `metavar` for a switch."""

    name: str
    flags: tuple[str, ...]
    metavar: str
    default: str
    required: bool
    help: str


class OptionGroup(NamedTuple):
    """Options under one heading; `note` is what holds for all of them and may be empty."""

    title: str
    note: str
    options: list[Option]


def describe(config: type) -> list[OptionGroup]:
    """The options of a configuration class by group, the positional arguments first."""
    hints = get_type_hints(config, include_extras=True)
    texts = field_texts(config)
    options = [_option(field, hints[field.name], texts[field.name]) for field in fields(config)]
    groups = (
        OptionGroup("Arguments", "", [option for option in options if not option.flags]),
        OptionGroup("Options", "", [option for option in options if option.flags]),
    )
    return [group for group in groups if group.options]


def paragraphs(config: type) -> list[str]:
    """The docstring of a configuration class: its first line, and the paragraphs below."""
    return (inspect.getdoc(config) or "").split("\n\n")


def _option(field: Any, hint: Any, text: str) -> Option:
    kind, *notes = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    words = field.name.replace("_", "-")
    flags: tuple[str, ...] = () if Positional in notes else (f"--{words}",)
    if field.default is True:
        flags = (f"--{words}", f"--no-{words}")
    metavar = "" if kind is bool else words.upper()
    if choices := next((get_args(part) for part in (kind, *get_args(kind)) if get_origin(part) is Literal), ()):
        metavar = f"{{{','.join(choices)}}}"
    if get_origin(kind) is tuple and UseAppendAction not in notes:
        metavar += " ..."
    return Option(field.name, flags, metavar, _default(field.default), field.default is MISSING, text)


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
