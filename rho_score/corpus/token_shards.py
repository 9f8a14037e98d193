"""Files of token ids: flat ones, with or without a header, and Megatron-LM's pairs of `.bin` and `.idx`.

A flat file is one stream of ids. A document is what follows the end of the one before it, up to and
including the next id `split_at`: the id that splits stays the last one of its document, so the
documents of a file, one after the other, are the file. Its units are ranges of tokens, cut without
reading them, and a document belongs to the unit that its first token is in.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from rho_score.config import CorpusConfig
from rho_score.corpus.columns import Columns, Document, Row, folder_values
from rho_score.corpus.lines import LONGEST_LINE
from rho_score.corpus.megatron_index import MegatronIndex
from rho_score.corpus.units import Unit, new_unit
from rho_score.errors import InputError
from rho_score.files.folder import FileInfo, Folder

NAMES = ".bin or .npy"
ROWS = None
ID_BYTES = 4
"""The bytes of text that an id counts as, whatever it takes in the file."""
LONGEST_IDS = LONGEST_LINE // 8
"""The most tokens of a document."""

_NAME = re.compile(r"(?i)\.(bin|npy)$")
_FORMAT = re.compile(r"(tokens|megatron):(\S+)@(\d+)")  # what they are, their type, where they begin
_PIECE = 1 << 18  # tokens read at a time
_NPY = b"\x93NUMPY"
_NPY_BYTES = 1 << 16  # the longest header
_LLM_C = {(20240520, 1): "uint16", (20240801, 7): "uint32"}  # magic and version in a header of 256 int32
_LLM_C_BYTES = 1024


def is_name(name: str) -> bool:
    """True if a file with this name is read as token ids, where these are asked for."""
    return _NAME.search(name) is not None


def may_be_empty(name: str) -> bool:
    """True if a file of 0 bytes with this name is a shard without documents, not a broken one."""
    return is_name(name)


def holds(unit: Unit) -> bool:
    """True if the unit belongs to a file of token ids."""
    return _FORMAT.fullmatch(unit.format) is not None


def index_of(name: str) -> str:
    """The name that the index of a Megatron-LM dataset with this `.bin` has."""
    return re.sub(r"(?i)\.bin$", ".idx", name)


def info(root: Folder, name: str) -> FileInfo:
    """The size of a shard, and its version together with that of its index, if it has one."""
    return _with_index(root, name, root.info(name))


def _with_index(root: Folder, name: str, found: FileInfo) -> FileInfo:
    if not _has_index(root, name):
        return found
    return FileInfo(found.size, f"{found.version} {root.info(index_of(name)).version}")


def _has_index(root: Folder, name: str) -> bool:
    return index_of(name) != name and root.exists(index_of(name))


def cut(root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
    """The units of a shard: ranges of tokens of a flat file, or ranges of documents by the index.

    Raises:
        InputError: the type of the ids is not known or does not fit the file, or the index does not
            fit the ids, or the shard has no folder for the group.
    """
    key = corpus.group_column
    if key is not None and key not in folder_values(name):
        raise InputError(
            f"no folder {key}=… below the input, and files of token ids have no columns. Leave --group-column out."
        )
    per_unit = max(1, corpus.unit_bytes // ID_BYTES)
    if _has_index(root, name):
        return _cut_by_index(root, name, info, per_unit)
    with root.open(name) as file:
        dtype, at = _head(file, info.size, corpus.token_files or "auto")
    n_tokens = (info.size - at) // dtype.itemsize
    if (info.size - at) % dtype.itemsize:
        raise InputError(
            f"{info.size - at:,} bytes are no whole number of ids of {dtype.itemsize} bytes ({dtype.name}). Give the right type "
            "with --token-files, or replace the file if its upload was cut off."
        )
    common = {"format": f"tokens:{dtype.str}@{at}", "size": info.size, "version": info.version, "rows": None}
    starts = range(0, n_tokens, per_unit)
    stops = [min(start + per_unit, n_tokens) for start in starts]
    return [
        new_unit(name, start, stop, first_row=0 if start == 0 else None, text_bytes=ID_BYTES * (stop - start), **common)
        for start, stop in zip(starts, stops, strict=True)
    ]


def _cut_by_index(root: Folder, name: str, info: FileInfo, per_unit: int) -> list[Unit]:
    info = _with_index(root, name, info)
    with root.open(index_of(name)) as file:
        index = MegatronIndex.read(file, root.info(index_of(name)).size, index_of(name))
        ranges = list(index.ranges(file, info.size, per_unit))
    common = {"format": f"megatron:{index.dtype.str}@0", "size": info.size, "version": info.version}
    return [
        new_unit(name, start, stop, first_row=start, rows=stop - start, text_bytes=ID_BYTES * n_tokens, **common)
        for start, stop, n_tokens in ranges
    ]


def _head(file: Any, size: int, given: str) -> tuple[np.dtype, int]:
    """The type of the ids of a flat file, and the place of the first one.

    given: the type of files without a header, or `auto` if there are none of these.
    """
    head = file.read(_LLM_C_BYTES)
    if head.startswith(_NPY):
        return _npy_head(io.BytesIO(head + file.read(_NPY_BYTES)), size)
    if len(head) == _LLM_C_BYTES:
        magic, version, n_tokens = struct.unpack_from("<iii", head)
        if found := _LLM_C.get((magic, version)):
            _check_size(n_tokens, np.dtype(found), size - len(head))
            return np.dtype(found).newbyteorder("<"), len(head)
    if given == "auto":
        raise InputError(
            "it has no header that tells the type of its ids. Name it, for example with --token-files uint16 (as nanoGPT writes "
            "for vocabularies below 65,536)."
        )
    return np.dtype(given).newbyteorder("<"), 0


def _npy_head(file: io.BytesIO, size: int) -> tuple[np.dtype, int]:
    """file: the first bytes of the file."""
    try:
        version = np.lib.format.read_magic(file)
        readers: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype]]] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"version {version}")
        shape, _, dtype = readers[version](file)
    except Exception as error:  # a damaged header makes numpy's parser raise errors of many kinds
        raise InputError(f"not readable (its header: {error}). Replace it or take it out of the corpus.") from error
    if len(shape) != 1 or dtype.kind not in "iu":
        raise InputError(f"it holds {dtype} of shape {shape}, not a list of ids. Save a flat array of integers.")
    at = int(file.tell())
    _check_size(shape[0], dtype, size - at)
    return dtype, at


def _check_size(n_tokens: int, dtype: np.dtype, size: int) -> None:
    """Raises InputError unless `size` bytes are what the header says."""
    if n_tokens * dtype.itemsize != size:
        raise InputError(
            f"its header says {n_tokens:,} ids of {dtype.itemsize} bytes, but {size:,} bytes follow; was its upload cut off? "
            "Replace it or take it out of the corpus."
        )


def read(root: Folder, unit: Unit, columns: Columns) -> Iterator[Row]:
    """Yields the documents of a unit in input order. Those that cannot be scored have an error."""
    group = None if columns.group is None else folder_values(unit.shard)[columns.group]
    found = _FORMAT.fullmatch(unit.format)
    assert found is not None
    dtype, at = np.dtype(found[2]), int(found[3])
    with root.open(unit.shard) as file:

        def ids(first: int, stop: int) -> np.ndarray:
            file.seek(at + first * dtype.itemsize)
            return np.frombuffer(file.read((stop - first) * dtype.itemsize), dtype)

        if found[1] == "megatron":
            yield from _by_index(root, unit, group, ids)
            return
        assert columns.split_at is not None
        n_tokens = (unit.size - at) // dtype.itemsize
        for first, document in split_between(ids, n_tokens, unit.start, unit.stop, columns.split_at):
            before = (first - unit.start) / (unit.stop - unit.start)
            yield Row(_document(f"{unit.shard}@{first}", group, document, "Is --split-at the right id?"), before)


def rows(root: Folder, unit: Unit, keep: np.ndarray) -> Iterator[pa.Table | bytes]:
    """Raises InputError: ids are all that such a file has."""
    raise InputError(f"{unit.shard} holds token ids alone.")


def split_between(
    ids: Callable[[int, int], np.ndarray], n_tokens: int, start: int, stop: int, split_at: int
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yields the documents that begin in the tokens [start, stop) of a flat file.

    Each is (the place of its first token, its ids), with None in place of more than `LONGEST_IDS`
    ids. Each document but the last one ends with `split_at`.

    ids: reads the tokens [first, stop) of the file. n_tokens: the tokens of the file.
    """
    at = max(start - 1, 0)
    first = 0 if start == 0 else None  # of the document in hand; None before it is known where one begins
    parts: list[np.ndarray] = []
    held = 0
    while at < (stop if first is None else n_tokens):
        piece = ids(at, min(at + _PIECE, n_tokens))
        if not len(piece):
            return  # the file was cut off since it was planned, which the caller finds
        begin = 0
        for end in (np.flatnonzero(piece == split_at) + 1).tolist():
            if first is not None:
                yield first, _joined(parts, held, piece[begin:end])
            first, begin, parts, held = at + end, end, [], 0
            if first >= stop:
                return
        if first is not None:
            held += len(piece) - begin
            parts = [*parts, piece[begin:]] if held <= LONGEST_IDS else []
            if held > LONGEST_IDS and at + len(piece) >= stop:
                yield first, None
                return
        at += len(piece)
    if first is not None and held:
        yield first, _joined(parts, held, np.zeros(0, np.int64))


