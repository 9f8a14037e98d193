"""From a corpus to units: made once by the driver from listings, footers and the head of each JSONL shard.

A unit is whole row groups of a Parquet shard, a byte range of a JSONL shard, or a whole compressed JSONL shard. Which
units there are depends on the input and `unit_bytes` alone, never on workers, order or time.
"""

import hashlib
import io
import re
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from rho_score.config import CorpusConfig
from rho_score.contents import read_table
from rho_score.errors import InputError
from rho_score.lines import BOM, DAMAGE, LARGEST_SHARD, decompressed
from rho_score.shown import visible
from rho_score.storage import FileInfo, Folder, file_at

FORMATS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
EXPANSION = 4  # typical text bytes in a compressed byte, for estimates only
PEEK_BYTES = 1 << 18
FOOTER_SIGNATURE = 28
MOST_ROWS = 1 << 24  # of a row group; a unit has whole ones, and goes through memory whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One piece of work. `start`, `stop`: row groups of a Parquet shard, bytes of a JSONL shard."""

    unit: str
    shard: str
    format: str
    size: int
    version: str
    start: int
    stop: int
    first_row: int | None
    rows: int | None
    text_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All units of a corpus, in corpus order: by shard's name, then by place in the shard."""

    root: str
    units: tuple[Unit, ...]
    not_shards: tuple[str, ...] = ()
    empty_shards: tuple[str, ...] = ()

    def to_parquet(self) -> bytes:
        """The plan as a Parquet file, a row a unit; the same units give the same bytes."""
        columns = [pa.array([getattr(unit, f.name) for unit in self.units], f.type) for f in _PLAN_SCHEMA]
        table = pa.Table.from_arrays(columns, schema=_PLAN_SCHEMA)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        return sink.getvalue()

    @property
    def digest(self) -> str:
        """SHA-256 over every field of every unit: it changes with the input's files and with `unit_bytes`."""
        return hashlib.sha256(orjson.dumps(self.units)).hexdigest()  # a list of objects, their fields in order


_ARROW_TYPES = {"str": pa.string(), "int": pa.int64(), "int | None": pa.int64()}
_PLAN_SCHEMA = pa.schema(
    pa.field(f.name, _ARROW_TYPES[kind], nullable="None" in kind)
    for f in fields(Unit)
    for kind in [f.type if isinstance(f.type, str) else getattr(f.type, "__name__", str(f.type))]
)


def read_plan(content: bytes) -> tuple[Unit, ...]:
    """The units of a `plan.parquet`; raises InputError if it is damaged."""
    table = read_table(content, _PLAN_SCHEMA, "plan.parquet")
    names = _PLAN_SCHEMA.names
    return tuple(
        Unit(**dict(zip(names, row, strict=True)))
        for batch in table.select(names).to_batches(max_chunksize=1 << 16)
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )


def plan_names(content: bytes) -> pa.Table:
    """The columns unit and shard of a `plan.parquet`: enough to compare two plans, for little memory."""
    return read_table(content, pa.schema([_PLAN_SCHEMA.field(name) for name in ("unit", "shard")]), "plan.parquet")


def changed_shards(then: Iterable[Unit], now: Iterable[Unit]) -> list[str]:
    """How the shards of two plans of one corpus differ, a line each: size and version, there or not."""
    before, after = ({unit.shard: (unit.size, unit.version) for unit in units} for units in (then, now))

    def told(place: tuple[int, str] | None) -> str:
        return "not there" if place is None else f"{place[0]} bytes, version {place[1]}"

    return [
        f"{shard}: then {told(before.get(shard))}; now {told(after.get(shard))}"
        for shard in sorted({*before, *after})
        if before.get(shard) != after.get(shard)
    ]


def make_plan(corpus: CorpusConfig) -> Plan:
    """List the corpus, check every shard's columns, and cut it into units.

    Raises:
        InputError: no shard at all, or shards that cannot be read or lack a column; all of them are named.
    """
    if corpus.unit_bytes < 1:
        raise InputError(f"--unit-bytes must be at least 1, got {corpus.unit_bytes}")
    root, files = _list_corpus(corpus.input)
    shards = {name: info for name, info in files.items() if _is_shard(name)}
    if not shards:
        raise InputError(
            f"no shards in {corpus.input}: {len(files)} files there, none ends with {', '.join(FORMATS)} "
            "(but for names with a part that begins with _, which are left out). Check the path, or convert the corpus to one of "
            "these formats."
        )
    if unreadable := [name for name in shards if not _is_utf8(name)]:
        raise InputError(f"the name of the shard {visible(unreadable[0])} is not UTF-8. Rename it.")
    with ThreadPoolExecutor(32) as pool:
        cut = list(pool.map(lambda item: _try_cut(root, item[0], item[1], corpus), shards.items()))
    problems = [problem for _, problem in cut if problem]
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise InputError(f"{len(problems)} of {len(shards)} shards cannot be read; nothing was run:\n{shown}{more}")
    units = tuple(unit for units, _ in cut for unit in units)
    if not units:
        raise InputError(f"{corpus.input} holds {len(shards)} shards and no document: every shard is empty.")
    cut_shards = {unit.shard for unit in units}
    return Plan(
        root=root.url,
        units=units,
        not_shards=tuple(name if _is_utf8(name) else visible(name) for name in files if name not in shards),
        empty_shards=tuple(name for name in shards if name not in cut_shards),
    )


