"""The state of a run by its signs and the clocks; every case is written out."""

from dataclasses import replace
from itertools import permutations

import pytest

from rho_score.cluster.progress import Snapshot
from rho_score.stores.signs import Seen, Sign
from rho_score.watching.state import EXIT_CODES, Looks, Now, State, Verdict, age_by_clocks, clocks_apart_s

T = 1_800_000_000.0
HOUR = 3600.0


def sign(written: float, *, name: str = "a", outcome: str | None = None, idle: float = 0.0, modified: float | None = None) -> Seen:  # fmt: skip
    """A sign of a run that writes one every 30 seconds."""
    found = Sign(
        run=name, command="score", version="1", host="elsewhere", pid=7, started=written - 600, written=written,
        interval_s=30.0, moved=written - idle, outcome=outcome, message="", progress=Snapshot(), most_workers=1,
        worker_s=0.0, removed_worker_s=0.0,
    )  # type: ignore[arg-type]  # fmt: skip
    return Seen(name, found, modified)


def judge(*signs: Seen, now: float = T, finished: bool = False, storage: float | None = None) -> Verdict:
    return Looks().judge(signs, Now(now, storage), 0.0, finished=finished, stuck_after_s=1800)


@pytest.mark.parametrize(
    ("signs", "finished", "state"),
    [
        ([], False, "unknown"),
        ([], True, "finished"),
        ([sign(T - 5)], False, "running"),
        ([sign(T - 89)], False, "running"),
        ([sign(T - 91)], False, "dead"),
        ([sign(T - 91)], True, "finished"),
        ([sign(T - 5)], True, "finished"),
        ([sign(T - 5, idle=1799)], False, "running"),
        ([sign(T - 5, idle=1800)], False, "stuck"),
        ([sign(T - 91, idle=1800)], False, "dead"),
        ([sign(T - 5, outcome="failed")], False, "failed"),
        ([sign(T - 5, outcome="interrupted")], False, "interrupted"),
        ([sign(T - 5, outcome="finished")], False, "unknown"),
        ([sign(T - 5, outcome="failed")], True, "finished"),
        ([sign(T - HOUR, name="old"), sign(T - 5, name="new")], False, "running"),
        ([sign(T - HOUR, name="old", outcome="failed"), sign(T - 5, name="new")], False, "running"),
        ([sign(T - HOUR, name="old"), sign(T - 300, name="new", outcome="failed")], False, "failed"),
        ([sign(T - HOUR, name="old", outcome="failed"), sign(T - 300, name="new")], False, "dead"),
        ([sign(T - 9, name="one", idle=9000), sign(T - 5, name="two")], False, "running"),
        ([sign(T - 9, name="one", idle=9000), sign(T - 5, name="two", idle=1900)], False, "stuck"),
    ],
)
def test_the_state(signs: list[Seen], finished: bool, state: State) -> None:
    for order in permutations(signs):
        assert judge(*order, finished=finished).state == state


def test_every_state_has_an_exit_code_that_tells_it_apart() -> None:
    assert EXIT_CODES == {
        "finished": 0, "running": 10, "stuck": 11, "dead": 12, "failed": 13, "interrupted": 13, "unknown": 14,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "modified", "here", "storage", "age"),
    [
        (T - 20, None, T, None, 20),
        (T - 20, T - 20, T, None, 20),
        (T - 20 - HOUR, T - 20, T, None, 20),  # the run's clock is an hour behind
        (T - 20 + HOUR, T - 20, T, None, 20),  # it is an hour ahead
        (T - 20, T - 20 + HOUR, T, None, 20),  # the storage's clock is an hour ahead
        (T - 20, T - 20 - HOUR, T, None, 20),
        (T - 20, T - 20, T - HOUR, None, 0),  # this machine's clock is behind: it may be new
        (T - 500, T - 500, T + HOUR, T, 500),  # it is ahead, but the storage tells its time
        (T - 20, T - 20, T + HOUR, T, 20),
        (T - 20, T - 20, T - HOUR, T, 20),
        (T - 20 + HOUR, T - 20, T + 3 * HOUR, T, 20),
        (T - 400, T - 400, T, None, 400),
    ],
)
def test_the_age_of_a_sign_where_clocks_differ(
    written: float, modified: float | None, here: float, storage: float | None, age: float
) -> None:
    assert age_by_clocks(sign(written, modified=modified), Now(here, storage)) == pytest.approx(age)


def test_clocks_that_differ_are_told() -> None:
    assert clocks_apart_s(sign(T - 20, modified=T - 20), Now(T)) is None
    assert clocks_apart_s(sign(T - 9000, modified=T - 9000), Now(T)) is None, "an old sign says nothing"
    assert clocks_apart_s(sign(T, modified=T), Now(T - 300)) == -300
    assert clocks_apart_s(sign(T), Now(T - 300)) == -300
    assert clocks_apart_s(sign(T, modified=T), Now(T + 300, T)) == 300
    assert clocks_apart_s(sign(T, modified=T), Now(T + 10, T)) is None


def test_a_sign_that_changes_between_looks_is_alive_whatever_the_clocks_say() -> None:
    looks, wrong = Looks(), Now(T + HOUR)
    now = sign(T)

    def state(seen: Seen, elapsed: float) -> str:
        return looks.judge([seen], wrong, elapsed, finished=False, stuck_after_s=1800).state

    assert state(now, 0.0) == "dead"
    assert state(now, 20.0) == "dead"
    assert state(sign(T + 30), 35.0) == "running"
    assert state(sign(T + 30), 120.0) == "running"
    assert state(sign(T + 30), 126.0) == "dead"


def test_a_sign_from_the_future_that_does_not_change_is_dead() -> None:
    looks, wrong = Looks(), Now(T - HOUR)
    states = [looks.judge([sign(T)], wrong, at, finished=False, stuck_after_s=1800).state for at in (0.0, 60.0, 91.0)]
    assert states == ["running", "running", "dead"]


def test_an_interval_that_is_beyond_belief_is_not_believed() -> None:
    seen = sign(T - HOUR)
    assert judge(seen._replace(sign=replace(seen.sign, interval_s=1e300))).state == "dead"
