"""Token dynamics compared with numpy's polyfit, and the curves of a selection with its masks."""

import csv
from pathlib import Path

import numpy as np
import pytest

from rho_score.charts import image, shares_figure
from rho_score.cli import main
from rho_score.config import DynamicsConfig, SelectConfig
from rho_score.errors import InputError
from rho_score.ranking.trends import CATEGORIES
from rho_score.reporting.curve import load_curves
from rho_score.selecting.dynamics import DynamicsSummary, dynamics, plotted
from rho_score.selecting.job import select
from rho_score.stores.counts import GroupCounts
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.ray.conftest import digests
from tests.stores import Doc, cut, random_documents, write_scores


@pytest.fixture
def checkpoints(ray_cluster: str, tmp_path: Path) -> list[str]:
    """Score sets of four checkpoints, each cut into other units. Some tokens have no loss."""
    rng = np.random.default_rng(0)
    first = [pair[0] for pair in random_documents(60, seed=1)]
    paths = []
    for c in range(4):
        docs = [
            Doc(d.doc_id, d.group, d.ids, [None if i == 0 and len(d.ids) > 9 else float(np.float16(max(0, (x or 0) + c * s)))
                                           for i, (x, s) in enumerate(zip(d.loss, rng.normal(0, 0.3, len(d.ids)), strict=True))])
            for d in first
        ]  # fmt: skip
        write_scores(tmp_path / f"c{c}", [cut(docs, [7 + c, 20])])
        paths.append(f"{tmp_path}/c{c}")
    return paths


def _flat(url: str, column: str, store: type = ScoreSet) -> np.ndarray:
    opened = store.open(url)  # type: ignore[attr-defined]
    rows = [row for unit in opened.units for row in opened.unit_table(unit.unit).to_pylist()]
    return np.array([np.nan if x is None else x for row in rows for x in row[column]], np.float64)


@pytest.mark.parametrize("steps", [(), (100.0, 1000.0, 5000.0, 20000.0)])
def test_categories_are_those_of_a_fitted_line(
    checkpoints: list[str], tmp_path: Path, steps: tuple[float, ...]
) -> None:
    keep = ("H-L", "H-H")
    config = DynamicsConfig(output=f"{tmp_path}/out", scores=tuple(checkpoints), steps=steps, keep=keep)  # type: ignore[arg-type]
    summary = dynamics(config)
    losses = np.array([_flat(url, "loss") for url in checkpoints])
    present = ~np.isnan(losses).any(axis=0)
    x = np.array(steps or range(4), float)
    slope = np.polyfit(x, losses[:, present], 1)[0]
    delta = slope * (x[-1] - x[0])
    mean = losses[-1, present].mean()
    wanted = [
        "L-H" if d > 0.2 else "H-L" if d < -0.2 else "L-L" if last <= mean else "H-H"
        for d, last in zip(delta, losses[-1, present], strict=True)
    ]
    found = _flat(f"{tmp_path}/out", "category", Selection)
    assert [CATEGORIES[int(code)] for code in found[present]] == wanted
    assert np.isnan(found[~present]).all()
    np.testing.assert_allclose(_flat(f"{tmp_path}/out", "delta", Selection)[present], delta, atol=4e-3)
    assert _flat(f"{tmp_path}/out", "mask", Selection)[present].astype(bool).tolist() == [c in keep for c in wanted]
    counts = {c: sum(shares[c] for shares in summary.shares.values()) for c in CATEGORIES}
    assert counts == {c: wanted.count(c) for c in CATEGORIES}
    assert summary.total.tokens_kept == sum(c in keep for c in wanted)


def test_dynamics_go_on_to_the_same_bytes(
    checkpoints: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["dynamics", f"{tmp_path}/out", "--scores", *checkpoints, "--plot", f"{tmp_path}/d.svg"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "H-L" in said
    assert "the mask keeps H-L" in said
    before = digests(tmp_path / "out")
    for name in ["summary.json", *sorted(name for name in before if name.startswith("data/"))[:2]]:
        (tmp_path / "out" / name).unlink()
    assert main(command) == 0
    assert digests(tmp_path / "out") == before
    assert "<svg" in (tmp_path / "d.svg").read_text()
    assert main(command) == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scores": ("a",)}, "two checkpoints"),
        ({"steps": (1.0,)}, "--steps says"),
        ({"steps": (2.0, 1.0)}, "must rise"),
        ({"rise": -1.0}, "not be negative"),
        ({"plot": "d.gif"}, ".svg"),
    ],
)
def test_wrong_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        dynamics(DynamicsConfig(**({"output": "o", "scores": ("a", "b")} | options)))  # type: ignore[arg-type]


