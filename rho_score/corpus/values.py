"""Turns scalars of any type into text, for ids and groups.

A value that both Parquet and JSON can hold has the same text in both: `true`, `7`, `1.5`.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa

SCALARS = "string, number, boolean, date, time or binary"
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_FLOATS = {16: np.float16, 32: np.float32, 64: np.float64}
_EPOCH = datetime(1970, 1, 1)


class Unusable(NamedTuple):
    """Used in place of a value that has no text."""

    reason: str
    """What the value is, such as "null"."""
    column: str | None = None
    """The column of the value, if it is not the one that was asked for."""


Value = str | None | Unusable


def is_text(kind: pa.DataType) -> bool:
    """True for strings of any layout, and for null, the type of a column without any value."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        fits(value)
        for fits in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )


def is_ids(kind: pa.DataType) -> bool:
    """True for lists of integers, or of nothing."""
    if not any(fits(kind) for fits in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        return bool(pa.types.is_null(kind))
    return bool(pa.types.is_integer(kind.value_type) or pa.types.is_null(kind.value_type))


def is_numbers(kind: pa.DataType) -> bool:
    """True for numbers and for lists of numbers, or of nothing."""
    if any(fits(kind) for fits in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def is_chat(kind: pa.DataType) -> bool:
    """True for lists of structs or of nothing, and for strings, which may hold the JSON of a chat."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return bool(pa.types.is_struct(kind.value_type) or pa.types.is_null(kind.value_type))
    return is_text(kind)


def is_tools(kind: pa.DataType) -> bool:
    """True for lists of structs, of strings or of nothing, and for strings."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_chat(kind) or is_text(kind.value_type)
    return is_text(kind)


def is_scalar(kind: pa.DataType) -> bool:
    """True if `texts_of` has a text for values of this type.

    Raises:
        LookupError: it is a timestamp with a time zone that this machine does not know.
    """
    kind = _plain(kind)
    return is_text(kind) or _is_binary(kind) or _writer(kind) is not None


def texts_of(column: pa.Array) -> list[Value]:
    """The column's values as text; None for a null.

    A float has the fewest digits that identify it among the floats of its width (`0.1`, `nan`).
    Decimals keep their zeros. Dates, times and timestamps are in ISO 8601, with the offset if the
    type has a time zone. Durations are in seconds. Binary is read as UTF-8, binary of a fixed size
    becomes hexadecimal, and a UUID has its usual form.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column.type, pa.BaseExtensionType):
        is_uuid = column.type.extension_name == "arrow.uuid"
        column = column.storage
        if is_uuid:
            return [None if value is None else str(UUID(bytes=value)) for value in column.to_pylist()]
    if pa.types.is_null(column.type):
        return [None] * len(column)
    writer = _writer(column.type)
    if writer is None:
        return _strings(column)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return [None if value is None else writer(value) for value in column.to_pylist()]


def json_text(value: Any) -> Value:
    """The text of a value from JSON. Numbers and booleans are written as in JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return Unusable(f"{type(value).__name__}, not a string")


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values in a dictionary or an extension type."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _writer(kind: pa.DataType) -> Callable[[Any], Value] | None:
    """The function that turns a value of this type into text; None if there is none.

    For dates and times, it takes the number that Arrow stores.
    """
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return json_text
    if pa.types.is_floating(kind):
        width = _FLOATS[kind.bit_width]
        return lambda value: _float(float(value), width)
    if pa.types.is_decimal(kind):
        return lambda value: format(value, "f")
    if pa.types.is_fixed_size_binary(kind):
        return lambda value: str(value.hex())
    if pa.types.is_date(kind):
        days = 1 if pa.types.is_date32(kind) else 86_400_000
        return lambda value: _date(value // days)
    if pa.types.is_time(kind):
        return lambda value: _time(value, _DIGITS[kind.unit])
    if pa.types.is_timestamp(kind):
        zone = None if kind.tz is None else _zone(kind.tz)
        return lambda value: _timestamp(value, _DIGITS[kind.unit], zone)
    if pa.types.is_duration(kind):
        return lambda value: _seconds(value, _DIGITS[kind.unit])
    return None


def _is_binary(kind: pa.DataType) -> bool:
    return any(fits(kind) for fits in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _float(value: float, width: Any) -> str:
    """The shortest digits that identify a float of this width, or all digits of a whole number."""
    return repr(value) if value.is_integer() and abs(value) < 1e16 else str(width(value))


def _strings(column: pa.Array) -> list[Value]:
    if column.type == pa.string_view():
        column = column.cast(pa.large_string())
    values: list[Value] = []
    for value in column.cast(pa.large_binary()).to_pylist():
        try:
            values.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            values.append(Unusable("not valid UTF-8"))
    return values


def _date(days: int) -> Value:
    try:
        return (_EPOCH.date() + timedelta(days)).isoformat()
    except OverflowError:
        return Unusable("a date outside the years 1 to 9999")


def _fraction(value: int, digits: int) -> str:
    """A fraction of a second: "" if it is zero, else six digits, or nine if they are needed."""
    if not value:
        return ""
    nanoseconds = f"{value * 10 ** (9 - digits):09}"
    return "." + nanoseconds.removesuffix("000")


def _time(value: int, digits: int) -> Value:
    seconds, part = divmod(value, 10**digits)
    if not 0 <= seconds < 86_400:
        return Unusable("a time outside the day")
    return (_EPOCH + timedelta(seconds=seconds)).time().isoformat() + _fraction(part, digits)


def _timestamp(value: int, digits: int, zone: Any) -> Value:
    seconds, part = divmod(value, 10**digits)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
        if zone is not None:
            moment = moment.replace(tzinfo=UTC).astimezone(zone)
    except OverflowError:
        return Unusable("a timestamp outside the years 1 to 9999")
    text = moment.isoformat()
    return text[:19] + _fraction(part, digits) + text[19:]


def _seconds(value: int, digits: int) -> str:
    seconds, part = divmod(abs(value), 10**digits)
    decimals = f".{part:0{digits}}".rstrip("0") if part else ""
    return f"{'-' if value < 0 else ''}{seconds}{decimals}"


def _zone(name: str) -> Any:
    try:
        return pa.lib.string_to_tzinfo(name)
    except (pa.ArrowException, KeyError, ValueError, OSError, ModuleNotFoundError) as error:
        raise LookupError(f"the time zone {name!r}, which this machine does not know ({error})") from error
