"""Tars as webdataset writes them: consecutive files whose names are the same up to the first dot are a sample.

What follows that dot names a column: `.txt` holds a text, `.json` an object. Files that are no
column of the run are passed over unread, and nothing is extracted.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from rho_score.config import CorpusConfig
from rho_score.corpus.columns import Columns, Document, Row, folder_values
from rho_score.corpus.compression import DAMAGE, MAGIC_BYTES, compression_of, decompressed, is_damage
from rho_score.corpus.content import columns_of
from rho_score.corpus.lines import LARGEST_SHARD, LONGEST_LINE
from rho_score.corpus.records import check_columns, record_document
from rho_score.corpus.units import Unit, new_unit
from rho_score.corpus.values import Unusable
from rho_score.errors import InputError
from rho_score.files.folder import FileInfo, Folder

FORMAT = ".tar"
NAMES = ".tar (plain or followed by .gz, .zst, .lz4, .bz2 or .xz)"
ROWS = None
EXPANSION = 4  # typical bytes of text per compressed byte; only for estimates
_NAME = re.compile(r"(?i)\.(tar(\.(gz|gzip|zst|zstd|lz4|bz2|xz))?|tgz)$")
_MEMBER = re.compile(r"(?s)((?:.*/)?[^/.][^/.]*)\.([^/]*)")  # the key, and the name of the column
_NUMBERS = {"cls", "cls2", "class", "count", "index", "inx", "id"}  # white space around these is no part of them
_HEAD_SAMPLES = 20
_MOST_HEADER = 1 << 20  # bytes of a long name, or of the attributes of a file
_WITHOUT_DATA = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
_DAMAGE = (*DAMAGE, tarfile.TarError, ValueError)  # ValueError: numbers in a header


def is_name(name: str) -> bool:
    """True if a file with this name is read as a tar of samples."""
    return _NAME.search(name) is not None


def may_be_empty(name: str) -> bool:
    """False: an empty tar has a mark of its end."""
    return False


def holds(unit: Unit) -> bool:
    """True if the unit belongs to a tar."""
    return unit.format.startswith(FORMAT)


def info(root: Folder, name: str) -> FileInfo:
    """The size and version of a shard."""
    return root.info(name)


def cut(root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
    """The unit of a shard, which is the whole of it.

    Raises:
        InputError: the shard is no tar, or lacks a column in its first samples.
    """
    first: list[_Sample] = []
    with root.open(name) as file:
        compression = compression_of(file.read(MAGIC_BYTES))
        file.seek(0)
        try:
            for sample in islice(_samples(_opened(file, compression), columns_of(corpus)), _HEAD_SAMPLES):
                first.append(sample)
        except _DAMAGE as error:  # what comes before it can be scored
            if not _is_damage(error):
                raise
            if not first:
                raise InputError(f"not readable ({error}). Replace it or take it out of the corpus.") from error
    check_columns([sample.record for sample in first], name, corpus)
    text_bytes = info.size * (EXPANSION if compression else 1)
    about = {"size": info.size, "version": info.version, "first_row": 0, "rows": None, "text_bytes": text_bytes}
    return [new_unit(name, 0, info.size, format=FORMAT + compression, **about)]


def read(root: Folder, unit: Unit, columns: Columns) -> Iterator[Row]:
    """Yields the samples of a unit in their order. Those that cannot be scored have an error.

    At most `LARGEST_SHARD` bytes of columns are read.
    """
    folders, seen, size, at = folder_values(unit.shard), set[str](), 0, 0
    with root.open(unit.shard) as file:
        try:
            for sample in _samples(_opened(file, unit.format.removeprefix(FORMAT)), columns):
                at = sample.stop
                size += sample.size
                place = f"sample at byte {sample.offset}"
                if size > LARGEST_SHARD:
                    reason = f"{place}: the tar has more than {LARGEST_SHARD:,} bytes of text, the rest is not read. Cut it into smaller ones."
                    yield Row(Document(f"{unit.shard}@{sample.offset}", None, None, reason), None)
                    return
                before = sample.offset / unit.size if unit.format == FORMAT else None
                yield Row(_document(sample, place, unit, columns, folders, again=sample.key in seen), before)
                seen.add(sample.key)
        except _DAMAGE as error:
            if not _is_damage(error):
                raise
            reason = f"byte {at}: the tar is damaged here, the rest is lost: {error}"
            yield Row(Document(f"{unit.shard}@{at}", None, None, reason), None)


def rows(root: Folder, unit: Unit, keep: np.ndarray) -> Iterator[pa.Table | bytes]:
    """Raises InputError: the files of a sample that are no text would be lost."""
    raise InputError(f"{unit.shard} is a tar, whose samples are not written again.")


@dataclass
class _Sample:
    """The files of a sample."""

    key: str
    offset: int
    """The place of its first file in the decompressed tar."""
    stop: int = 0
    """The place behind its last file so far."""
    size: int = 0
    """The bytes of the columns that were read."""
    record: dict[str, Any] = field(default_factory=dict)
    """The columns that the run needs, and None for others."""
    twice: str | None = None
    """A column that it has twice."""


def _document(
    sample: _Sample, place: str, unit: Unit, columns: Columns, folders: dict[str, str | None], *, again: bool
) -> Document:
    """again: True if another sample has the same key."""
    default_id = f"{unit.shard}#{sample.key}"
    wrong = {name: value for name, value in sample.record.items() if isinstance(value, Unusable)}
    if again:
        reason = f"the key {sample.key!r} is that of an earlier sample. Put its files one after the other."
        return Document(f"{unit.shard}@{sample.offset}", None, None, f"{place}: {reason}")
    if sample.twice is not None:
        return Document(default_id, None, None, f"{place}: it has two files .{sample.twice}")
    if wrong:
        name, value = next(iter(wrong.items()))
        return Document(default_id, None, None, f"{place}: its file .{name} is {value.reason}")
    return record_document(sample.record, default_id, place, columns, folders, lambda _, found: found)


def _samples(tar: tarfile.TarFile, columns: Columns) -> Iterator[_Sample]:
    """Yields the samples of an open tar, with the values of these columns.

    Raises:
        tarfile.TarError, ValueError, OSError: the tar is damaged. A sample that is cut off is lost.
    """
    names = [
        of for of in (columns.text, columns.context, columns.rejected, columns.id, columns.group) if of is not None
    ]
    names += columns.id_parts
    sample: _Sample | None = None
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # or all of them stay in memory
        found = _MEMBER.fullmatch(member.name)
        if not member.isfile() or found is None:
            continue
        key, name = found[1], found[2].lower()
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = _Sample(key, member.offset)
        if name in sample.record:
            sample.twice = name
        wanted = any(column == name or column.startswith(f"{name}.") for column in names)
        sample.record[name] = _value(tar, member, name) if wanted else None
        sample.size += member.size if wanted else 0
        sample.stop = member.offset_data + member.size
    if sample is not None:
        yield sample


def _value(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Any:
    """The value of a column: an object if its name ends with json, else text."""
    if member.size > LONGEST_LINE:
        return Unusable(f"longer than {LONGEST_LINE:,} bytes. Split the document")
    file = tar.extractfile(member)
    assert file is not None
    content = file.read()
    last = name.rpartition(".")[2]
    try:
        if last == "json":
            return orjson.loads(content)
        text = content.decode()
    except orjson.JSONDecodeError as error:
        return Unusable(f"not valid JSON: {error}")
    except UnicodeDecodeError:
        return Unusable("not valid UTF-8")
    return text.strip() if last in _NUMBERS else text


def _opened(file: Any, compression: str) -> tarfile.TarFile:
    if compression:
        return tarfile.open(fileobj=decompressed(file, compression), mode="r|", tarinfo=_Member)
    return tarfile.TarFile(fileobj=file, tarinfo=_Member)


class _Member(tarfile.TarInfo):
    """A file in a tar.

    Python's reader takes a broken header for the end of the tar, and reads long names of any length
    into memory; this one does neither.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no header where one is expected: {error}") from error

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type not in (*tarfile.REGULAR_TYPES, *_WITHOUT_DATA) and self.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _is_damage(error: BaseException) -> bool:
    return isinstance(error, tarfile.TarError | ValueError) or is_damage(error)