def root_of(url: str) -> tuple[Folder, Literal["glob", "file", "folder"]]:
    """The folder that shards are named from, and what `url` is; "folder" also where there is nothing."""
    folder = Folder(url)
    if (magic := re.search(r"[*?\[]", url)) and not folder.exists():
        return Folder(url[: magic.start()].rpartition("/")[0] or "."), "glob"
    if folder.is_file():
        return file_at(url.rstrip("/"))[0], "file"
    return folder, "folder"


def _list_corpus(url: str) -> tuple[Folder, dict[str, FileInfo]]:
    """The folder that shards are named from, and all files below it that `url` means."""
    root, kind = root_of(url)
    if kind == "glob":
        wanted = re.compile(glob_translate(root.fs._strip_protocol(url)))
        return root, {name: info for name, info in root.listing().items() if wanted.match(root.name(name))}
    if kind == "file":
        _, name = file_at(url.rstrip("/"))
        return root, {name: root.info(name)}
    files = root.listing()
    if not files and not root.exists():
        raise InputError(f"there is nothing at {url}. Check the path; for s3:// check the endpoint and credentials.")
    return root, files


def _is_shard(name: str) -> bool:
    """Whether the file holds documents: its ending says so, and no part of its name begins with `_` (others' metadata)."""
    return name.lower().endswith(FORMATS) and not any(part.startswith("_") for part in name.split("/"))


def _is_utf8(name: str) -> bool:
    """Whether a file's name is text; a local disk has others too, which Python reads as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _try_cut(root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> tuple[list[Unit], str | None]:
    try:
        if info.size == 0:
            _check_empty(root, name)
            return [], None
        cut = _cut_parquet if name.lower().endswith(".parquet") else _cut_jsonl
        return cut(root, name, info, corpus), None
    except InputError as error:
        return [], f"{visible(name)}: {error}"
    except (*DAMAGE, UnicodeDecodeError) as error:  # names in a footer
        return [], f"{visible(name)}: not readable ({error}). Replace it or take it out of the corpus."


def _check_empty(root: Folder, name: str) -> None:
    """A file of 0 bytes is an empty shard where its format has no header; else, or as a link to nothing, it is refused."""
    if not root.exists(name):
        raise InputError("a link to a file that is not there. Mend the link or take it out of the corpus.")
    if not name.lower().endswith(".jsonl"):
        raise InputError(
            "0 bytes, so not even a header; was its upload cut off? Replace it or take it out of the corpus."
        )


def _unit(shard: str, start: int, stop: int, **rest: Any) -> Unit:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", shard)[-80:].lstrip(".-_")
    place = hashlib.sha256(f"{shard}\0{start}\0{stop}".encode()).hexdigest()[:12]
    return Unit(unit=f"{slug}_{start}-{stop}_{place}", shard=shard, start=start, stop=stop, **rest)


def _cut_parquet(root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
    with root.open(name) as file:
        footer = _Footer(file)
        shard = pq.ParquetFile(footer)
        metadata = shard.metadata
        _refuse_encrypted(file, info.size, metadata)
        footer.all_read = True
        _check_row_groups(shard, corpus.text_column)
    schema = metadata.schema.to_arrow_schema()
    _check_column(schema, corpus.text_column, "--text-column", _is_text)
    for column, flag in ((corpus.id_column, "--id-column"), (corpus.group_column, "--group-column")):
        if column is not None:
            _check_column(schema, column, flag, lambda kind: _is_text(kind) or pa.types.is_integer(kind))
    leaf = next(i for i in range(len(metadata.schema)) if metadata.schema.column(i).path == corpus.text_column)
    units: list[Unit] = []
    start = row = rows = size = 0
    for i in range(metadata.num_row_groups):
        n_rows, n_bytes = metadata.row_group(i).num_rows, metadata.row_group(i).column(leaf).total_uncompressed_size
        for what, found, most in (("rows", n_rows, MOST_ROWS), ("bytes of text", n_bytes, LARGEST_SHARD)):
            if found > most:
                raise InputError(f"row group {i} has {found:,} {what}, more than {most:,}. Write smaller row groups.")
        rows, size = rows + n_rows, size + n_bytes
        if size >= corpus.unit_bytes or rows >= MOST_ROWS or i + 1 == metadata.num_row_groups:
            if rows:
                place = {"first_row": row, "rows": rows, "text_bytes": size}
                units.append(
                    _unit(name, start, i + 1, format=".parquet", size=info.size, version=info.version, **place)
                )
            start, row, rows, size = i + 1, row + rows, 0, 0
    return units


def _check_row_groups(shard: pq.ParquetFile, column: str) -> None:
    """Raises where rows are counted two ways, or the column cannot be asked for in a row group; of `shard` the footer alone is given, see `_Footer`."""
    rows = [shard.metadata.row_group(i).num_rows for i in range(shard.metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != shard.metadata.num_rows:
        raise InputError(
            f"not readable (its footer says {shard.metadata.num_rows:,} rows, its row groups {sum(rows):,}). "
            "Replace it or take it out of the corpus."
        )
    for i in range(shard.metadata.num_row_groups):
        if shard.metadata.row_group(i).num_columns != len(shard.metadata.schema):
            raise InputError(f"not readable (row group {i} lacks columns). Replace it or take it out of the corpus.")
        with suppress(_AllReadError):
            shard.read_row_group(i, columns=[column])


class _AllReadError(Exception):
    """More than the footer is asked for."""


class _Footer:
    """A Parquet file that is no longer read once `all_read`: so pyarrow's reader can be made to look at the footer alone.

    It tells by an error what is wrong there; asked about a column of such a footer, pyarrow ends the process.
    """

    closed = False

    def __init__(self, file: Any) -> None:
        self._file, self.all_read = file, False
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> Any:
        """As a file's."""
        if self.all_read:
            raise _AllReadError
        return self._file.read(size)


