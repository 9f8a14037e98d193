"""Decodes the record batches of open Arrow files and streams one by one, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pyarrow as pa

from rho_score.corpus.arrow_messages import (
    BATCH,
    DICTIONARY,
    SCHEMA,
    Message,
    check_size,
    content_of,
    footer,
    messages,
)
from rho_score.corpus.compression import DAMAGE
from rho_score.errors import InputError


class Reader(Protocol):
    """An open shard."""

    schema: pa.Schema

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Message]]:
        """Yields (place, record batch) for the places from `start` to `stop`: what units are cut at.

        Without `stop`, these are all of the shard, whose dictionaries are checked as well.
        """

    def decoded(self, place: int, message: Message, names: list[str] | None = None) -> pa.RecordBatch:
        """A record batch of `batches`, checked so that every value can be read; with these columns, if given.

        Raises:
            pyarrow.ArrowInvalid: it is damaged.
        """


class StreamReader:
    """An open stream. The place of a record batch is its first byte."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size = file, size
        first = next(messages(file, size), None)
        if first is None or first.kind != SCHEMA:
            raise InputError("not readable (it does not begin with a schema). Replace it or take it out of the corpus.")
        self._before = [content_of(file, first)]  # what a decoder must have seen: the schema, then dictionaries
        self._begin = first.stop
        self.schema = pa.ipc.read_schema(pa.py_buffer(self._before[0]))

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Message]]:
        stop = self._size if stop is None else stop
        begin = self._begin if _has_dictionary(self.schema) else max(start, self._begin)
        for message in messages(self._file, stop, begin):
            if message.kind == DICTIONARY:
                content = content_of(self._file, message)
                check_size(message, content)
                self._before.append(content)
            elif message.kind == BATCH and message.start >= start:
                yield message.start, message

    def decoded(self, place: int, message: Message, names: list[str] | None = None) -> pa.RecordBatch:
        content = content_of(self._file, message)
        check_size(message, content)
        whole, options = pa.BufferReader(b"".join([*self._before, content])), _options(self.schema, names)
        return _checked(message, lambda: pa.ipc.open_stream(whole, options=options).read_next_batch())


class FileReader:
    """An open file. The place of a record batch is its number."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = _Window(file)
        self._dictionaries, self._batches = footer(file, size)
        self.schema = _open(self._file, None).schema

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Message]]:
        for message in self._dictionaries if stop is None else []:
            check_size(message, content_of(self._file, message))
        chosen = self._batches[start:stop]
        yield from enumerate(chosen, start)

    def decoded(self, place: int, message: Message, names: list[str] | None = None) -> pa.RecordBatch:
        check_size(message, self._file.load(message))
        try:
            return _checked(message, lambda: _open(self._file, _options(self.schema, names)).get_batch(place))
        except pa.ArrowInvalid:
            if self._file.failure is not None:
                raise self._file.failure from None
            raise


class _Window:
    """An open file of which a part is in memory. It keeps the error that the storage raised."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file, self._at, self._start = file, 0, 0
        self._content = b""
        self.failure: OSError | None = None

    def load(self, message: Message) -> bytes:
        """Reads a whole message into memory."""
        self._start, self._content = message.start, content_of(self._file, message)
        return self._content

    def seek(self, at: int, whence: int = 0) -> int:
        """Goes to a byte of the file."""
        self._at = at if whence == 0 else self._file.seek(at, whence)
        return self._at

    def tell(self) -> int:
        """The byte that is read next."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, from memory if they are there."""
        at = self._at - self._start
        if at >= 0 and 0 <= size <= len(self._content) - at:
            content = self._content[at : at + size]
        else:
            try:
                self._file.seek(self._at)
                content = self._file.read(size)
            except OSError as error:
                self.failure = error
                raise
        self._at += len(content)
        return content


def _open(file: Any, options: pa.ipc.IpcReadOptions | None) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.PythonFile(file, "r"), options=options)


def _options(schema: pa.Schema, names: list[str] | None) -> pa.ipc.IpcReadOptions:
    fields = [] if names is None else [schema.get_field_index(name) for name in names]
    return pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)


def _checked(message: Message, decode: Callable[[], pa.RecordBatch]) -> pa.RecordBatch:
    """What `decode` returns; any error that data can cause becomes an ArrowInvalid."""
    try:
        batch = decode()
        for column in batch.columns:
            _check(column)
    except (*DAMAGE, StopIteration) as error:
        raise pa.ArrowInvalid(str(error) or "it has no rows") from error
    if len(batch) != message.rows:
        raise pa.ArrowInvalid(f"{len(batch)} rows, where its message says {message.rows}")
    return batch


def _check(column: pa.Array) -> None:
    """Raises ArrowInvalid unless every value of the column can be read; strings may have any bytes."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        column.view(_without_strings(column.type)).validate(full=True)


def _without_strings(kind: pa.DataType) -> pa.DataType:
    """The type with binary in place of strings, which are a check away from it."""
    plain = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_strings(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_strings(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_strings(kind.value_type)))
    return plain.get(kind, kind)


def _has_dictionary(schema: pa.Schema) -> bool:
    def inside(kind: pa.DataType) -> bool:
        if isinstance(kind, pa.BaseExtensionType):
            return inside(kind.storage_type)
        if pa.types.is_dictionary(kind):
            return True
        return any(inside(kind.field(i).type) for i in range(kind.num_fields))

    return any(inside(kind) for kind in schema.types)
