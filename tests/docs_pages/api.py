"""`docs/reference/api.md`, from the names that `import rho_score` offers."""

import dataclasses
import inspect
import re
from types import ModuleType
from typing import Any

import rho_score
from rho_score.config.describe import field_texts
from tests.docs_pages.api_examples import EXAMPLES
from tests.docs_pages.markdown import cell, code

API = """# Python

This page lists every name that `import rho_score` offers. It is generated from the docstrings by
`python -m tests.docs_pages`. A function takes the configuration of its command, whose fields are the
options of [the command](cli.md) under their own names. Where the command exits with 1 or 2, the
function raises one of the [errors](#errors).

The examples are run by a test, one behind the other, after `import rho_score as rho`.
"""


def api_page(module: ModuleType = rho_score) -> str:
    """`reference/api.md`."""
    names = [name for name in getattr(module, "__all__", ()) if not name.startswith("_")]
    members = [(name, getattr(module, name)) for name in names]
    chapters = {
        "Functions": [member for member in members if inspect.isfunction(member[1])],
        "Classes": [
            member
            for member in members
            if inspect.isclass(member[1]) and not _is_config(member[1]) and not _is_error(member[1])
        ],
        "Configurations": [member for member in members if _is_config(member[1])],
        "Errors": [member for member in members if _is_error(member[1])],
    }
    parts = [API]
    for title, found in chapters.items():
        if found:
            parts.append(f"\n## {title}\n")
            parts += ["\n"] if title == "Configurations" else []
            parts += [_entry(name, value) for name, value in found]
    return "".join(parts)


def _is_config(value: Any) -> bool:
    return inspect.isclass(value) and value.__name__.endswith("Config")


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def _entry(name: str, value: Any) -> str:
    text = _docstring(value)
    if _is_config(value):
        command = name.removesuffix("Config").lower()
        return f"- `{name}`: the options of [`{command}`](cli.md#{command})\n"
    if _is_error(value):
        return f"\n### {name}\n\n{text}\n{_example(name)}"
    entry = f"\n### {name}\n\n"
    if dataclasses.is_dataclass(value):  # made by a function of ours, not by the reader
        entry += f"{text}\n{_fields(value)}"
    else:
        entry += f"```python\n{_signature(name, value)}\n```\n\n{text}\n"
    return entry + _example(name) + (_members(value) if inspect.isclass(value) else "")


def _example(name: str) -> str:
    """The example that stands under this name."""
    found = next((example.code for example in EXAMPLES if example.names[0] == name), "")
    return f"\n```python{found}```\n" if found else ""


def _fields(owner: Any) -> str:
    """The public fields of a dataclass whose meaning is written under them; those that methods use are left out."""
    texts = field_texts(owner)
    rows = "".join(
        f"| `{field.name}` | {code(_type_name(field.type))} | {cell(texts.get(field.name, ''))} |\n"
        for field in dataclasses.fields(owner)
        if owner.__name__.endswith("Summary") or field.name in texts
    )
    return f"\n| field | type | meaning |\n|---|---|---|\n{rows}" if rows and not hasattr(owner, "open") else ""


def _type_name(annotation: Any) -> str:
    return _short(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))


def _members(owner: type) -> str:
    """The public fields, properties and methods of a class, its base classes' too, with the first paragraph of each."""
    rows = []
    for name, value in sorted(inspect.getmembers_static(owner), key=lambda member: member[0]):
        if name.startswith("_") or not _is_ours(owner, name):
            continue
        inner = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
        if not callable(inner) or inspect.isclass(inner) or not inspect.getdoc(inner):
            continue
        call = _signature(name, inner, bound=True) if inner is value or hasattr(value, "__func__") else name
        first = " ".join(_docstring(inner).split("\n\n")[0].split()).replace("|", "\\|")
        rows.append(f"| `{call}` | {first} |\n".replace(" | None", " \\| None"))
    return "\n| member | meaning |\n|---|---|\n" + "".join(rows) if rows else ""


def _is_ours(owner: type, name: str) -> bool:
    home = next((base for base in owner.__mro__ if name in vars(base)), object)
    return home.__module__.startswith("rho_score")


def _signature(name: str, value: Any, *, bound: bool = False) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    if bound:
        parameters = list(signature.parameters.values())[1:]
        signature = signature.replace(parameters=parameters)
    text = _short(
        str(signature.replace(return_annotation=inspect.Signature.empty) if inspect.isclass(value) else signature)
    )
    if len(name) + len(text) > 88 and not bound:
        inside, _, after = text.partition("(")[2].rpartition(")")
        lines = ",\n    ".join(_split(inside))
        text = f"(\n    {lines},\n){after}"
    return f"{name}{text}"


def _short(annotation: str) -> str:
    """An annotation without the modules of its classes, and without the quotes of a forward reference."""
    unquoted = re.sub(r"(: |-> )'([^']*)'", r"\1\2", annotation)
    unquoted = re.sub(r"<(?:bound method|function) ([\w.]+)(?: at 0x[0-9a-f]+| of .*?>)>", r"\1", unquoted)
    return re.sub(r"\b(?:[a-z_]+\.)+([A-Z])", r"\1", unquoted)


def _split(arguments: str) -> list[str]:
    """Arguments cut at the commas between them, not at those inside brackets."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _docstring(value: Any) -> str:
    """The docstring with its sections (Args, Returns, Raises) as lists."""
    text = inspect.getdoc(value) or ""
    if dataclasses.is_dataclass(value) and text.startswith(f"{getattr(value, '__name__', '')}("):
        return ""
    lines = []
    for line in text.splitlines():
        if line.rstrip(":") in ("Args", "Returns", "Raises", "Yields"):
            lines.append(f"**{line}**\n")
        elif match := re.match(r"    (\w[\w, ]*): (.*)", line):
            lines.append(f"- `{match[1]}`: {match[2]}")
        else:
            lines.append(line if line.startswith("    ") is False else f"  {line.strip()}")
    return "\n".join(lines)