def _refuse_encrypted(file: Any, size: int, metadata: pq.FileMetaData) -> None:
    """Refuse a readable footer over encrypted columns: pyarrow ends the process where it is asked about one of them.

    Such a footer is signed: 28 bytes of nonce and tag stand between it and its length, the file's last word but one.
    """
    file.seek(size - 8)
    (length,) = struct.unpack("<I", file.read(4))
    if length - metadata.serialized_size == FOOTER_SIGNATURE:
        raise InputError("it has encrypted columns. Write it again without encryption.")


def _is_text(kind: pa.DataType) -> bool:
    """Strings of any layout; null, the type that writers give a column without any value, too."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        fits(value)
        for fits in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )


def _check_column(schema: pa.Schema, column: str, flag: str, fits: Any) -> None:
    if column not in schema.names:
        raise InputError(f"no column {column!r}; there are: {', '.join(schema.names)}. Name the right one with {flag}.")
    if schema.names.count(column) > 1:
        raise InputError(f"{schema.names.count(column)} columns are called {column!r}. Rename one of them.")
    kind = schema.field(column).type
    if not fits(kind):
        wanted = "string" if flag == "--text-column" else "string or integer"
        raise InputError(f"column {column!r} has type {kind}, not {wanted}. Name another column with {flag}.")


def _cut_jsonl(root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
    suffix = next(s for s in FORMATS if name.lower().endswith(s))
    _check_jsonl_head(root, name, suffix, corpus)
    common = {"format": suffix, "size": info.size, "version": info.version, "rows": None}
    if suffix != ".jsonl":
        return [_unit(name, 0, info.size, first_row=0, text_bytes=info.size * EXPANSION, **common)]
    starts = range(0, info.size, corpus.unit_bytes)
    stops = [min(start + corpus.unit_bytes, info.size) for start in starts]
    return [
        _unit(name, start, stop, first_row=0 if start == 0 else None, text_bytes=stop - start, **common)
        for start, stop in zip(starts, stops, strict=True)
    ]


def _check_jsonl_head(root: Folder, name: str, suffix: str, corpus: CorpusConfig) -> None:
    """Refuse a shard where no whole record among the first ones has the named columns."""
    keys: set[str] = set()
    for line in _head_lines(root, name, suffix):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # a broken line is quarantined when its turn comes
        if isinstance(record, dict):
            keys.update(record)
    columns = {
        corpus.text_column: "--text-column",
        corpus.id_column: "--id-column",
        corpus.group_column: "--group-column",
    }
    for column, flag in columns.items():
        if column is not None and keys and column not in keys:
            raise InputError(
                f"no field {column!r} in its first records; there are: {', '.join(sorted(keys))}. See {flag}."
            )


def _head_lines(root: Folder, name: str, suffix: str) -> Iterable[bytes]:
    head = _head(root, name, suffix)
    lines = head.removeprefix(BOM).split(b"\n")
    return [line for line in (lines if len(head) < PEEK_BYTES else lines[:-1]) if line.strip()]


def _head(root: Folder, name: str, suffix: str) -> bytes:
    """The first bytes; fewer where the stream breaks off early, which costs what comes after and not the shard."""
    head = b""
    with root.open(name) as file:
        stream = decompressed(file, suffix)
        try:
            while len(head) < PEEK_BYTES and (more := stream.read1(4096)):
                head += more
        except DAMAGE:
            if not head:
                raise
    return head
