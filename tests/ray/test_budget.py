"""Money for workers: a run stops before it is spent, by a clock that watches the processes from outside, and goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rho_score.config import PlanConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.scoring import spending
from rho_score.scoring.plan_lines import estimate
from rho_score.stores.unit_file import footers
from tests.conftest import some_text
from tests.ray.clock import A_SECOND, Clock
from tests.ray.conftest import OPTIONS as SCORING
from tests.ray.conftest import digests, score_into


def _write(folder: Path, n_documents: int) -> Path:
    lines = [f'{{"id": "d{i}", "source": "a", "text": "{some_text(1000, i)}"}}\n' for i in range(n_documents)]
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(lines))
    return folder


OPTIONS: dict[str, Any] = {"unit_bytes": 30_000, "price_per_hour": A_SECOND}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that takes a tiny model some seconds."""
    return _write(tmp_path_factory.mktemp("slow") / "in", 350)


@pytest.fixture(scope="module")
def calm(
    ray_cluster: str, slow: Path, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """The score set of a run without a price, and the seconds that its worker lived."""
    output = tmp_path_factory.mktemp("peace") / "out"
    with Clock() as clock:
        score_into(slow, output, make_model(1), unit_bytes=OPTIONS["unit_bytes"])
    return output, clock.seconds


@pytest.fixture(scope="module")
def undisturbed(calm: tuple[Path, float]) -> Path:
    """The score set of a run without a price."""
    return calm[0]


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of the tests are forked, and start within a second."""
    monkeypatch.setattr(spending, "START_S", 2.0)


def _spent(output: Path) -> float:
    return sum(json.loads((output / "spent.json").read_text())["worker_seconds_by_price"].values())


def _same_scores(output: Path, undisturbed: Path) -> None:
    found = digests(output)
    assert found.pop("spent.json")
    assert found == digests(undisturbed)


def test_a_run_stops_before_its_money_is_spent_and_goes_on_to_the_same_bytes(
    slow: Path, undisturbed: Path, make_model: Callable[[int], Path], tmp_path: Path, quick_start: None
) -> None:
    output, money = tmp_path / "out", 11.0
    with (
        Clock() as clock,
        pytest.raises(RhoScoreError, match=r"stopped before --spend-at-most 11\.0 was passed") as told,
    ):
        score_into(slow, output, make_model(1), spend_at_most=money, **OPTIONS)
    assert clock.pids()
    assert clock.seconds <= _spent(output) <= money
    assert clock.seconds > money / 3, "it stopped long before"
    published = len(list((output / "data").iterdir()))
    assert f"{published} of " in str(told.value)
    assert 0 < published < len(list((undisturbed / "data").iterdir()))
    assert not (output / "_SUCCESS.json").exists()
    before = _spent(output)
    with pytest.raises(InputError, match=r"leaves no money for\. Give more to go on"):
        score_into(slow, output, make_model(1), spend_at_most=before + 1, **OPTIONS)
    assert _spent(output) == before, "a run that has no money spends none"
    with Clock() as second:
        summary = score_into(slow, output, make_model(1), spend_at_most=1000.0, **OPTIONS)
    assert second.seconds <= _spent(output) - before <= second.seconds + 5
    assert summary.spent.startswith("spent ")
    _same_scores(output, undisturbed)
    assert score_into(slow, output, make_model(1), spend_at_most=1.0, **OPTIONS).computed == 0, (
        "there is nothing to pay"
    )


def test_a_unit_in_hand_is_given_up_when_the_money_is_gone(
    slow: Path, make_model: Callable[[int], Path], tmp_path: Path, quick_start: None
) -> None:
    """The only unit takes longer than there is money for, and nothing of it is published."""
    output, money = tmp_path / "out", 9.0
    options = OPTIONS | {"unit_bytes": 1 << 30}
    with Clock() as clock, pytest.raises(RhoScoreError, match="0 of 1 units are published"):
        score_into(slow, output, make_model(1), spend_at_most=money, **options)
    assert clock.seconds <= money * 1.02
    assert clock.seconds <= _spent(output) <= money
    assert not (output / "data").exists()
    assert not list((output / "attempts").glob("[!.]*"))


@pytest.mark.long
def test_a_killed_driver_does_not_forget_the_money(
    slow: Path, undisturbed: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    code = (
        "import json, sys; from pathlib import Path; from tests.ray.conftest import score_into;"
        "score_into(*map(Path, sys.argv[1:4]), **json.loads(sys.argv[4]))"
    )
    with Clock() as clock:
        driver = subprocess.Popen(
            [sys.executable, "-c", code, str(slow), str(output), str(make_model(1)), json.dumps(OPTIONS | {"spend_at_most": 5000})],
            cwd=Path(__file__).parents[2], start_new_session=True, env={**os.environ, "RAY_ADDRESS": ""},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 120
        while len(list(output.glob("data/[!.]*"))) < 5 and driver.poll() is None:
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        while any(psutil.pid_exists(pid) for pid in clock.pids()):
            assert time.monotonic() < end, "its workers live on"
            time.sleep(0.05)
    killed = _spent(output)
    assert 0 < clock.seconds <= killed + 5, "what a killed run loses are seconds"
    score_into(slow, output, make_model(1), spend_at_most=5000.0, **OPTIONS)
    assert _spent(output) > killed
    _same_scores(output, undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("workers", ["2", "1:3"])
def test_many_workers_and_one_that_dies_stay_within_two_percent(
    workers: str, ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    corpus = _write(tmp_path / "in", 1500)
    money = 90.0
    with Clock() as clock:
        threading.Timer(25.0, lambda: [os.kill(pid, signal.SIGKILL) for pid in clock.pids()[:1]]).start()
        with pytest.raises(RhoScoreError, match="stopped before"):
            score_into(corpus, tmp_path / "out", make_model(1), spend_at_most=money, workers=workers, **OPTIONS)
    assert clock.seconds <= money * 1.02
    assert clock.seconds <= _spent(tmp_path / "out")
    assert clock.seconds > money / 2


def test_calibrating_tells_the_speed_of_a_run_and_writes_nothing(
    slow: Path, undisturbed: Path, make_model: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's speed is read off the times of its files."""
    monkeypatch.chdir(tmp_path)
    files = sorted((undisturbed / "data").iterdir(), key=lambda path: path.stat().st_mtime)
    tokens = [
        footer["accounts"]["tokens"] for footer in footers(Folder(str(undisturbed)), [path.stem for path in files])
    ]
    at = [path.stat().st_mtime for path in files]
    of_units = sorted(n / (b - a) for n, a, b in zip(tokens[1:], at[:-1], at[1:], strict=True) if b > a)
    before = digests(slow)
    names = ("context", "overlap", "batch_tokens", "cpus_per_worker", "gpus_per_worker", "compile", "dtype")
    prices = tmp_path / "prices.csv"
    prices.write_text(
        "node_type,accelerator,workers,price_per_hour,spot_price_per_hour,relative_speed\nhere,CPU,2,1,0.5,1\n"
    )
    config = PlanConfig(
        input=str(slow), model=str(make_model(1)), calibrate=3.0, unit_bytes=OPTIONS["unit_bytes"], prices=str(prices),
        workers=(1, 2), price_per_hour=1.0, **{name: SCORING[name] for name in names},
    )  # fmt: skip
    lines = {line[:12].strip(): line.split() for line in estimate(config).splitlines()}
    speed = float(lines["speed"][1].replace(",", ""))
    assert of_units[0] / 3 <= speed <= of_units[-1] * 3
    assert int(lines["tokens"][1].replace(",", "")) == sum(tokens)
    hours = sum(tokens) / speed / 3600
    assert float(lines["1"][2]) == pytest.approx(hours + float(lines["start-up"][1]) / 3600, abs=0.006)
    assert "here," in lines["cheapest"]
    assert digests(slow) == before
    assert [path.name for path in tmp_path.iterdir()] == ["prices.csv"]
