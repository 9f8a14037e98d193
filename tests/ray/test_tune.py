"""A tuning tries what it says, goes on where it stopped, and recommends what its own runs show."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import rho_score.training.job
import rho_score.tuning.job
from rho_score.cli import main
from rho_score.config import TrainConfig, TuneConfig
from rho_score.errors import InputError
from rho_score.stores.selection import Selection
from rho_score.stores.training_run import TrainingRun
from rho_score.training.job import TrainSummary
from rho_score.tuning.job import tune

BLOCK = 64


@pytest.fixture
def config(tmp_path: Path, make_model: Callable[[int], Path], scores: dict[str, Path]) -> Callable[..., TuneConfig]:
    """Options of a tuning of a tiny model."""

    def of(**changes: Any) -> TuneConfig:
        options: dict[str, Any] = {
            "model": str(make_model(2)), "output": str(tmp_path / "tuning"), "scores": (str(scores["ref"]),),
            "base": str(scores["base"]), "eval": (f"held={scores['base']}",), "minutes": 1.0, "ratio": (0.5,),
            "documents": (0.5,), "learning_rate": (1e-2,), "seeds": 2, "block_size": BLOCK, "batch_tokens": 2 * BLOCK,
            "micro_batch": 2, "gpus_per_worker": 0, "dtype": "float32", "cache": str(tmp_path / "cache"),
        }  # fmt: skip
        return TuneConfig(**(options | changes))

    return of


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains as where no cluster is connected: to start Ray Train takes seven seconds a run."""
    monkeypatch.setattr(rho_score.training.job, "connected", lambda: False)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of eight steps at first, however long a step takes."""
    monkeypatch.setattr(rho_score.tuning.job, "first_steps", lambda *_, **__: 8.0)


def test_a_tuning_halves_and_recommends_what_its_runs_show(
    config: Callable[..., TuneConfig], quick: None, tmp_path: Path
) -> None:
    said: list[str] = []
    summary = tune(config(), said.append)
    names = [candidate.rule for candidate in summary.candidates]
    assert names == ["all", "live-0.5", "stored-0.5", "documents-0.5", "documents-0.5-live-0.5"]
    by_rung = [[t for t in summary.trials if t.rung == rung] for rung in range(2)]
    assert [(len(trials), trials[0].steps) for trials in by_rung] == [(5, 8), (6, 16)]
    assert {t.seed for t in by_rung[0]} == {0}
    assert {t.seed for t in by_rung[1]} == {1, 2}
    ranked = sorted(by_rung[0], key=lambda t: t.loss)
    control = next(t.candidate for t in ranked if t.candidate.is_control)
    best = [t.candidate for t in ranked if t.candidate != control][:2]
    assert {t.candidate for t in by_rung[1]} == {control, *best}
    for trial in summary.trials:  # every number is that of its run
        rows = TrainingRun.open(f"{tmp_path}/tuning/{trial.run}").evaluations().to_pylist()
        assert trial.loss == next(r["loss"] for r in rows if r["step"] == trial.steps and r["group"] is None)
    means = {c.name: [t.loss for t in by_rung[1] if t.candidate == c] for c in (control, *best)}
    for name, gains in summary.gains.items():
        assert gains == [a - b for a, b in zip(means[control.name], means[name], strict=True)]
    beating = [name for name, gains in summary.gains.items() if min(gains) > 0]
    assert summary.best is not None
    assert summary.best.name == (min(beating, key=lambda n: sum(means[n])) if beating else control.name)
    kept = Selection.open(f"{tmp_path}/tuning/selections/stored-0.5").summary["groups"]
    assert sum(g["tokens_kept"] for g in kept) == pytest.approx(0.5 * sum(g["tokens_scored"] for g in kept), abs=1)
    table = pq.read_table(tmp_path / "tuning/trials.parquet").to_pylist()
    assert [row["loss"] for row in table] == [t.loss for t in summary.trials]
    assert any("live-0.5-lr-0.01, 8 steps, seed 0" in line for line in said)


def test_a_tuning_that_stopped_goes_on(
    config: Callable[..., TuneConfig], quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(config(base=None, output=str(tmp_path / "whole")))
    real, calls, computed = rho_score.tuning.job.train, 0, [0]

    def dying(one: TrainConfig) -> TrainSummary:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return real(one)

    def counting(one: TrainConfig) -> TrainSummary:
        summary = real(one)
        computed.append(summary.computed)
        return summary

    monkeypatch.setattr(rho_score.tuning.job, "train", dying)
    with pytest.raises(KeyboardInterrupt):
        tune(config(base=None))
    monkeypatch.setattr(rho_score.tuning.job, "train", counting)
    resumed = tune(config(base=None, minutes=5.0))
    assert [t.loss for t in resumed.trials] == [t.loss for t in whole.trials]
    done = sum(t.steps for t in whole.trials)
    assert 0 < sum(computed) < done  # what was finished was not trained again
    again = tune(config(base=None))
    assert again.commands == resumed.commands


def test_the_recommended_commands_are_taken(
    config: Callable[..., TuneConfig], quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = config(ratio=(0.5,), seeds=1)
    flags = ["--ratio", "0.5", "--documents", "0.5", "--learning-rate", "0.01", "--seeds", "1", "--minutes", "1"]
    sizes = ["--block-size", "64", "--batch-tokens", "128", "--micro-batch", "2", "--gpus-per-worker", "0"]
    stores = ["--scores", *made.scores, "--base", str(made.base), "--eval", *made.eval, "--cache", str(made.cache)]
    command = ["tune", made.model, made.output, *stores, *flags, *sizes, "--dtype", "float32"]
    assert main([*command, "--dry-run"]) == 0
    assert "documents-0.5-live-0.5-lr-0.01" in capsys.readouterr().out
    assert not (tmp_path / "tuning").exists()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "gain over all tokens, by seed" in said
    found = [line.strip() for line in said.splitlines() if line.startswith("  rho-score")]
    assert found
    for line in found:
        line = (
            line.replace("SELECTION", f"{tmp_path}/sel")
            .replace(" RUN ", f" {tmp_path}/run ")
            .replace("--tokens N", "--tokens 256")
        )
        assert main(shlex.split(line)[1:]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": (1.0,)}, "must be above 0 and below 1"),
        ({"documents": (0.0,)}, "must be above 0 and below 1"),
        ({"learning_rate": (-1.0,)}, "--learning-rate must be above 0"),
        ({"ratio": (), "base": None}, "nothing is tried beside the control"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"minutes": 0.0}, "--minutes must be above 0"),
        ({"minutes": 0.001}, "minutes are too few for 5 candidates"),
        ({"model": "nowhere/model"}, "nowhere/model"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    config: Callable[..., TuneConfig], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tune(config(**changes))
