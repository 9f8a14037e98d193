"""What a run shows of the units that workers have in hand."""

import time

from rho_score.cluster.progress import Progress
from rho_score.cluster.throughput import Report
from rho_score.scoring.live import LiveProgress, Reporter


def test_the_rate_is_of_durations_and_not_of_other_nodes_clocks() -> None:
    progress = Progress("score")
    live = LiveProgress(progress, sizes={"a": 1.0, "b": 1.0}, before=[], most_workers=1)
    progress.begin(n_units=2, size=2.0)
    progress._started -= 100
    live.publish("a", 1000, 4.0)
    assert 200 < progress._throughput.tokens_per_s(time.monotonic()) <= 250


class _Board:
    """In place of the actor: hears what a worker tells."""

    def __init__(self) -> None:
        self.heard: list[Report] = []

    def options(self, **_: object) -> "_Board":
        return self

    @property
    def tell(self) -> "_Board":
        return self

    def remote(self, report: Report) -> None:
        self.heard.append(report)


def test_a_report_tells_how_long_the_unit_has_been_in_hand() -> None:
    board = _Board()
    unit = Reporter(board, every_s=0.0).unit("a", 10)
    time.sleep(0.02)
    unit(4)
    unit.finished()
    assert [report.done for report in board.heard] == [0, 4, 10]
    assert 0.0 <= board.heard[0].running_s < 0.02 <= board.heard[1].running_s <= board.heard[2].running_s
