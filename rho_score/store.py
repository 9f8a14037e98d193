"""The score set and the selection on storage: what is written, when it counts, how it is read.

Both stores have a manifest (what determines the numbers), a plan (which units there are), a Parquet file a unit, and a
`_SUCCESS.json` (a selection: `summary.json`) with the totals, written last. A unit's file that exists is a commit: it is complete, and writing it
again writes the same bytes.
"""

import array
import hashlib
import itertools
import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from rho_score import __version__, unit_file
from rho_score.contents import (
    Manifest,
    ScoreParts,
    SelectionParts,
    SelectionSummary,
    Totals,
    check_shape,
    read_json,
    read_table,
    readable,
)  # fmt: skip
from rho_score.errors import InputError
from rho_score.histogram import COUNTS, Bits, values_of
from rho_score.plan import plan_names, read_plan
from rho_score.schema import QUARANTINE, as_arrow, as_numpy, footer, parquet_bytes
from rho_score.shown import without_secrets
from rho_score.storage import Folder, without_credentials
from rho_score.units import Unit

MANIFEST, PLAN, SUCCESS = "manifest.json", "plan.parquet", "_SUCCESS.json"
SUMMARY, HISTOGRAM = "summary.json", "histogram.parquet"
HISTOGRAM_SCHEMA = pa.schema([("value", pa.float32()) if f.name == "key" else f for f in COUNTS])
Kind = Literal["score set", "selection", "export"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accounts:
    """What became of the documents of a unit, or of many. documents = scored + quarantined, always."""

    documents: int = 0
    scored: int = 0
    quarantined: int = 0
    rescored: int = 0
    """Documents that overflowed in the run's dtype and were scored again in a wider one."""
    tokens: int = 0
    """Tokens of the scored documents."""
    losses: int = 0
    """Tokens with a loss: all, but for the first of each document where the vocabulary has no prefix."""
    total_nats: float = 0.0
    """Sum of the stored losses."""

    @classmethod
    def total(cls, accounts: Iterable["Accounts"]) -> "Accounts":
        """The sum, the same for any order (floats by exact summation)."""
        names = [f.name for f in fields(cls) if f.name != "total_nats"]
        counts = dict.fromkeys(names, 0)
        nats = array.array("d")
        for one in accounts:
            for name in names:
                counts[name] += getattr(one, name)
            nats.append(one.total_nats)
        return cls(**counts, total_nats=math.fsum(nats))


def data_name(unit: str) -> str:
    """Where a unit's table is."""
    return f"data/{unit}.parquet"


def quarantine_name(unit: str) -> str:
    """Where a unit's quarantined documents are, if there are any."""
    return f"quarantine/{unit}.parquet"


def published_units(folder: Folder) -> set[str]:
    """Units whose file is there: one listing."""
    return _units_in(folder, "data")


def quarantined_units(folder: Folder) -> set[str]:
    """Units with quarantined documents: one listing."""
    return _units_in(folder, "quarantine")


def _units_in(folder: Folder, under: str) -> set[str]:
    return {name.removesuffix(".parquet") for name in folder.names(under) if name.endswith(".parquet")}


def quarantined_documents(folder: Folder, n_units: int) -> Iterator[tuple[str, str]]:
    """(doc_id, reason) of the quarantined documents of the first `n_units` units that have any."""
    for unit in sorted(quarantined_units(folder))[:n_units]:
        name = quarantine_name(unit)
        for row in read_table(folder.read(name), QUARANTINE, f"{folder.url}/{name}").to_pylist():
            yield row["doc_id"], row["reason"]


def dump_json(content: Mapping[str, Any]) -> bytes:
    """Readable JSON, the same bytes for the same content."""
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def new_manifest(kind: Kind, parts: Mapping[str, Any], **about: Any) -> dict[str, Any]:
    """A manifest: the parts that determine the numbers, their SHA-256 as the fingerprint, and `about` beside them."""
    parts = orjson.loads(orjson.dumps(parts))
    return {"kind": kind, "fingerprint": _fingerprint(parts), "parts": parts, "rho_score": __version__, **about}


def difference(
    left: Mapping[str, Any],
    right: Mapping[str, Any],
    left_name: str,
    right_name: str,
    keys: Sequence[str] | None = None,
) -> str:
    """The parts of two fingerprints that differ, a line each; empty if none does."""
    every = keys or sorted({*left, *right})
    return "\n".join(
        f"  {key}: {left_name} {left.get(key)!r}, {right_name} {right.get(key)!r}"
        for key in every
        if left.get(key) != right.get(key)
    )


def read_manifest(folder: Folder) -> dict[str, Any]:
    """The manifest of a store; raises InputError if there is none, or it is not one."""
    try:
        found = read_json(folder, MANIFEST, Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder.url} is no store of ours: it has no {MANIFEST}. Check the path.") from None
    if _fingerprint(found["parts"]) != found["fingerprint"]:
        raise InputError(f"{folder.url}/{MANIFEST} was changed: its fingerprint is not that of its parts.")
    return found


def _fingerprint(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True)
class _Store:
    folder: Folder
    some: bytes | None = None
    """A `plan.parquet` with the units that are meant, where not all are."""
    done_name: ClassVar[str] = SUCCESS
    hint: ClassVar[str] = " (`select` takes what is published of it with --allow-unfinished.)"
    parts: ClassVar[type] = ScoreParts
    footer_fields: ClassVar[frozenset[str]] = frozenset({"fingerprint", "accounts", "content_sha256"})

    @classmethod
    def _open(cls, url: str, kind: Kind, *, finished: bool = True) -> Any:
        """Open a store, by default a finished one.

        Raises:
            InputError: nothing there, another kind of store, or one that is not finished.
        """
        store = cls(Folder(url))
        if store.manifest["kind"] != kind:
            raise InputError(f"{store.folder.url} is a {store.manifest['kind']}, not a {kind}.")
        check_shape(store.manifest["parts"], cls.parts, f"{store.folder.url}/{MANIFEST}")
        if finished and not store.finished:
            raise InputError(
                f"the {kind} {url} is not finished: it has no {cls.done_name}. Run its command again to resume."
                + cls.hint
            )
        return store

    @cached_property
    def finished(self) -> bool:
        """Whether the file that is written last is there."""
        return self.folder.exists(self.done_name)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Kind, fingerprint, the parts it is made of, input, software."""
        return read_manifest(self.folder)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The totals, from the file that was written last."""
        return read_json(self.folder, self.done_name, Totals if self.done_name == SUCCESS else SelectionSummary)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """All units, in corpus order."""
        return read_plan(self.plan_content)

    @property
    def plan_content(self) -> bytes:
        """`plan.parquet`."""
        return self.folder.read(PLAN) if self.some is None else self.some

    @cached_property
    def n_units(self) -> int:
        """How many units there are."""
        return len(self.plan_names())

    def plan_names(self) -> pa.Table:
        """Columns unit and shard of all units, in corpus order."""
        return plan_names(self.plan_content)

    @property
    def grouped(self) -> bool:
        """Whether the store has a column `group`."""
        return self.manifest["parts"]["group_column"] is not None

    @property
    def tokenizer_sha256(self) -> str:
        """Of the files that make the tokenizer: equal where the same text gives the same ids."""
        return str(self.manifest["parts"]["tokenizer_sha256"])

    def unit_table(self, unit: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of one unit, in input order."""
        return self.read_unit(unit, columns)[0]

    def read_unit(self, unit: str, columns: list[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
        """The rows of one unit, and our metadata in its footer; raises RhoScoreError as `unit_file.read` does."""
        return unit_file.read(self._file(unit), columns)

    def _file(self, unit: str) -> unit_file.UnitFile:
        return unit_file.UnitFile(self.folder, data_name(unit), self.manifest["fingerprint"], self.footer_fields)


class ScoreSet(_Store):
    """One corpus scored by one model. Columns of a unit: doc_id, [group], input_ids, loss (nats)."""

    @classmethod
    def open(cls, url: str, *, finished: bool = True) -> "ScoreSet":
        """Open a score set, by default a finished one; raises InputError if there is none at `url`."""
        return cls._open(url, "score set", finished=finished)  # type: ignore[no-any-return]

    def unit_parts(self, unit: str, columns: list[str]) -> tuple[dict[str, Any], Iterator[pa.Table]]:
        """Our metadata in a unit's footer, and its rows in parts of about a million tokens, as `unit_file.parts` gives them."""
        return unit_file.parts(self._file(unit), columns)

    @property
    def held(self) -> dict[str, int]:
        """Scored documents and tokens: what `score --only-quarantined` changes in a finished score set."""
        return {name: self.summary[name] for name in ("scored", "tokens")}

    @property
    def loss_bits(self) -> int:
        """Precision of the stored losses: 16 (float16 values) or 32."""
        return 32 if self.manifest["parts"].get("precision") == "float32" else 16

    @property
    def score_column(self) -> str:
        """The column with the tokens' scores."""
        return "loss"


class Selection(_Store):
    """Which tokens to train on. Columns of a unit: doc_id, [group], input_ids, excess or loss, mask."""

    done_name = SUMMARY
    hint = ""
    parts = SelectionParts
    footer_fields = frozenset({"fingerprint", "groups"})

    @classmethod
    def open(cls, url: str) -> "Selection":
        """Open a finished selection; raises InputError if there is none at `url`."""
        return cls._open(url, "selection")  # type: ignore[no-any-return]

    @property
    def score_column(self) -> str:
        """The column that tokens were ranked by: "excess" with a base model, else "loss"."""
        return str(self.manifest["parts"]["score"])

    def histogram(self) -> pa.Table:
        """`histogram.parquet`: expert, group, value, count, tokens."""
        return read_table(self.folder.read(HISTOGRAM), HISTOGRAM_SCHEMA, f"{self.folder.url}/{HISTOGRAM}")


def open_store(url: str) -> ScoreSet | Selection:
    """The finished score set or selection at `url`; raises InputError if there is neither."""
    kind = read_manifest(Folder(url))["kind"]
    return Selection.open(url) if kind == "selection" else ScoreSet.open(url)


def accounts_of(folder: Folder, unit: str, metadata: Mapping[str, Any]) -> Accounts:
    """The accounts in the footer of a unit of a score set; raises RhoScoreError where it is damaged."""
    with readable(folder, data_name(unit)):
        return Accounts(**metadata["accounts"])


def footers(folder: Folder, units: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Our metadata in the footers of published units, in the order asked for; read sixteen at a time, held a few thousand."""

    def read(unit: str) -> dict[str, Any]:
        with readable(folder, data_name(unit)), folder.open_mapped(data_name(unit)) as file:
            return footer(pq.ParquetFile(file))

    left = iter(units)
    with ThreadPoolExecutor(16) as pool:
        while some := list(itertools.islice(left, 4096)):
            yield from pool.map(read, some)


def histogram_file(counts: pa.Table, bits: Bits) -> bytes:
    """`histogram.parquet`: expert, group, value (nats), count (items of that score), tokens (that they hold)."""
    values = as_arrow(values_of(as_numpy(counts["key"]), bits))
    table = counts.set_column(COUNTS.get_field_index("key"), "value", values).cast(HISTOGRAM_SCHEMA)
    return parquet_bytes(table, HISTOGRAM_SCHEMA)


def beside(folder: Folder, place: str) -> str:
    """A place noted relative to the store at `folder` (by `relative_url`), as a URL; a whole URL as it is."""
    if "://" in place:
        return place
    return str(folder.fs.unstrip_protocol(posixpath.normpath(posixpath.join(folder.path, place))))


def relative_url(url: str, start: str) -> str | None:
    """`url` as seen from the store at `start`, where both are on one file system; else as it is, without credentials.

    None for a place on this machine as seen from a store elsewhere: it would say nothing there.
    """
    here, there = Folder(url), Folder(start)
    if here.fs == there.fs:
        return without_secrets(posixpath.relpath(here.path, there.path))
    return without_credentials(url) if "://" in url and not isinstance(here.fs, LocalFileSystem) else None
