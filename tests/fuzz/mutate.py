"""Bytes that are nearly right: valid files with bits flipped, ranges cut, repeated, overwritten and spliced."""

from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x7FFFFFFFFFFFFFFF,
    (1 << 64) - 1,
]
LONGEST = 4096


def bytes_like(originals: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly mutations of one of `originals`, sometimes any bytes, sometimes one as it is."""
    some = [_mutated(originals)] * 10
    return st.one_of(*some, st.binary(max_size=LONGEST), st.sampled_from(originals))


@st.composite
def _mutated(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = _place(draw, len(content))
        size = draw(st.integers(1, 64))
        match draw(st.integers(0, 6)):
            case 0 if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                content[at : at + size] = draw(st.binary(min_size=1, max_size=16))
            case 2:
                number = draw(st.sampled_from(NUMBERS))
                raw = number.to_bytes(8, draw(st.sampled_from(["little", "big"])))
                width = draw(st.sampled_from([1, 2, 4, 8]))
                content[at : at + width] = raw[:width]
            case 3:
                del content[at : at + size]
            case 4:
                del content[at:]
            case 5:
                content[at:at] = content[at : at + size] * draw(st.integers(1, 8))
            case 6:
                other = draw(st.sampled_from(originals))
                start = _place(draw, len(other))
                content[at : at + size] = other[start : start + draw(st.integers(1, 256))]
    return bytes(content)


def _place(draw: st.DrawFn, length: int) -> int:
    """Anywhere, and often near the end, where Parquet has its footer."""
    near_end = draw(st.booleans())
    return draw(st.integers(max(0, length - 1500) if near_end else 0, max(length - 1, 0)))