def _joined(parts: list[np.ndarray], held: int, rest: np.ndarray) -> np.ndarray | None:
    """The ids of a document, of which `held` came before `rest`; None if they are too many."""
    return None if held + len(rest) > LONGEST_IDS else np.concatenate([*parts, rest])


def _by_index(root: Folder, unit: Unit, group: str | None, ids: Callable[[int, int], np.ndarray]) -> Iterator[Row]:
    name = index_of(unit.shard)
    with root.open(name) as file:
        index = MegatronIndex.read(file, root.info(name).size, name)
        first, lengths = index.documents(file, unit.start, unit.stop)
    for i, length in enumerate(lengths.tolist()):
        found = None if length > LONGEST_IDS else ids(first, first + length)
        document = _document(f"{unit.shard}#{unit.start + i}", group, found, "Cut the document into shorter ones.")
        yield Row(document, i / len(lengths))
        first += length


def _document(doc_id: str, group: str | None, ids: np.ndarray | None, remedy: str) -> Document:
    """The document of these ids, which travel as JSON (`rho_score.corpus.content`)."""
    if ids is None:
        return Document(doc_id, None, None, f"longer than {LONGEST_IDS:,} tokens. {remedy}")
    if len(wrong := np.flatnonzero((ids < 0) | (ids >= 1 << 31))):
        return Document(doc_id, None, None, f"token {wrong[0]} is {ids[wrong[0]]}, not an id")
    text = orjson.dumps(np.ascontiguousarray(ids, np.int32), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return Document(doc_id, group, text, None)
