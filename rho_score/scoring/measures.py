"""The metrics of published units, which the driver counts."""

import orjson

from rho_score.cluster import metrics
from rho_score.cluster.progress import Progress
from rho_score.scoring.unit_stats import Busy, UnitStats
from rho_score.stores.counts import ScoreCounts


class Measures:
    """Counts each published unit once."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._busy, self._run = progress, Busy(), metrics.current()

    def publish(self, counts: ScoreCounts, stats: UnitStats) -> None:
        """A unit is published."""
        run = self._run
        self._progress.count(tokens=counts.tokens)
        metrics.record("documents_total", counts.documents, run)
        metrics.record_each("quarantined_documents_total", orjson.loads(stats.reasons), run, "reason")
        metrics.record_each("server_retries_total", orjson.loads(stats.server_retries), run, "kind")
        metrics.record("positions_total", stats.positions, run)
        metrics.record("padding_positions_total", stats.padding, run)
        self._progress.gauge("model_busy_ratio", self._busy.add(stats))
        metrics.record_each("stage_seconds", orjson.loads(stats.stages), run, "stage")
