"""Reads `--config FILE`: a command's options as YAML, under their own names.

Paths in the file may contain `~` and `$VARIABLE`.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

import tyro
import yaml
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from rho_score.cli.paths import PATHS, home, with_variables
from rho_score.errors import InputError

REPEATED = {"ref", "share", "quota"}


class _Yaml(yaml.SafeLoader):
    """YAML without base-60 integers: `1:32` is text here, not 92."""


_INTEGER = "tag:yaml.org,2002:int"
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _INTEGER]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(_INTEGER, re.compile(r"[-+]?[0-9][0-9_]*$"), list("-+0123456789"))


def from_file(kind: Any, path: str, arguments: Sequence[str]) -> Any:
    """A configuration with the file's values, which the command line's flags then override.

    A required option that the file lacks is left missing, so that the command line must give it.
    The file's values of a repeated option are left out if the command line gives that option.

    kind: the command's configuration class. arguments: the command line.

    Raises:
        InputError: the file cannot be read, or it has an unknown option, a value of the wrong type,
            or an environment variable that is not set.
    """
    try:
        with open(home(path), encoding="utf-8") as file:  # noqa: PTH123
            content = yaml.load(file, _Yaml) or {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or no such date
        raise InputError(f"--config {path} cannot be read: {error}") from error
    hints = get_type_hints(kind)
    if not isinstance(content, dict):
        raise InputError(
            f"--config {path}: the file must hold a mapping of options to values, but it holds a {type(content).__name__}."
        )
    values = {str(name).replace("-", "_"): value for name, value in content.items()}
    flags = {argument.partition("=")[0].lstrip("-").replace("-", "_") for argument in arguments}
    values = {name: value for name, value in values.items() if not (name in REPEATED and name in flags)}
    if unknown := sorted(values.keys() - hints.keys()):
        raise InputError(
            f"--config {path}: there is no option {', '.join(unknown)}. The options are: {', '.join(hints)}."
        )
    for name, value in values.items():
        if name in PATHS and name not in flags:
            value = values[name] = with_variables(f"--config {path}: {name}", value)
        if hints[name] is str and type(value) is int:
            value = values[name] = str(value)  # such as `workers: 4`
        kinds = (hints[name], *get_args(hints[name]))  # also in `tuple[float, ...] | None`
        if any(get_origin(one) is tuple for one in kinds) and isinstance(value, list | str):
            value = values[name] = (value,) if isinstance(value, str) else tuple(value)
        try:
            check_type(value, hints[name], collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except TypeCheckError as error:
            raise InputError(f"--config {path}: the value of {name} cannot be {value!r}: {error}") from error
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            values.setdefault(field.name, tyro.MISSING)
    return kind(**values)
