"""Score sets that are made without a model, by tasks of a cluster."""

import json
from pathlib import Path

import numpy as np

from rho_score.config import ExportConfig, ImportConfig, PriorConfig, SelectConfig
from rho_score.deriving.import_scores import import_scores
from rho_score.deriving.prior import prior
from rho_score.exporting.job import export
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.conftest import N_QUARANTINED


def test_imported_losses_are_selected_from_as_those_of_the_model(
    ray_cluster: str, scores: dict[str, Path], tmp_path: Path
) -> None:
    ref = ScoreSet.open(str(scores["ref"]))
    rows = [row for unit in reversed(ref.units) for row in ref.unit_table(unit.unit).to_pylist()]
    values = tmp_path / "values"
    values.mkdir()
    for i in range(3):
        lines = [json.dumps({"id": r["doc_id"], "nats": r["loss"], "ids": r["input_ids"]}) for r in rows[i::3]]
        (values / f"{i}.jsonl").write_text("\n".join(lines))
    imported = tmp_path / "imported"
    config = ImportConfig(
        values=str(values), output=str(imported), like=str(scores["base"]), unit="nats", values_column="nats", id_column="id",
        ids_column="ids",
    )  # fmt: skip
    summary = import_scores(config)
    assert summary.documents_without_values == 0
    assert summary.counts.tokens == summary.counts.losses == sum(len(row["loss"]) for row in rows)
    for name, store in (("of-model", scores["ref"]), ("of-import", imported)):
        output = str(tmp_path / name)
        select(SelectConfig(output=output, ref=(str(store),), base=str(scores["base"]), ratio=0.6))
    kept = select(SelectConfig(output=str(tmp_path / "documents"), ref=(str(imported),), level="document", ratio=0.5))
    chosen = [Selection.open(str(tmp_path / name)) for name in ("of-model", "of-import")]
    for unit in ref.units:
        assert chosen[0].unit_table(unit.unit).equals(chosen[1].unit_table(unit.unit))
    assert chosen[0].histogram().equals(chosen[1].histogram())
    assert summary.counts.quarantined == N_QUARANTINED
    written = export(ExportConfig(selection=str(tmp_path / "documents"), output=str(tmp_path / "kept"), format="jsonl"))
    assert written.counts.documents_exported == kept.total.documents_kept
    tables = [
        [
            ScoreSet.open(str(store)).unit_table(unit.unit, ["doc_id", "group", "input_ids", "loss"])
            for unit in ref.units
        ]
        for store in (scores["ref"], imported)
    ]
    for of_model, of_import in zip(*tables, strict=True):
        assert of_model.to_pylist() == of_import.to_pylist()


def test_frequencies_are_counted_by_tasks(ray_cluster: str, scores: dict[str, Path], tmp_path: Path) -> None:
    summary = prior(PriorConfig(scores=str(scores["ref"]), output=str(tmp_path / "prior"), precision="float32"))
    ref, found = ScoreSet.open(str(scores["ref"])), ScoreSet.open(str(tmp_path / "prior"))
    ids = [np.array(row["input_ids"], np.int64) for unit in ref.units for row in ref.unit_table(unit.unit).to_pylist()]
    counts = np.bincount(np.concatenate(ids), minlength=400)
    assert summary.tokens_counted == counts.sum()
    expected = -np.log((counts + 1) / (counts.sum() + 400))
    losses = [row["loss"] for unit in found.units for row in found.unit_table(unit.unit).to_pylist()]
    np.testing.assert_allclose(np.concatenate(losses), expected[np.concatenate(ids)], rtol=1e-6)
