"""The progress of counting in threads."""

import threading
from collections.abc import Iterable

import pyarrow as pa
import pytest

from rho_score.ranking.histogram import NO_COUNTS
from rho_score.selecting import batches as stages
from rho_score.selecting.batches import NO_ROW_RANGES, Batch, histogram_in_turn
from rho_score.selecting.row_ranges import JoinedUnit


def test_units_are_told_when_they_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    class Told(stages.Progress):
        def add(self, *, tokens: int = 0, units: int = 1) -> None:
            super().add(tokens=tokens, units=units)
            told.append(self.done.units)

    monkeypatch.setattr(stages, "Progress", Told)
    all_begun = threading.Barrier(4)

    def count(units: Iterable[JoinedUnit]) -> pa.Table:
        for _ in units:
            all_begun.wait(60)
            assert told == []
            all_begun.wait(60)
        return NO_COUNTS

    batches = [Batch(i, (JoinedUnit(f"unit {i}", NO_ROW_RANGES),)) for i in range(4)]
    assert len(histogram_in_turn(count, batches, workers=4)) == 0
    assert told == [1, 2, 3, 4]
