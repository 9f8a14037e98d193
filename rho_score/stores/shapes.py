"""What the JSON files and the small tables of a store must hold: what was damaged or is another's is an error, not a surprise."""

from typing import Any, Literal, NotRequired, TypedDict, TypeVar

import orjson
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject

T = TypeVar("T")


class Manifest(TypedDict):
    """`manifest.json`, as far as every store has it."""

    kind: Literal["score set", "selection", "export"]
    fingerprint: str
    parts: JsonObject


class ScoreParts(TypedDict):
    """What a score set's fingerprint is made of, as far as it is read again."""

    tokenizer_sha256: str
    context: int
    overlap: int
    prefix_id: int | None
    text_column: str
    id_column: str | None
    group_column: str | None


class SelectionParts(TypedDict):
    """What a selection's fingerprint is made of, as far as it is read again."""

    scores: dict[str, str]
    held: NotRequired[dict[str, dict[str, int]]]
    score: Literal["excess", "loss", "delta"]
    level: Literal["token", "document"]
    per_group: bool
    tokenizer_sha256: str
    group_column: str | None


class Totals(TypedDict):
    """`_SUCCESS.json` of a score set."""

    units: int
    documents: int
    scored: int
    quarantined: int
    rescored: int
    tokens: int
    losses: int
    total_nats: float


class GroupRow(TypedDict):
    """What was kept of one group."""

    group: str | None
    documents: int
    documents_kept: int
    tokens: int
    tokens_scored: int
    tokens_kept: int
    documents_unaligned: int
    bytes: int
    ref_nats: float
    base_nats: float


class CutRow(TypedDict):
    """Where one ranking was cut."""

    expert: str | None
    group: str | None
    threshold: float | None
    kept: int


class SelectionSummary(TypedDict):
    """`summary.json` of a selection."""

    units: int
    score: str
    level: Literal["token", "document"]
    high_first: bool
    bits: Literal[16, 32]
    groups: list[GroupRow]
    thresholds: list[CutRow]


CategoriesRow = TypedDict("CategoriesRow", {"group": str | None, "H-H": int, "L-H": int, "H-L": int, "L-L": int})
"""Tokens of one group by category."""


class DynamicsSummaryFile(SelectionSummary):
    """`summary.json` of token dynamics."""

    categories: list[CategoriesRow]


def read_json(folder: Folder, name: str, shape: type[T]) -> JsonObject:
    """The object in a JSON file, which has at least what `shape` (a TypedDict) asks for.

    Raises:
        InputError: it is damaged, or not what it should be.
        FileNotFoundError: it is not there.
    """
    content = folder.read(name)
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{folder.url}/{name} is damaged: {error}") from None
    check_shape(found, shape, f"{folder.url}/{name}")
    return dict(found)


def check_shape(found: Any, shape: type, what: str) -> None:
    """Raises InputError, naming `what`, where `found` has not at least what `shape` (a TypedDict) asks for."""
    try:
        check_type(_only(found, shape), shape, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError as error:
        raise InputError(f"{what} is not what rho-score writes there: {error}") from None


def _only(value: Any, shape: Any) -> Any:
    """`value` without the fields that `shape` does not name, at every depth: more of them are no fault."""
    fields = getattr(shape, "__annotations__", None)
    if fields is not None and isinstance(value, dict):
        return {name: _only(value[name], kind) for name, kind in fields.items() if name in value}
    if getattr(shape, "__origin__", None) is list and isinstance(value, list):
        return [_only(item, shape.__args__[0]) for item in value]
    return value
