"""The losses of kept and of dropped tokens, compared with numpy's means over the stores' own files."""

import csv
from pathlib import Path

import numpy as np
import pytest

from rho_score.cli import main
from rho_score.config import LossesConfig, SelectConfig
from rho_score.errors import InputError
from rho_score.selecting.job import select
from rho_score.selecting.kept_losses import losses
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.stores import Doc, cut, random_documents, write_scores

NAMES = ("early", "middle", "late")


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, str]:
    """Three score sets, of which the last is cut otherwise and lacks some losses, and two selections."""
    rng = np.random.default_rng(3)
    first = [pair[0] for pair in random_documents(60, seed=2)]
    found = {}
    for c, name in enumerate(NAMES):
        docs = [
            Doc(d.doc_id, d.group, d.ids, [None if c == 2 and i == 1 else float(np.float16(abs((x or 0) - 0.2 * c + rng.normal(0, 0.3))))
                                           for i, x in enumerate(d.loss)])
            for d in first
        ]  # fmt: skip
        write_scores(tmp_path / name, [cut(docs, [20] if c < 2 else [11, 40])])
        found[name] = f"{tmp_path}/{name}"
    for name, ratio in (("few", 0.2), ("many", 0.7)):
        found[name] = f"{tmp_path}/{name}"
        select(SelectConfig(output=found[name], ref=(found["middle"],), base=found["early"], ratio=ratio))
    return found


def _config(stores: dict[str, str], selections: tuple[str, ...] = ("few", "many"), **more: object) -> LossesConfig:
    return LossesConfig(
        selection=tuple(f"{name}={stores[name]}" for name in selections),
        scores=tuple(f"{name}={stores[name]}" for name in NAMES),
        **more,  # type: ignore[arg-type]
    )


def _rows(url: str, kind: type) -> list[dict[str, object]]:
    store = kind.open(url)  # type: ignore[attr-defined]
    return [row for unit in store.units for row in store.unit_table(unit.unit).to_pylist()]


@pytest.mark.parametrize("workers", [1, 3])
def test_means_are_those_of_the_tokens(stores: dict[str, str], workers: int) -> None:
    summary = losses(_config(stores, workers=workers))
    by_token = {
        name: {(r["doc_id"], i): x for r in _rows(stores[name], ScoreSet) for i, x in enumerate(r["loss"])}  # type: ignore[arg-type, var-annotated]
        for name in NAMES
    }
    group_of = {r["doc_id"]: r["group"] for r in _rows(stores["early"], ScoreSet)}
    known = {at for at in by_token["early"] if all(by_token[name][at] is not None for name in NAMES)}
    assert summary.left_out == len(by_token["early"]) - len(known) > 0
    for row in [*summary.rows, *summary.groups]:
        inside = row in summary.groups
        kept: dict[bool, list[float]] = {True: [], False: []}
        for r in _rows(stores[row.selection], Selection):
            for i, keep in enumerate(r["mask"]):  # type: ignore[arg-type, var-annotated]
                if (r["doc_id"], i) in known and (not inside or group_of[r["doc_id"]] == row.group):
                    kept[keep].append(by_token[row.scores][r["doc_id"], i])
        assert (row.kept, row.dropped) == (len(kept[True]), len(kept[False]))
        assert row.loss_kept == pytest.approx(np.mean(kept[True]))
        assert row.loss_dropped == pytest.approx(np.mean(kept[False]))
    assert len(summary.rows) == 6
    assert len(summary.groups) == 6 * len(set(group_of.values()))


def test_the_same_in_tasks_of_a_cluster(stores: dict[str, str], ray_cluster: str) -> None:
    assert len(losses(_config(stores)).rows) == 6


def test_the_command_prints_draws_and_writes(
    stores: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--scores={name}={stores[name]}" for name in NAMES]
    files = ["--plot", f"{tmp_path}/losses.svg", "--csv", f"{tmp_path}/losses.csv"]
    assert main(["losses", f"few={stores['few']}", *options, "--steps", "1", "5", "9", *files]) == 0
    said = capsys.readouterr().out
    assert "few                  late" in said
    assert "tokens have no loss under one of the score sets" in said
    drawn = (tmp_path / "losses.svg").read_text()
    assert "few, kept" in drawn
    assert "few, dropped" in drawn
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert {row["documents"] for row in rows} == {"all", "group"}
    assert float(rows[0]["loss_kept"]) == losses(_config(stores, ("few",))).rows[0].loss_kept


def test_what_does_not_belong_together_is_refused(stores: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="It needs 3 numbers, got 2"):
        losses(_config(stores, steps=(1.0, 2.0)))
    with pytest.raises(InputError, match=r"must end with \.svg"):
        losses(_config(stores, plot=f"{tmp_path}/losses.txt"))
    hidden = {"context_hidden": True, "hidden_prefix_id": 0}
    write_scores(tmp_path / "hidden", [[[pair[0] for pair in random_documents(60, seed=2)]]], **hidden)
    scores = (f"seen={stores['early']}", f"alone={tmp_path}/hidden")
    with pytest.raises(InputError, match=r"hidden was made with --hide-context and .*early without"):
        losses(LossesConfig(selection=(f"few={stores['few']}",), scores=scores))
    other = [Doc("x", "a", [1, 2, 3], [1.0, 2.0, 3.0])]
    write_scores(tmp_path / "other", [cut(other, [])])
    wrong = LossesConfig(selection=(f"few={stores['few']}",), scores=(f"other={tmp_path}/other",))
    with pytest.raises(InputError, match="was not made from"):
        losses(wrong)
