"""Values that are not nats: every reader of score sets treats them as what they are, or refuses them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rho_score.cli import main
from rho_score.config import (
    CurveConfig,
    DynamicsConfig,
    ExportConfig,
    ImportConfig,
    LossesConfig,
    ReportConfig,
    SelectConfig,
    TrainConfig,
    TuneConfig,
)
from rho_score.deriving.import_scores import import_scores
from rho_score.errors import InputError
from rho_score.exporting.job import export
from rho_score.reporting.curve import curve
from rho_score.reporting.page import report
from rho_score.selecting.dynamics import dynamics
from rho_score.selecting.job import select
from rho_score.selecting.kept_losses import losses
from rho_score.stores.selection import Selection
from rho_score.training.job import train
from rho_score.tuning.job import tune
from tests.stores import random_documents, write_scores


@pytest.fixture
def stores(tmp_path: Path, make_model: Callable[[int], Path]) -> dict[str, str]:
    """A score set, and a set of values from -1 to 1 of the same documents that are no losses."""
    documents = [pair[0] for pair in random_documents(20, seed=2)]
    scores = write_scores(tmp_path / "scores", [[documents]], tokenizer=make_model(1))
    rows = [{"doc_id": d.doc_id, "quality": i / 10 - 1} for i, d in enumerate(documents)]
    (tmp_path / "values").mkdir()
    (tmp_path / "values" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = ImportConfig(
        values=str(tmp_path / "values"), output=str(tmp_path / "quality"), like=str(scores), unit="other", level="document",
        values_column="quality",
    )  # fmt: skip
    import_scores(config)
    return {"scores": str(scores), "quality": str(tmp_path / "quality"), "out": str(tmp_path / "out")}


def test_the_end_that_is_kept_must_be_named(stores: dict[str, str]) -> None:
    options = {"output": stores["out"], "ref": (stores["quality"],), "ratio": 0.5}
    with pytest.raises(InputError, match="Say which end is kept, with --keep high or --keep low"):
        select(SelectConfig(**options))
    with pytest.raises(InputError, match="--document-score per-byte"):
        select(SelectConfig(**options, keep="high", level="document", document_score="per-byte"))


def test_the_best_documents_are_selected_and_the_best_tokens_in_them(stores: dict[str, str], tmp_path: Path) -> None:
    documents, tokens = tmp_path / "documents", tmp_path / "tokens"
    select(SelectConfig(output=str(documents), ref=(stores["quality"],), keep="high", level="document", threshold=0.0))
    kept = Selection.open(str(documents))
    rows = [row for unit in kept.units for row in kept.unit_table(unit.unit, ["doc_id", "kept"]).to_pylist()]
    best = {f"d{i}" for i in range(10, 20)}
    assert {row["doc_id"] for row in rows if row["kept"]} <= best
    select(SelectConfig(output=str(tokens), ref=(stores["scores"],), within=str(documents), ratio=0.5))
    chosen = Selection.open(str(tokens))
    table = [row for unit in chosen.units for row in chosen.unit_table(unit.unit).to_pylist()]
    assert {row["doc_id"] for row in table if any(row["mask"])} <= best
    assert sum(sum(row["mask"]) for row in table) == round(
        0.5 * sum(len(row["mask"]) for row in table if row["doc_id"] in best)
    )


def test_losses_and_other_values_are_not_subtracted(stores: dict[str, str]) -> None:
    pair = {"ref": (stores["quality"],), "base": stores["scores"]}
    with pytest.raises(InputError, match="one holds losses in nats, the other imported values of another unit"):
        select(SelectConfig(output=stores["out"], ratio=0.5, **pair))
    with pytest.raises(InputError, match="dynamics needs losses in nats"):
        dynamics(DynamicsConfig(output=stores["out"], scores=(stores["quality"], stores["quality"])))
    select(SelectConfig(output=stores["out"], ref=(stores["quality"],), keep="high", ratio=0.5))
    with pytest.raises(InputError, match="cannot be compared"):
        losses(LossesConfig(selection=(stores["out"],), scores=(f"a={stores['quality']}", f"b={stores['scores']}")))
    with pytest.raises(InputError, match="--columns ref-loss needs losses in nats"):
        export(ExportConfig(selection=stores["out"], output=f"{stores['out']}-x", format="bin", columns=("ref-loss",)))


def test_training_does_not_rank_by_them(stores: dict[str, str], make_model: Callable[[int], Path]) -> None:
    config = TrainConfig(
        model=str(make_model(1)), output=stores["out"], scores=(stores["quality"],), ratio=0.5, steps=1, block_size=16
    )
    with pytest.raises(InputError, match="holds imported values of another unit"):
        train(config)


def test_a_model_in_training_does_not_subtract_what_is_no_loss_behind_the_context(
    stores: dict[str, str], tmp_path: Path, make_model: Callable[[int], Path]
) -> None:
    """The model reads tokens behind their context. `train`, `tune` and the losses for other trainers refuse the rest."""
    documents = [pair[0] for pair in random_documents(20, seed=2)]
    for name, parts, message in (
        ("divergence", {"derived": {"from": "kl"}}, "needs losses, but .*divergence holds divergences of two models"),
        ("hidden", {"context_hidden": True, "hidden_prefix_id": 0}, "hidden was made with --hide-context"),
    ):
        scores = str(write_scores(tmp_path / name, [[documents]], tokenizer=make_model(1), **parts))
        common = {"model": str(make_model(1)), "output": f"{stores['out']}-{name}", "block_size": 16}
        held = (f"held={stores['scores']}",)
        with pytest.raises(InputError, match=message):
            train(TrainConfig(scores=(scores,), ratio=0.5, steps=1, **common))
        for pair in ({"scores": (scores,)}, {"scores": (stores["scores"],), "base": scores}):
            for dry_run in (False, True):
                with pytest.raises(InputError, match=f"tune needs .*{name}"):
                    tune(TuneConfig(eval=held, minutes=1.0, dry_run=dry_run, **pair, **common))
        with pytest.raises(InputError, match=message):
            export(ExportConfig(selection=scores, output=f"{stores['out']}-x", format="bin", columns=("ref-loss",)))
        select(SelectConfig(output=f"{stores['out']}-{name}-selection", ref=(scores,), ratio=0.5))
        of_it = {"selection": f"{stores['out']}-{name}-selection", "output": f"{stores['out']}-x", "format": "bin"}
        with pytest.raises(InputError, match=message):
            export(ExportConfig(**of_it, columns=("ref-loss",)))


def test_pages_do_not_call_them_nats(
    stores: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    select(SelectConfig(output=stores["out"], ref=(stores["quality"],), keep="high", ratio=0.5))
    for name in ("quality", "out"):
        page = Path(report(ReportConfig(store=stores[name], output=str(tmp_path / f"{name}.html")))).read_text()
        assert "imported value" in page
        assert "nats" not in page
        assert "perplexity" not in page
    figure = tmp_path / "curve.svg"
    curve(CurveConfig(selection=stores["out"], plot=str(figure)))
    assert "not losses in nats" in (Path(stores["quality"]) / "README.md").read_text()
    assert main(["losses", stores["out"], "--scores", stores["quality"]]) == 0
    assert "quality" not in capsys.readouterr().err
