"""The table of prices, the projection of a run by hand, and options of `plan --calibrate` that are refused."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from rho_score.config import PlanConfig
from rho_score.errors import InputError
from rho_score.scoring.plan_lines import calibrated_lines, estimate
from rho_score.scoring.prices import NodeType, check_prices, parse_prices, read_prices
from rho_score.scoring.projection import Finished, Speed, Work, cheapest, measured, run_seconds

HEAD = "node_type,accelerator,workers,price_per_hour,spot_price_per_hour,relative_speed,comment\n"


def test_a_table_is_read() -> None:
    found = parse_prices(HEAD + '# a comment\nbig,"H100, SXM",8,55.04,20.5,2.5,from there\n\nsmall,L4,1,0.8,,,\n', "t")
    assert found == (
        NodeType(
            name="big", accelerator="H100, SXM", workers=8, price=Fraction("55.04"), spot_price=Fraction("20.5"),
            relative_speed=Fraction("2.5"),
        ),
        NodeType(name="small", accelerator="L4", workers=1, price=Fraction("0.8"), spot_price=None, relative_speed=None),
    )  # fmt: skip


def test_the_table_of_the_package_is_an_example_without_speeds() -> None:
    found = read_prices(None)
    assert len(found) > 5
    assert {node.relative_speed for node in found} == {None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t has no column node_type"),
        ("node_type,accelerator\n", "t has no column workers. Its columns must be node_type,accelerator,workers"),
        (HEAD, "t has no node type"),
        (HEAD + ",L4,1,1,,,\n", "t, line 2: node_type is empty"),
        (HEAD + "# x\na,L4,1.5,1,,,\n", "t, line 3: workers must be a whole number of at least 1, got '1.5'"),
        (HEAD + "a,L4,,1,,,\n", "t, line 2: workers must be a whole number of at least 1, got ''"),
        (HEAD + "a,L4,1,,,,\n", "t, line 2: price_per_hour is empty"),
        (
            HEAD + "a,L4,1,$2,,,\n",
            r"t, line 2: price_per_hour must be a number that is more than 0 and at most 1,000,000,000, got '\$2'",
        ),
        (
            HEAD + "a,L4,1,2,0,,\n",
            "t, line 2: spot_price_per_hour must be a number that is more than 0 and at most 1,000,000,000, got '0'",
        ),
        (HEAD + "a,L4,1,1e400,,,\n", "t, line 2: price_per_hour must be a number that is more than 0 and at most"),
        (
            HEAD + '"a,L4,1,2,1,1\nb,L4,1,2,1,1\n',
            "t has a quoted value that goes over several lines, or a quotation mark",
        ),
        (
            "accelerator,workers,price_per_hour,spot_price_per_hour,relative_speed,node_type\nL4,1\n",
            "t, line 2: node_type is empty",
        ),
        (
            HEAD + "a,L4,1,2,1,-1,\n",
            "t, line 2: relative_speed must be a number that is more than 0 and at most 1,000,000,000, got '-1'",
        ),
        (HEAD + "a,L4,1,2,1,1/0,\n", "t, line 2: relative_speed must be a number"),
        (HEAD + "a,L4,1\n", "t, line 2: price_per_hour is empty"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_prices(text, "t")


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_prices(str(tmp_path / "none.csv"))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is no text in UTF-8"):
        read_prices(str(tmp_path / "binary.csv"))


def test_the_speed_leaves_out_the_first_of_several_units() -> None:
    slow_first = [Finished(tokens=100, started=0, ended=50), Finished(tokens=100, started=51, ended=55)]
    assert measured(slow_first, 7.0).tokens_per_s == 200 / 55
    three = [*slow_first, Finished(tokens=300, started=55, ended=60)]
    found = measured(three, 7.0)
    assert (found.tokens_per_s, found.slowest, found.fastest) == (400 / 10, 100 / 5, 300 / 5)
    assert (found.units, found.seconds, found.start_s) == (2, 10, 7.0)


SPEED = Speed(tokens_per_s=100.0, slowest=50.0, fastest=200.0, start_s=60.0, units=9, seconds=30.0)
WORK = Work(tokens=1_000_000, units=10)  # a unit takes 1000 s


@pytest.mark.parametrize(("workers", "seconds"), [(1, 10_060), (3, 4060), (4, 3060), (10, 1060), (64, 1060)])
def test_workers_run_dry_at_the_end(workers: int, seconds: float) -> None:
    """Ten units on three workers are four rounds, whatever the average says."""
    assert run_seconds(WORK, 100.0, 60.0, workers) == seconds


def _node(name: str, workers: int, price: str, spot: str | None, speed: str | None) -> NodeType:
    return NodeType(
        name=name, accelerator="x", workers=workers, price=Fraction(price), spot_price=None if spot is None else Fraction(spot),
        relative_speed=None if speed is None else Fraction(speed),
    )  # fmt: skip


NODES = (
    _node("one", 1, "3.6", None, "1"),
    _node("eight", 8, "36", "14.4", "2"),
    _node("unknown", 1, "0.1", "0.1", None),
)


def test_the_cheapest_node_type_pays_whole_nodes() -> None:
    best = cheapest(NODES, WORK, SPEED, 10, spot=False)
    assert best is not None
    assert (best.node.name, best.nodes, best.seconds) == ("one", 10, 1060)
    assert best.cost == pytest.approx(10 * 3.6 * 1060 / 3600)
    best = cheapest(NODES, WORK, SPEED, 10, spot=True)
    assert best is not None
    assert (best.node.name, best.nodes, best.seconds) == ("eight", 2, 560)
    assert best.cost == pytest.approx(2 * 14.4 * 560 / 3600)
    assert cheapest(NODES[2:], WORK, SPEED, 10, spot=True) is None


def test_what_is_printed() -> None:
    config = PlanConfig(input="in", model="m", calibrate=60.0, workers=(1, 3), price_per_hour=2.0)
    lines = [line.split() for line in calibrated_lines(config, WORK, SPEED, NODES)]
    assert lines[0][:2] == ["start-up", "60.0"]
    assert lines[1][:2] == ["speed", "100"]
    assert lines[3] == ["1", "0.12", "2.79", "5.59"]  # 10060 s / 86400, / 3600, and twice that
    assert lines[4] == ["3", "0.05", "3.38", "6.77"]
    assert [line[1:3] for line in lines if line[0] == "cheapest"] == [
        ["10.06", "on"],  # 3.6 an hour for 10060 s
        ["20.24", "spot"],  # 14.4 for 60 + 5000 s
        ["12.18", "on"],  # 3 nodes for 60 + 4 * 1000 s
        ["8.24", "spot"],  # 14.4 for 60 + 4 * 500 s
    ]
    assert " ".join(lines[-2]).startswith("node types: 1 of 3 are left out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate": None, "prices": "p.csv"}, "--prices needs a speed that was measured: give --calibrate"),
        ({"calibrate": 0.5}, "--calibrate takes between 1 and 86400 seconds, got 0.5"),
        ({"calibrate": float("nan")}, "--calibrate takes between 1 and 86400 seconds, got nan"),
        ({"model": None}, "--calibrate runs a model: name it with --model"),
        ({"price_per_million_tokens": 1.0}, "leave --price-per-million-tokens out"),
        ({"server_kind": "openai"}, "leave --server-kind out"),
        ({"tokens_per_second": 9.0}, "leave --tokens-per-second out"),
        ({"workers": (1, 0)}, "--workers takes numbers of at least 1, got 1 0"),
        ({"batch_tokens": 0}, "--batch-tokens must be at least 1, got 0"),
        ({"gpus_per_worker": 1.5}, "--gpus-per-worker must be"),
        ({"prices": "/nowhere/p.csv"}, "there is no such file"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimate(PlanConfig(**({"input": "/nowhere/in", "model": "/nowhere/m", "calibrate": 5.0} | options)))


def test_a_table_that_a_spreadsheet_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(HEAD + "a,L4,1,2,1,1\n", encoding="utf-8-sig")
    assert read_prices(str(tmp_path / "prices.csv"))[0].name == "a"


@pytest.mark.parametrize("price", [-2.0, 0.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["price_per_hour", "price_per_million_tokens"])
def test_a_price_that_cannot_be_is_refused(name: str, price: float) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} must be more than 0"):
        check_prices(PlanConfig(input="in", **{name: price}))  # type: ignore[arg-type]
