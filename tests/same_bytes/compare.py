"""Compares two files byte for byte, after taking out the few named fields that may differ; says where they first do."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

MAY_DIFFER = {
    "manifest.json": (re.compile(rb'^  "rho_score": "[^"]*",?\n', re.M), "the package's version"),
    ".html": (re.compile(rb" \xc2\xb7 rho-score [0-9][0-9a-z.+]*(?=</p>)"), "the package's version below the title"),
}
"""By the end of a file's name: what is taken out of both files, and why. Nothing else may differ: no file holds a time, a
duration or the place of the run, and paths are the same because both versions run with the same relative ones."""

Answer = Literal["same", "but for named fields", "different"]


@dataclass(frozen=True)
class Compared:
    """The answer for one file; `where` tells the first difference."""

    name: str
    answer: Answer
    where: str = ""


def compare_folders(before: Path, after: Path) -> Iterator[Compared]:
    """Every file below either folder, by its relative name."""
    for name in sorted(_files(before) | _files(after)):
        yield compare_files(name, before / name, after / name)


def _files(folder: Path) -> set[str]:
    """Every file but signs of life, which are about the run."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != ".runs")
    return {str(path.relative_to(folder)) for path in files}


def compare_files(name: str, before: Path, after: Path) -> Compared:
    """Compare two files that should be the same."""
    for path, which in ((before, "after"), (after, "before")):
        if not path.exists():
            return Compared(name, "different", f"there is one only {which}")
    left, right = before.read_bytes(), after.read_bytes()
    if left == right:
        return Compared(name, "same")
    for end, (pattern, _) in MAY_DIFFER.items():
        if name.endswith(end) and pattern.sub(b"", left) == pattern.sub(b"", right):
            return Compared(name, "but for named fields")
    return Compared(name, "different", first_difference(name, left, right))


def first_difference(name: str, left: bytes, right: bytes) -> str:
    """Where two contents differ, in the terms of their format."""
    if name.endswith(".parquet"):
        return _in_parquet(left, right)
    if name.endswith(".json"):
        return next(_in_json(json.loads(left), json.loads(right), ""), "the same JSON, written differently")
    at = next(i for i, (a, b) in enumerate(zip_longest(left, right)) if a != b)
    sizes = f"byte {at:,} of {len(left):,} and {len(right):,}"
    return f"{sizes}: {left[max(0, at - 30) : at + 30]!r}, {right[max(0, at - 30) : at + 30]!r}"


def _in_json(left: Any, right: Any, place: str) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            yield from _in_json(left.get(key, "nothing"), right.get(key, "nothing"), f"{place}/{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            yield from _in_json(a, b, f"{place}/{i}")
    elif left != right:
        yield f"{place}: {left!r:.100}, {right!r:.100}"


def _in_parquet(left: bytes, right: bytes) -> str:
    """Names the columns that differ before the footer: a value says more than a checksum of it."""
    a, b = (pq.ParquetFile(pa.BufferReader(content)) for content in (left, right))
    if not a.schema_arrow.equals(b.schema_arrow):
        return f"columns: {a.schema_arrow.to_string()!r:.300}, {b.schema_arrow.to_string()!r:.300}"
    if a.metadata.num_rows != b.metadata.num_rows:
        return f"rows: {a.metadata.num_rows}, {b.metadata.num_rows}"
    for column in a.schema_arrow.names:
        values = (file.read([column])[column].combine_chunks() for file in (a, b))
        if found := _in_column(*values):
            return f"column {column}, {found}"
    left_footer, right_footer = (_footer(file.metadata.metadata or {}) for file in (a, b))
    return next(_in_json(left_footer, right_footer, "footer"), "the same rows and footer in another layout")


def _in_column(left: pa.Array, right: pa.Array) -> str:
    """The first row that differs; NaN equals itself, and null nothing else. Text of numbers tells them apart to the bit."""
    for row, (a, b) in enumerate(zip(left.to_pylist(), right.to_pylist(), strict=True)):
        if repr(a) != repr(b):
            if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
                at = next(i for i in range(len(a)) if repr(a[i]) != repr(b[i]))
                return f"row {row}, item {at}: {a[at]!r}, {b[at]!r}"
            return f"row {row}: {a!r:.100}, {b!r:.100}"
    return ""


def _footer(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """A file's key-value metadata, JSON as what it means."""
    found: dict[str, Any] = {}
    for key, value in metadata.items():
        try:
            found[key.decode()] = orjson.loads(value)
        except orjson.JSONDecodeError:
            found[key.decode()] = value
    return found
