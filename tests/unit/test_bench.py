"""`make bench` runs for hours and in no test: here parts of it, small, so that they follow the code."""

from pathlib import Path

import numpy as np
import pytest

from bench import scale
from bench.score_sets import fabricate
from bench.selection_peers import PEERS


@pytest.mark.parametrize("part", scale.PARTS)
def test_a_plan_of_a_thousand_units_goes_through_every_part(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "FOLDER", tmp_path)
    scale.make(part, 1000)
    timer = scale.Timer()
    scale.PARTS[part](1000, timer)
    assert timer.seconds


def test_contenders_find_the_same_threshold(tmp_path: Path) -> None:
    sets = fabricate(tmp_path / "sets", 200_000, workers=1)
    names = ["rho_score", "rho_score_masks", "duckdb", "polars", "polars_streaming", "numpy_partition", "sorted_list"]
    answers = {name: PEERS[name](sets.ref, sets.base, str(tmp_path / name)) for name in names}
    assert {answer["tokens"] for answer in answers.values()} == {200_000}
    assert len({float(np.float16(answer["threshold"])) for answer in answers.values()}) == 1, answers
