"""The fields that the JSON files of a store must have. They are checked when a file is read."""

from typing import Any, Literal, NotRequired, TypedDict, TypeVar

import orjson
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject

T = TypeVar("T")


class Manifest(TypedDict):
    """The fields of `manifest.json` that every store has."""

    kind: Literal["score set", "selection", "export", "training run", "tuning", "deduplicated corpus"]
    fingerprint: str
    parts: JsonObject


class ScoreParts(TypedDict):
    """The parts of a score set's manifest that are read back."""

    tokenizer_sha256: str
    context: int
    overlap: int
    prefix_id: int | None
    text_column: str | None
    id_column: str | None
    group_column: str | None
    content_kind: NotRequired[Literal["ids", "prefixed", "response", "messages", "pair"]]
    context_column: NotRequired[str]
    rejected_column: NotRequired[str]
    split_at: NotRequired[int]
    context_hidden: NotRequired[bool]
    unit: NotRequired[Literal["other"]]


class SelectionParts(TypedDict):
    """The parts of a selection's manifest that are read back."""

    scores: dict[str, str]
    held: NotRequired[dict[str, dict[str, int]]]
    score: Literal["excess", "loss", "delta"]
    level: Literal["token", "document"]
    per_group: bool
    tokenizer_sha256: str
    group_column: str | None
    unit: NotRequired[Literal["other"]]


class Totals(TypedDict):
    """`_SUCCESS.json` of a score set."""

    units: int
    documents: int
    scored: int
    quarantined: int
    rescored: int
    copied: NotRequired[int]
    reused: NotRequired[int]
    tokens: int
    losses: int
    total_nats: float


class SpentMoney(TypedDict):
    """`spent.json` of a score set that a server's tokens, or workers, were paid for.

    Files without workers lack their fields.
    """

    tokens_by_price: dict[str, int]
    wanted: int
    worker_seconds_by_price: NotRequired[dict[str, float]]
    wanted_worker_seconds: NotRequired[float]
    workers: NotRequired[dict[str, float]]


Outcome = Literal["finished", "failed", "interrupted"]
"""How a run ended."""


class ProgressShown(TypedDict):
    """The progress in a sign of life, see `cluster.progress.Snapshot`."""

    what: str
    phase: str
    unit: str
    units: int
    n_units: int
    share: float
    tokens: int
    tokens_per_s: float
    seconds_left: float | None
    workers: int


class SignFile(TypedDict):
    """A file of `.runs/`, see `signs.Sign`."""

    run: str
    command: str
    version: str
    host: str
    pid: int
    started: str
    written: str
    interval_s: float
    moved: str
    outcome: Outcome | None
    message: str
    progress: ProgressShown
    most_workers: int
    worker_s: float
    removed_worker_s: float


class GroupRow(TypedDict):
    """The counts of one group, see `counts.GroupCounts`."""

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
    """The cut of one ranking: its threshold, and how many items it keeps."""

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
"""The number of tokens of one group in each category."""


class DynamicsSummaryFile(SelectionSummary):
    """`summary.json` of a selection by token dynamics."""

    categories: list[CategoriesRow]


def read_json(folder: Folder, name: str, shape: type[T]) -> JsonObject:
    """The object in a JSON file, with at least the fields of `shape` (a TypedDict).

    Raises:
        InputError: the file is damaged, or does not have these fields.
        FileNotFoundError: there is no such file.
    """
    content = folder.read(name)
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{folder.url}/{name} is damaged: {error}. Restore the file.") from None
    check_shape(found, shape, f"{folder.url}/{name}")
    return dict(found)


def check_shape(found: Any, shape: type, what: str) -> None:
    """Raises InputError, naming `what`, unless `found` has the fields of `shape` (a TypedDict).

    Fields that `shape` does not name are allowed.
    """
    try:
        check_type(_only(found, shape), shape, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError as error:
        raise InputError(f"{what} does not hold what rho-score writes there: {error}. Restore the file.") from None


def _only(value: Any, shape: Any) -> Any:
    """`value` without the fields that `shape` does not name, at every depth."""
    fields = getattr(shape, "__annotations__", None)
    if fields is not None and isinstance(value, dict):
        return {name: _only(value[name], kind) for name, kind in fields.items() if name in value}
    if getattr(shape, "__origin__", None) is list and isinstance(value, list):
        return [_only(item, shape.__args__[0]) for item in value]
    return value
