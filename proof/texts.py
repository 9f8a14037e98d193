"""Real text that packages ship: the target domain, and what it is mixed with.

target     documentation strings of SymPy, NetworkX and mpmath, which PyTorch installs: mathematics, in English
languages  Django's interface texts in languages other than English
code       Django's source
"""

import ast
import functools
import gettext
import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from demo.packages import unpacked

TARGET, LANGUAGES, CODE = "target", "languages", "code"
PACKAGES = ("sympy", "networkx", "mpmath")
LEAST, MOST = 300, 6_000  # characters of a document
EXCERPT = 1_500  # characters of a document of interface texts


class Document(NamedTuple):
    """A text and where it is from."""

    id: str
    group: str
    text: str


@functools.cache
def target_files() -> list[list[Document]]:
    """The target's documents, file by file, in an order that looks random and is always the same.

    Neighbours in a file resemble each other, so a file is used as a whole.
    """
    seen: set[str] = set()
    files = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            if "tests" not in path.parts and (documents := list(_docstrings(name, path, seen))):
                files.append(documents)
    random.Random(1).shuffle(files)
    return files


def _docstrings(name: str, path: Path, seen: set[str]) -> Iterator[Document]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = (ast.get_docstring(node) or "")[:MOST]
            if len(text) >= LEAST and text not in seen:
                seen.add(text)
                yield Document(f"{name}/{getattr(node, 'name', '')}:{getattr(node, 'lineno', 0)}", TARGET, text)


@functools.cache
def other_documents() -> list[Document]:
    """Interface texts and source code in turn, in an order that looks random and is always the same."""
    spoken, code = _interface_texts(), _sources()
    shuffle = random.Random(2).shuffle
    shuffle(spoken)
    shuffle(code)
    return [document for pair in zip(spoken, code, strict=False) for document in pair]


def _interface_texts() -> list[Document]:
    root = unpacked("Django") / "django"
    found = []
    for language in sorted(path.name for path in (root / "conf/locale").iterdir() if path.is_dir()):
        if language.startswith("en"):
            continue
        lines = []
        for path in sorted(root.rglob(f"locale/{language}/LC_MESSAGES/django.mo")):
            with path.open("rb") as file:
                catalogue: dict[object, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
            lines += [text for key, text in sorted((str(k), v) for k, v in catalogue.items()) if key and len(text) > 30]
        text = "\n".join(lines)
        found += [
            Document(f"{language}/{i}", LANGUAGES, text[i : i + EXCERPT]) for i in range(0, len(text) - LEAST, EXCERPT)
        ]
    return found


def _sources() -> list[Document]:
    root = unpacked("Django") / "django"
    return [
        Document(f"{path.relative_to(root).as_posix()}:{i}", CODE, part)
        for path in sorted(root.rglob("*.py"))
        if "locale" not in path.parts
        for i, part in enumerate(_pieces(path.read_text(encoding="utf-8")))
    ]


def _pieces(text: str) -> list[str]:
    pieces = [text[i : i + EXCERPT] for i in range(0, len(text), EXCERPT)]
    return [piece for piece in pieces if len(piece) >= LEAST]
