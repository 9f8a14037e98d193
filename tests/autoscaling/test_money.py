"""Money for workers on nodes that come and vanish."""

import json
from pathlib import Path

import pytest

from tests.autoscaling.cluster import GrowingCluster
from tests.autoscaling.runs import published, score_command
from tests.chaos.runs import prepare
from tests.ray.clock import A_SECOND, Clock

MONEY = 80.0


@pytest.mark.long
@pytest.mark.parametrize("kills", [0, 2])
def test_a_run_that_loses_nodes_stays_within_its_money_and_goes_on(kills: int, tmp_path: Path) -> None:
    prepare(tmp_path)
    out = tmp_path / "out"
    prices = ["--price-per-hour", f"{A_SECOND:g}", "--spend-at-most"]
    with GrowingCluster(tmp_path, most=3, pace_s=1.5) as cluster:
        with Clock() as clock:
            job = cluster.submit(score_command(tmp_path, "out", "1:3", *prices, f"{MONEY:g}"))
            for n_units in range(1, kills + 1):
                cluster.wait(
                    "a unit", lambda least=n_units: len(list(out.glob("data/[!.]*"))) >= least or cluster.is_over(job)
                )  # type: ignore[misc]
                cluster.kill(cluster.nodes()[-1])
            code, said = cluster.ended(job)
        print(cluster.table(), said[-2000:], clock.seconds, (out / "spent.json").read_text(), sep="\n")
        assert code == 1, said
        assert "stopped before --spend-at-most 80.0 was passed" in said
        spent = sum(json.loads((out / "spent.json").read_text())["worker_seconds_by_price"].values())
        assert clock.seconds <= MONEY * 1.02
        assert clock.seconds <= spent * 1.02
        assert clock.seconds > MONEY / 3, "it stopped long before"
        code, said = cluster.ended(cluster.submit(score_command(tmp_path, "out", "1:3", *prices, "5000")))
        assert code == 3, said
        code, said = cluster.ended(cluster.submit(score_command(tmp_path, "peace", "1:3")))
        assert code == 3, said
    found = published(out)
    del found["spent.json"]
    assert found == published(tmp_path / "peace")
