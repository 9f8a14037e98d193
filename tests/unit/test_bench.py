"""`make bench` runs for hours and in no test: here its parts that need no peer, small, so that they follow the code."""

from pathlib import Path

import pytest

from bench import scale


@pytest.mark.parametrize("part", scale.PARTS)
def test_a_plan_of_a_thousand_units_goes_through_every_part(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "FOLDER", tmp_path)
    scale.make(part, 1000)
    timer = scale.Timer()
    scale.PARTS[part](1000, timer)
    assert timer.seconds
