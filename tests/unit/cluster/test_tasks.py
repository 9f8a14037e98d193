"""Threads that take their items from one iterator."""

import threading
from collections.abc import Iterator

import pytest

from rho_score.cluster import tasks
from rho_score.cluster.tasks import in_turn

FOR_EVER = 10**12


def test_each_item_goes_to_one_thread() -> None:
    every = in_turn(list, range(10_000), workers=3)
    assert len(every) == 3
    assert sorted(item for taken in every for item in taken) == list(range(10_000))
    assert all(taken == sorted(taken) for taken in every)


def test_no_thread_waits_for_the_last_item() -> None:
    """One is at the first item until all others are done."""
    rest = threading.Event()

    def work(items: Iterator[int]) -> list[int]:
        taken = []
        for item in items:
            taken.append(item)
            if item == 0:
                assert rest.wait(60)
            if item == 99:
                rest.set()
        return taken

    assert sorted(map(len, in_turn(work, range(100), workers=2))) == [1, 99]


def test_an_error_ends_the_others() -> None:
    def work(items: Iterator[int]) -> None:
        for item in items:
            if item == 1000:
                raise ValueError("item 1000")

    with pytest.raises(ValueError, match="item 1000"):
        in_turn(work, range(FOR_EVER), workers=3)


def test_an_error_of_what_gives_the_items_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        in_turn(list, items(), workers=2)


def test_an_interrupt_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_turn(lambda items: sum(1 for _ in items), range(FOR_EVER), workers=2)
