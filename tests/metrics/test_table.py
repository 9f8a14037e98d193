import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rho_score.cluster import metrics
from rho_score.cluster.metrics import BY_NAME, TABLE
from rho_score.cluster.progress import Progress
from rho_score.scoring.unit_stats import Busy, UnitStats, busy_share, reason_of
from rho_score.training.job import _teller
from tests.metrics.dashboard import dashboard, expressions

ROOT = Path(__file__).parents[2]


def test_names_follow_the_conventions_of_prometheus() -> None:
    assert len(BY_NAME) == len(TABLE)
    for metric in TABLE:
        assert re.fullmatch(r"[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")


def test_every_metric_is_recorded_and_shown() -> None:
    code = "".join(path.read_text() for path in (ROOT / "rho_score").rglob("*.py") if path.name != "metrics.py")
    recorded = set(re.findall(r'(?:metrics\.record(?:_each)?|progress\.gauge)\(\s*"([a-z_]+)"', code))
    assert recorded == set(BY_NAME)
    shown = {name for text in expressions() for name in re.findall(r"ray_rho_score_([a-z_]+)", text)}
    assert {re.sub("_(sum|count|bucket)$", "", name) for name in shown} == set(BY_NAME)


def test_panels_of_the_dashboard_lie_beside_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_without_a_cluster_nothing_of_ray_is_imported() -> None:
    code = (
        "import sys; from rho_score.cluster import metrics; from rho_score.cluster.progress import Progress\n"
        "metrics.begin('/a/out', 'f' * 64, 'select')\n"
        "with Progress('select', n_units=2) as progress: progress.add(tokens=3, units=2)\n"
        "assert metrics.current() == ('out-ffffffff', 'select') and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_units_added_one_by_one_have_the_share_of_all() -> None:
    units = [
        UnitStats(worker=f"w{i % 2}", started=float(i), ended=i + 2.5, model_s=0.3 * i) for i in (3, 0, 5, 1, 2, 4)
    ]
    busy = Busy()
    assert abs([busy.add(one) for one in units][-1] - busy_share(units)) < 1e-12


def test_reasons_are_few_words() -> None:
    assert reason_of("it killed its worker 2 times when scored alone: not done after 3 s (--unit-timeout)") == "timeout"
    assert reason_of("it killed its worker 2 times when scored alone") == "killed"
    assert reason_of("its losses are not finite, not even in float32: the model overflows on it") == "not-finite"
    assert reason_of("IndexError: out of range") == "failed"
    assert reason_of("line 3: not JSON") == "input"


def test_a_step_that_training_repeats_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()
    monkeypatch.setattr(metrics, "connected", lambda: True)
    monkeypatch.setattr(
        metrics,
        "_made",
        lambda name: SimpleNamespace(
            inc=lambda value, tags: counted.update({name: value}), set=lambda value, tags: None
        ),
    )
    settings: Any = SimpleNamespace(batch=2, config=SimpleNamespace(block_size=8))
    with Progress("train", unit="steps") as progress:
        tell = _teller(progress, settings)
        for phase, step in (("loading the model", 4), ("", 5), ("", 7), ("", 6), ("", 8)):
            tell(phase, step, 10)
    assert counted == {"units_total": 4, "tokens_total": 4 * 16}


def test_a_metric_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise RuntimeError(name)

    monkeypatch.setattr(metrics, "connected", lambda: True)
    monkeypatch.setattr(metrics, "_made", fails)
    metrics.record("kept_ratio", 0.5, metrics.UNNAMED)
