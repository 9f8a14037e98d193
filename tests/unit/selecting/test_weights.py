"""The weights that `select --weights` writes, beside the formulas in plain Python, and in the files of exports."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rho_score.config import ExportConfig, SelectConfig
from rho_score.errors import InputError
from rho_score.exporting.job import export
from rho_score.ranking.weights import Weighting
from rho_score.selecting.job import select
from rho_score.stores.selection import Selection
from tests.stores import Doc, cut, random_documents, write_scores

RARE = [0.0, -0.0, 0.25, 1.0, 7.5, 60000.0, None, float("inf"), float("nan")]


def _score(ref: float | None, base: float | None, kind: type) -> float:
    if ref is None or base is None:
        return math.nan
    with np.errstate(all="ignore"):
        return float(kind(np.float32(base) - np.float32(ref)))


def _weight(how: str, x: float, ranked: Sequence[float], cut_at: float, scale: float, sign: int) -> float:
    """The weight of one item among those that are ranked, by its definition."""
    if math.isnan(x):
        return 0.0
    if how == "rank":
        worse = sum(sign * y < sign * x for y in ranked)
        return (worse + sum(y == x for y in ranked) / 2) / len(ranked)
    if math.isnan(cut_at):
        return 0.0
    d = 0.0 if x == cut_at else sign * (x - cut_at) / scale
    if how == "linear":
        return min(max(0.5 + d / 2, 0.0), 1.0)
    return 1 / (1 + math.exp(-d)) if d > -700 else 0.0


def _means(scores: Sequence[Sequence[float]], kind: type) -> list[float]:
    means = []
    for doc in scores:
        there = [x for x in doc if not math.isnan(x)]
        with np.errstate(all="ignore"):
            means.append(float(kind(np.sum(there, dtype=np.float64) / len(there))) if there else math.nan)
    return means


def _in_bin(x: float, ranked: Sequence[float]) -> int:
    """How many of the scores share the upper half of the bits of float32."""
    upper = np.array([x, *ranked], np.float32).view(np.uint32) >> 16
    return int((upper[1:] == upper[0]).sum())


def test_a_threshold_between_two_float16_scores_is_not_rounded() -> None:
    weighting = Weighting.of(
        "linear", pa.table({"key": [], "count": []}), threshold=0.3, high=True, bits=16, temperature=0.01
    )
    (weight,) = weighting.weights(np.array([0.3], np.float16))
    assert float(np.float16(0.3)) - 0.3 > 4e-5
    np.testing.assert_allclose(weight, 0.5 + (float(np.float16(0.3)) - 0.3) / 0.02, atol=1e-7)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pairs=st.builds(
        lambda n, seed, values: random_documents(n, seed=seed, values=values),
        st.integers(1, 30),
        st.integers(0, 10**6),
        st.sampled_from([(), RARE, [1.0], [0.5, 1.0, 2.0]]),
    ),
    sizes=st.lists(st.integers(1, 9), max_size=4),
    how=st.sampled_from(["linear", "sigmoid", "rank"]),
    amount=st.sampled_from([{"ratio": 0.0}, {"ratio": 0.4}, {"ratio": 1.0}, {"tokens": 17}, {"threshold": 0.3}]),
    level=st.sampled_from(["token", "document"]),
    per_group=st.booleans(),
    keep=st.sampled_from(["high", "low"]),
    temperature=st.sampled_from([0.01, 1.0, 3.0]),
    precision=st.sampled_from(["float16", "float32"]),
)
def test_weights_equal_their_formulas(
    tmp_path: Path,
    pairs: list[tuple[Doc, Doc]],
    sizes: list[int],
    how: str,
    amount: dict[str, Any],
    level: Any,
    per_group: bool,
    keep: Any,
    temperature: float,
    precision: str,
) -> None:
    if "tokens" in amount:
        per_group, level = False, "token"
    for name in ("ref", "base", "sel"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    write_scores(tmp_path / "ref", [cut([ref for ref, _ in pairs], sizes)], precision=precision)
    write_scores(tmp_path / "base", [cut([base for _, base in pairs], sizes)], precision=precision)
    config = SelectConfig(
        output=str(tmp_path / "sel"),
        ref=(str(tmp_path / "ref"),),
        base=str(tmp_path / "base"),
        weights=how,
        level=level,
        per_group=per_group,
        keep=keep,
        temperature=temperature,
        **amount,
    )
    select(config)
    kind = np.float16 if precision == "float16" else np.float32
    scores = [[_score(r, b, kind) for r, b in zip(ref.loss, base.loss, strict=True)] for ref, base in pairs]
    items = [[x] for x in _means(scores, kind)] if level == "document" else scores
    sign = 1 if keep == "high" else -1
    selection = Selection.open(config.output)
    assert selection.weighted
    rows = [row for unit in selection.units for row in selection.unit_table(unit.unit).to_pylist()]
    for (ref, _), own, values, row in zip(pairs, items, scores, rows, strict=True):
        group = ref.group if per_group else None
        ranked = [
            x
            for (other, _), of in zip(pairs, items, strict=True)
            if not per_group or other.group == group
            for x in of
            if not math.isnan(x)
        ]
        n_kept = (
            round(amount["ratio"] * len(ranked)) if "ratio" in amount else min(amount.get("tokens", 0), len(ranked))
        )
        cut_at = sorted(ranked, key=lambda x: -sign * x)[n_kept - 1] if n_kept else math.nan
        weights = [_weight(how, x, ranked, amount.get("threshold", cut_at), temperature, sign) for x in own]
        if level == "document":
            weights = weights * len(values)
        expected = [0.0 if math.isnan(x) else weight for x, weight in zip(values, weights, strict=True)]
        if how == "rank" and precision == "float32":  # ranks are known to a bin
            near = [0.0 if math.isnan(x) else _in_bin(x, ranked) / len(ranked) / 2 for x in own]
            loose = np.repeat(near, len(values)) if level == "document" else np.array(near)
            assert (np.abs(np.array(row["weight"]) - expected) <= loose + 1e-6).all()
        else:
            np.testing.assert_allclose(row["weight"], expected, atol=1e-6)


def test_a_low_temperature_gives_the_mask(tmp_path: Path) -> None:
    pairs = random_documents(60, seed=3)
    write_scores(tmp_path / "ref", [cut([ref for ref, _ in pairs], [20, 20])])
    config = SelectConfig(
        output=str(tmp_path / "sel"), ref=(str(tmp_path / "ref"),), ratio=0.5, weights="sigmoid", temperature=1e-5
    )
    select(config)
    selection = Selection.open(config.output)
    for unit in selection.units:
        for row in selection.unit_table(unit.unit).to_pylist():
            sure = [weight for weight in row["weight"] if weight != 0.5]
            assert sure == [float(m) for m, weight in zip(row["mask"], row["weight"], strict=True) if weight != 0.5]


def test_the_best_reference_of_a_union_gives_the_weight(tmp_path: Path) -> None:
    pairs = random_documents(30, seed=4)
    for i, name in enumerate(("one", "two")):
        write_scores(
            tmp_path / name, [cut([pair[i] if i == 0 else replace(pair[0], loss=pair[1].loss) for pair in pairs], [9])]
        )
    found = {}
    refs = {name: f"{name}={tmp_path / name}" for name in ("one", "two")}
    for name, ref in [*((name, (ref,)) for name, ref in refs.items()), ("both", tuple(refs.values()))]:
        select(SelectConfig(output=str(tmp_path / f"sel-{name}"), ref=ref, combine="union", ratio=0.4, weights="rank"))
        selection = Selection.open(str(tmp_path / f"sel-{name}"))
        found[name] = [
            w for unit in selection.units for row in selection.unit_table(unit.unit)["weight"].to_pylist() for w in row
        ]
    assert found["both"] == np.maximum(found["one"], found["two"]).tolist()


@pytest.mark.parametrize(
    "options",
    [{"scope": "document"}, {"sample": "random"}, {"drop_top": 0.1}, {"min_run": 2}],
)
def test_weights_that_would_mean_nothing_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^--weights grow from the worst score to the best"):
        select(SelectConfig(output=str(tmp_path / "sel"), ref=(str(tmp_path),), ratio=0.5, weights="rank", **options))


@pytest.fixture
def weighted(tmp_path: Path, make_model: Callable[[int], Path]) -> Path:
    """A selection with weights, of documents in two units."""
    pairs = random_documents(20, seed=8)
    write_scores(tmp_path / "ref", [cut([ref for ref, _ in pairs], [9])], tokenizer=make_model(1))
    select(SelectConfig(output=str(tmp_path / "sel"), ref=(str(tmp_path / "ref"),), ratio=0.3, weights="linear"))
    return tmp_path / "sel"


@pytest.mark.parametrize("train_eos", [False, True])
def test_exports_carry_the_weights(tmp_path: Path, weighted: Path, train_eos: bool) -> None:
    selection = Selection.open(str(weighted))
    rows = [row for unit in selection.units for row in selection.unit_table(unit.unit).to_pylist()]
    assert any(0 < w < 1 and not m for row in rows for w, m in zip(row["weight"], row["mask"], strict=True))
    rows = [row for row in rows if any(row["weight"])]
    framed = [[0.0, *row["weight"], float(train_eos)] for row in rows]  # a prefix, the tokens, an EOS

    def exported(name: str, **options: Any) -> Path:
        config = ExportConfig(
            selection=str(weighted), output=str(tmp_path / name), columns=("weight",), train_eos=train_eos, **options
        )
        export(config)
        return tmp_path / name / "data"

    def table(folder: Path) -> list[dict[str, Any]]:
        return [row for path in sorted(folder.iterdir()) for row in pq.read_table(path).to_pylist()]

    labels = table(exported("labels", format="labels"))
    assert [row["weight"] for row in labels] == framed
    for row, weights in zip(labels, framed, strict=True):
        assert row["labels"] == [t if w > 0 else -100 for t, w in zip(row["input_ids"], weights, strict=True)]
    levanter = table(exported("levanter", format="levanter"))
    assert [row["loss_weights"] for row in levanter] == [[*weights[1:], 0.0] for weights in framed]
    blocks = table(exported("blocks", format="labels", block_size=16))
    flat = [w for row in blocks for w, label in zip(row["weight"], row["labels"], strict=True) if label != -100]
    assert flat == [w for weights in framed for w in weights if w > 0]
    folder = exported("bin", format="bin")
    found = np.concatenate([np.fromfile(path, "<f2") for path in sorted(folder.glob("*.weight"))])
    mask = np.concatenate([np.fromfile(path, np.uint8) for path in sorted(folder.glob("*.mask"))])
    assert mask.tolist() == (found > 0).tolist()
    np.testing.assert_array_equal(found[found > 0], np.array(flat, np.float16))


def test_weights_that_are_not_there_are_refused(tmp_path: Path, weighted: Path) -> None:
    select(SelectConfig(output=str(tmp_path / "plain"), ref=(str(tmp_path / "ref"),), ratio=0.3))
    for store in ("plain", "ref"):
        with pytest.raises(InputError, match="has no weights"):
            export(
                ExportConfig(
                    selection=str(tmp_path / store), output=str(tmp_path / "out"), format="bin", columns=("weight",)
                )
            )
    with pytest.raises(InputError, match="--columns is for --format labels and bin"):
        export(ExportConfig(selection=str(weighted), output=str(tmp_path / "out"), format="olmo", columns=("weight",)))