def test_checkpoints_behind_other_contexts_are_refused(tmp_path: Path) -> None:
    """A line through such losses would say what the context tells, and not what was learnt."""
    for i, parts in enumerate(({}, {"context_hidden": True, "hidden_prefix_id": 0})):
        write_scores(tmp_path / f"c{i}", [[[Doc("d", "g", [1, 2], [1.0, 2.0])]]], **parts)
    config = DynamicsConfig(output=f"{tmp_path}/out", scores=(f"{tmp_path}/c0", f"{tmp_path}/c1"))
    with pytest.raises(InputError, match=r"c1 was made with --hide-context and .*c0 without"):
        dynamics(config)
    assert not (tmp_path / "out").exists()


def test_a_group_that_is_called_all_is_not_the_whole() -> None:
    none = dict.fromkeys(CATEGORIES, 0)
    shares = {"all": none | {"H-H": 1}, "(none)": none | {"L-L": 2}, None: none | {"H-L": 3}}
    summary = DynamicsSummary(output="o", units=1, computed=1, groups={}, shares=shares, total=GroupCounts())
    shown = plotted(summary)
    assert [name for name, _ in shown] == ["all", "(none)", "(none)", "all"]
    assert shown[0][1] == {"H-H": 1 / 6, "L-H": 0, "H-L": 3 / 6, "L-L": 2 / 6}
    assert shown[3][1]["H-H"] == 1
    assert image(shares_figure(shown), "svg").startswith(b"<?xml")


def test_curves_foretell_every_selection(ray_cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = random_documents(80, seed=9)
    for i, name in enumerate(("ref", "base")):
        write_scores(tmp_path / name, [cut([p[i] for p in pairs], [9, 9, 9])])
    places = {"ref": f"{tmp_path}/ref", "base": f"{tmp_path}/base"}
    select(SelectConfig(output=f"{tmp_path}/sel", ratio=0.6, **places))  # type: ignore[arg-type]
    curves = load_curves(Selection.open(f"{tmp_path}/sel"))
    for point, rule in (
        (curves.at_ratio(0.25), {"ratio": 0.25}), (curves.at_tokens(99), {"tokens": 99}),
        (curves.at_threshold(0.5), {"threshold": 0.5}), (curves.at_tokens(10**9), {"tokens": 10**9}),
        (curves.at_ratio(0.0), {"ratio": 0.0}),
    ):  # fmt: skip
        found = select(SelectConfig(output=f"{tmp_path}/{rule}", **places, **rule))  # type: ignore[arg-type]
        assert point.items == point.tokens == found.total.tokens_kept
        assert point.threshold == found.thresholds[None]
        if "threshold" in rule:  # a threshold shares no ties in proportion
            assert point.shares == {g: a.tokens_kept / a.tokens_scored for g, a in found.groups.items()}
    command = ["curve", f"{tmp_path}/sel", "--csv", f"{tmp_path}/c.csv", "--plot", f"{tmp_path}/c.png"]
    assert main(command) == 0
    n_tokens = len(_flat(f"{tmp_path}/sel", "excess", Selection))
    assert f"{round(0.6 * n_tokens):>18,}" in capsys.readouterr().out
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    whole = [row for row in rows if row["group"] == "(all)"]
    assert [int(row["tokens"]) for row in whole] == sorted(int(row["tokens"]) for row in whole)
    scores = _flat(f"{tmp_path}/sel", "excess", Selection)
    for row in whole[:: len(whole) // 7]:
        assert int(row["tokens"]) == int(np.sum(scores >= float(row["threshold"])))
    with pytest.raises(InputError, match="Leave out --expert"):
        load_curves(Selection.open(f"{tmp_path}/sel"), "math")
