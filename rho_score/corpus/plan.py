"""Plans a corpus: lists its shards, checks them, and cuts them into units.

The driver makes the plan once, from listings, footers and the heads of shards. A unit is some row
groups of a Parquet shard, a range of a JSON Lines shard or of a file of token ids, or a whole
compressed shard. The units depend only on the input and `unit_bytes`, never on workers, order or
time.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from rho_score.config import CorpusConfig
from rho_score.corpus.compression import DAMAGE
from rho_score.corpus.content import columns_of
from rho_score.corpus.formats import Format, formats_for
from rho_score.corpus.layouts import PART, hint, other_files
from rho_score.corpus.units import Unit
from rho_score.errors import InputError
from rho_score.files.folder import FileInfo, Folder, file_at
from rho_score.files.parquet import read_table
from rho_score.safe_text import visible

NAMED = 5  # how many of the files that are left out `left_out` names


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All units of a corpus, in corpus order: by the shard's name, then by place in the shard."""

    root: str
    units: tuple[Unit, ...]
    not_shards: tuple[str, ...] = ()
    empty_shards: tuple[str, ...] = ()

    def to_parquet(self) -> bytes:
        """The plan as a Parquet file with one row per unit. The same units give the same bytes."""
        columns = [pa.array([getattr(unit, f.name) for unit in self.units], f.type) for f in _PLAN_SCHEMA]
        table = pa.Table.from_arrays(columns, schema=_PLAN_SCHEMA)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        return sink.getvalue()

    @property
    def digest(self) -> str:
        """SHA-256 of all fields of all units; it depends on the input's files and `unit_bytes`."""
        return hashlib.sha256(orjson.dumps(self.units)).hexdigest()


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
    """The columns unit and shard of a `plan.parquet`, which take less memory than all units."""
    return read_table(content, pa.schema([_PLAN_SCHEMA.field(name) for name in ("unit", "shard")]), "plan.parquet")


def changed_shards(then: Iterable[Unit], now: Iterable[Unit]) -> list[str]:
    """The shards that differ between two plans of one corpus, one line each.

    A line has the shard's size and version in both plans.
    """
    before, after = ({unit.shard: (unit.size, unit.version) for unit in units} for units in (then, now))

    def told(place: tuple[int, str] | None) -> str:
        return "not there" if place is None else f"{place[0]} bytes, version {place[1]}"

    return [
        f"{shard}: then {told(before.get(shard))}; now {told(after.get(shard))}"
        for shard in sorted({*before, *after})
        if before.get(shard) != after.get(shard)
    ]


def make_plan(corpus: CorpusConfig) -> Plan:
    """Lists the corpus, checks the columns of every shard, and cuts the shards into units.

    Raises:
        InputError: the columns contradict each other, or there is no shard, or some shards cannot be
            read or lack a column. The message names the first 20 of these.
    """
    if corpus.unit_bytes < 1:
        raise InputError(f"--unit-bytes must be at least 1, got {corpus.unit_bytes}")
    columns_of(corpus)
    root, files, listed = _list_corpus(corpus.input)
    others = other_files(root, listed, corpus)
    formats = {name: _shard_format(name, corpus) for name in files if name not in others}
    shards = {name: known for name, known in formats.items() if known is not None}
    if not shards:
        names = ", ".join(known.NAMES for known in formats_for(corpus))
        raise InputError(
            f"no shards in {corpus.input}: none of the {len(files)} files there ends with {names}; "
            "files with a part of their name that begins with _ are left out. "
            f"Check the path, or convert the corpus to one of these formats{hint(files, corpus)}."
        )
    if unreadable := [name for name in shards if not _is_utf8(name)]:
        raise InputError(f"the name of the shard {visible(unreadable[0])} is not UTF-8. Rename it.")
    with ThreadPoolExecutor(32) as pool:
        cut = list(pool.map(lambda item: _try_cut(root, item[0], files[item[0]], item[1], corpus), shards.items()))
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
        not_shards=tuple(
            name if _is_utf8(name) else visible(name)
            for name in files
            if name not in shards and others.get(name) is not PART
        ),
        empty_shards=tuple(name for name in shards if name not in cut_shards),
    )


def left_out(names: Sequence[str]) -> str:
    """Text to show about files that are left out, with the names of the first `NAMED`."""
    return f"left out: {', '.join(map(visible, names[:NAMED]))}{' …' if len(names) > NAMED else ''}"


def root_of(url: str) -> tuple[Folder, Literal["glob", "file", "folder"]]:
    """The folder that the names of shards are relative to, and what `url` is.

    A `url` where nothing exists counts as "folder".
    """
    folder = Folder(url)
    if (magic := re.search(r"[*?\[]", url)) and not folder.exists():
        return Folder(url[: magic.start()].rpartition("/")[0] or "."), "glob"
    if folder.is_file():
        return file_at(url.rstrip("/"))[0], "file"
    return folder, "folder"


def _list_corpus(url: str) -> tuple[Folder, dict[str, FileInfo], dict[str, FileInfo]]:
    """The folder that the names of shards are relative to, the files that `url` stands for, and those
    that are listed to find them."""
    root, kind = root_of(url)
    if kind == "glob":
        wanted = re.compile(glob_translate(root.fs._strip_protocol(url)))
        listed = root.listing()
        return root, {name: info for name, info in listed.items() if wanted.match(root.name(name))}, listed
    if kind == "file":
        _, name = file_at(url.rstrip("/"))
        files = {name: root.info(name)}
        return root, files, files
    files = root.listing()
    if not files and not root.exists():
        raise InputError(f"there is nothing at {url}. Check the path; for s3:// check the endpoint and credentials.")
    return root, files, files


def _shard_format(name: str, corpus: CorpusConfig) -> Format | None:
    """The format of a shard; None if the file's name has no ending of a format, or a part that begins with `_`."""
    if any(part.startswith("_") for part in name.split("/")):
        return None
    return next((known for known in formats_for(corpus) if known.is_name(name)), None)


def _is_utf8(name: str) -> bool:
    """True if a file's name is text. On a local disk, Python reads other names as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _try_cut(
    root: Folder, name: str, info: FileInfo, known: Format, corpus: CorpusConfig
) -> tuple[list[Unit], str | None]:
    """The units of a shard, and what is wrong with it, if anything is."""
    try:
        if info.size == 0:
            _check_empty(root, name, known)
        return known.cut(root, name, info, corpus), None
    except InputError as error:
        return [], f"{visible(name)}: {error}"
    except (*DAMAGE, UnicodeDecodeError) as error:  # UnicodeDecodeError: names in a footer
        return [], f"{visible(name)}: not readable ({error}). Replace it or take it out of the corpus."


def _check_empty(root: Folder, name: str, known: Format) -> None:
    """Refuses a file of 0 bytes, unless it is an empty shard of a format without a header.

    Raises:
        InputError: the format has a header, or the file is a link to nothing.
    """
    if not root.exists(name):
        raise InputError("a link to a file that is not there. Mend the link or take it out of the corpus.")
    if not known.may_be_empty(name):
        raise InputError(
            "0 bytes, so not even a header; was its upload cut off? Replace it or take it out of the corpus."
        )
