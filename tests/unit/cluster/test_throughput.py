"""Rates and the time that is left, from counts and times alone."""

import random

import pytest

from rho_score.cluster.throughput import NOTHING, Done, Latest, Report, Throughput, UnitsDone

SIZES = {"a": 100.0, "b": 300.0, "c": 600.0}


def test_units_in_hand_count_by_their_share_and_published_ones_whole() -> None:
    units = UnitsDone(SIZES)
    assert units.done == NOTHING
    units.hear([Report("a", 1.0, 25, 50), Report("b", 1.0, 0, 90)])
    assert units.done == Done(0, 25, 50.0)
    units.publish("a", 50)
    assert units.done == Done(1, 50, 100.0)  # the old report on it does not count beside that
    units.hear([Report("b", 1.0, 45, 90), Report("a", 1.0, 50, 50)])
    assert units.done == Done(1, 95, 250.0)
    units.publish("a", 50)
    assert units.done == Done(1, 95, 250.0)
    units.hear([])  # the actor has died
    assert units.done == Done(1, 50, 100.0)


def test_what_an_earlier_run_published_counts_as_size_and_not_as_tokens() -> None:
    units = UnitsDone(SIZES, before=["c"])
    assert units.done == Done(1, 0, 600.0)
    throughput = Throughput(0.0, units.done)
    units.hear([Report("a", 0.0, 10, 50), Report("empty", 0.0, 0, 0)])
    throughput.add(10.0, units.done)
    assert throughput.tokens_per_s(10.0) == pytest.approx(1.0)
    assert throughput.seconds_left(10.0, 1000.0) == pytest.approx(380 / 2)


def test_a_unit_that_is_begun_again_starts_from_nothing() -> None:
    latest = Latest()
    latest.hear(Report("a", 1.0, 40, 50))
    latest.hear(Report("a", 2.0, 5, 50))
    latest.hear(Report("a", 1.0, 45, 50))  # the first worker is cut off, not dead
    assert latest.reports() == [Report("a", 2.0, 5, 50)]
    latest.forget(["a", "b"])
    assert latest.reports() == []


def test_a_steady_run_is_told_rightly_from_its_second_pass_on() -> None:
    """Passes of seven seconds: between two of them nothing new is known."""
    throughput = Throughput(100.0, NOTHING)
    assert throughput.seconds_left(105.0, 1000.0) is None
    for second in range(1, 1001):
        passes = second // 7
        throughput.add(100.0 + second, Done(0, passes * 700, passes * 7.0))
        if passes:
            assert throughput.tokens_per_s(100.0 + second) == pytest.approx(100.0)
            assert throughput.seconds_left(100.0 + second, 1000.0) == pytest.approx(1000 - second)


def test_a_cluster_that_grows_is_told_within_twice_the_time() -> None:
    throughput = Throughput(0.0, NOTHING)
    done = 0
    for second in range(1, 3601):
        done += 10 if second <= 900 else 640
        throughput.add(float(second), Done(0, done, float(done)))
        if second >= 1900:
            assert throughput.tokens_per_s(second) == pytest.approx(640, rel=0.05)
    assert len(throughput._kept) < 100


def test_a_run_that_stands_still_gets_slower_and_one_that_lost_work_has_no_rate() -> None:
    throughput = Throughput(0.0, NOTHING)
    throughput.add(10.0, Done(0, 1000, 10.0))
    assert throughput.tokens_per_s(20.0) == pytest.approx(100)
    assert throughput.tokens_per_s(100.0) == pytest.approx(10)
    throughput.add(101.0, NOTHING)
    assert throughput.tokens_per_s(101.0) == 0
    assert throughput.seconds_left(101.0, 20.0) is None


def test_random_deaths_never_count_more_than_there_is() -> None:
    draw = random.Random(0)
    units, latest = UnitsDone(SIZES), Latest()
    for step in range(500):
        name = draw.choice(list(SIZES))
        total = int(SIZES[name])
        latest.hear(Report(name, float(step - draw.randrange(3)), draw.randrange(total + 1), total))
        units.hear(latest.reports())
        if step in (200, 350, 499):
            name = "abc"[(200, 350, 499).index(step)]
            units.publish(name, int(SIZES[name]))
        assert units.done.tokens <= 1000
        assert units.done.size <= 1000.0
    assert units.done == Done(3, 1000, 1000.0)
