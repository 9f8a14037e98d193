"""The examples of the page of the public API are run, each name in one of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rho_score
from tests.docs_pages.api_examples import EXAMPLES


def test_every_public_name_has_an_example_that_uses_it() -> None:
    named = [name for example in EXAMPLES for name in example.names]
    assert sorted(named) == sorted(set(rho_score.__all__) - {"__version__"})
    returned = {
        "Curves", "ScoreSummary", "SelectSummary", "ExportSummary", "DynamicsSummary", "TrainSummary", "KeptLoss",
        "LossesSummary", "TuneSummary", "CompareSummary", "Comparison", "PartStats", "DedupSummary", "ImportSummary", "PriorSummary",
        "KLSummary", "StatusSummary",
    }  # fmt: skip
    for example in EXAMPLES:
        assert all(f"rho.{name}" in example.code for name in set(example.names) - returned)


def test_the_examples_run(
    ray_cluster: str, corpus: Path, make_model: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    for name, seed in (("ref", 1), ("base", 2)):
        shutil.copytree(make_model(seed), tmp_path / "models" / name)
    monkeypatch.chdir(tmp_path)
    used: dict[str, Any] = {"rho": rho_score}
    for example in EXAMPLES:
        exec(example.code, used)
    assert isinstance(used["kept"], rho_score.SelectSummary)
    assert isinstance(used["written"], rho_score.ExportSummary)
    assert isinstance(used["learnt"], rho_score.DynamicsSummary)
    assert isinstance(used["curves"], rho_score.Curves)
    assert (used["run"].state, used["run"].exit_code) == ("finished", 0)
    assert used["kept"].total.tokens_kept == pytest.approx(0.6 * used["kept"].total.tokens_scored, abs=1)
    assert Path(used["page"]).stat().st_size > 10_000
    assert len(used["losses"][0]) == 3
    assert used["trained"].steps == 4
    assert used["batch"]["input_ids"].shape == (4, 64)
    assert int((used["token_loss"].grad > 0).sum()) == round(
        0.6 * int((~used["batch"]["ref_loss"][:, 1:][used["valid"]].isnan()).sum())
    )
