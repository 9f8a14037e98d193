"""Cuts documents into overlapping windows and groups these into passes. Pure functions."""

from collections.abc import Sequence
from typing import NamedTuple

from rho_score.errors import InputError


class Window(NamedTuple):
    """Tokens [start, stop) of a document; the losses of [first, stop) are taken from this window.

    The model reads the prefix (if there is one) and the tokens [start, stop - 1): the last token is
    only predicted.
    """

    start: int
    first: int
    stop: int


def windows(n_tokens: int, *, context: int, overlap: int, has_prefix: bool) -> list[Window]:
    """Returns the windows of a document, in which every token is scored exactly once.

    Each token sees at least `overlap` tokens before it (near the document's start, all there are),
    and no window has more than `context` input positions. Without a prefix, the first token is in
    no window's [first, stop), so it has no loss.

    Raises:
        ValueError: context < 2 or not 0 <= overlap < context - 1.
    """
    if context < 2 or not 0 <= overlap < context - 1:
        raise ValueError(f"overlap must lie in 0..context-2, got overlap {overlap} with context {context}")
    # tokens of a window, of which the last is only predicted
    span = context if has_prefix else context + 1
    cut: list[Window] = []
    first = 0 if has_prefix else 1
    while first < n_tokens:
        start = max(0, first - max(overlap, 0 if has_prefix else 1))
        stop = min(start + span, n_tokens)
        cut.append(Window(start, first, stop))
        first = stop
    return cut


def packs(lengths: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """Returns groups of indices of sequences, with at most `batch_tokens` tokens in a group.

    A longer sequence is a group of its own. First-fit decreasing: the longest sequence comes first,
    equal lengths stay in input order, and each goes into the first pack that has room. The grouping
    depends on the lengths alone.
    """
    groups: list[list[int]] = []
    rooms: list[int] = []
    roomy: list[int] = []  # packs that still have room for the shortest
    shortest = min(lengths, default=0)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        pack = next((at for at in roomy if rooms[at] >= lengths[index]), None)
        if pack is None:
            pack = len(groups)
            groups.append([])
            rooms.append(batch_tokens)
            roomy.append(pack)
        groups[pack].append(index)
        rooms[pack] -= lengths[index]
        if rooms[pack] < shortest:
            roomy.remove(pack)
    return groups


def rectangles(lengths: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """Returns groups of indices of sequences, with count x longest <= `batch_tokens` in a group.

    A longer sequence is a group of its own. The longest sequence comes first, and equal lengths
    stay in input order. The grouping depends on the lengths alone.
    """
    groups: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * longest <= batch_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
            longest = lengths[index]
    return groups


def overlap_of(given: int | None, context: int) -> int:
    """The overlap, given or by default; raises InputError if it does not fit the context."""
    overlap = context // 4 if given is None else given
    if context < 2 or not 0 <= overlap < context - 1:
        raise InputError(f"--overlap {overlap} does not fit --context {context}: it must lie in 0..{context - 2}.")
    return overlap
