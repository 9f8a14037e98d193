"""Every rule of a selection compared with a full sort in plain Python, whatever the units are.

The score sets are made without a model.
"""

import itertools
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rho_score.cli import main
from rho_score.cluster import ray_cluster as ray_cluster_module
from rho_score.cluster import tasks
from rho_score.config import SelectConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.parquet import footer
from rho_score.selecting.job import select
from rho_score.selecting.summary import SelectSummary
from rho_score.stores import unit_file
from rho_score.stores.selection import Selection
from tests.ray.conftest import digests
from tests.stores import Doc, cut, random_documents, write_scores

VALUES = [0.0, -0.0, 0.25, 0.5, 1.0, 1.0009765625, 7.5, 60000.0, None, float("inf"), float("nan")]


def _score(ref: float | None, base: float | None, sign: int = 1) -> float:
    """The score as it is stored: the difference rounded to float16, times the sign, or NaN."""
    if ref is None or base is None:
        return math.nan
    with np.errstate(all="ignore"):
        return sign * float(np.float32(np.float16(np.float32(base) - np.float32(ref))))


def _first(items: list[tuple[float, int]], drop: int, keep: int) -> set[int]:
    """The items with the ranks `drop` to `drop + keep`: the highest first, ties in order."""
    ranked = sorted(items, key=lambda item: (-item[0], item[1]))
    return {i for _, i in ranked[drop : drop + keep]}


def _ranks(items: list[tuple[float, int]], rule: dict[str, Any], tokens: dict[int, int] | None = None) -> set[int]:
    """The items that a rule keeps. tokens: those of each document, if documents fill a budget."""
    items = [(x, i) for x, i in items if not math.isnan(x)]
    drop = round(rule.get("drop_top", 0.0) * len(items))
    if "threshold" in rule:
        return {i for x, i in items if x >= rule["threshold"]} - _first(items, 0, drop)
    if "ratio" in rule:
        return _first(items, drop, round(rule["ratio"] * len(items)))
    if tokens is None:
        return _first(items, drop, rule["tokens"])
    left, kept = rule["tokens"], set()
    for _, i in sorted(items, key=lambda item: (-item[0], item[1]))[drop:]:
        if tokens[i] > left:
            break
        left -= tokens[i]
        kept.add(i)
    return kept


def _expected(pairs: list[tuple[Doc, Doc]], units: list[int], rule: dict[str, Any]) -> list[list[bool]]:
    """The masks of all documents."""
    sign = -1 if rule.get("keep") == "low" else 1
    rule = rule | ({"threshold": sign * rule["threshold"]} if "threshold" in rule else {})
    scores = [[_score(r, b, sign) for r, b in zip(ref.loss, base.loss, strict=True)] for ref, base in pairs]
    groups = [ref.group for ref, _ in pairs]
    flat = [(x, i) for i, x in enumerate(x for doc in scores for x in doc)]
    owner = [d for d, doc in enumerate(scores) for _ in doc]
    if rule.get("level") == "document":
        means = []
        for doc in scores:
            there = [x for x in doc if not math.isnan(x)]
            with np.errstate(invalid="ignore"):
                mean = float(np.sum(there)) / len(there) if there else math.nan
            with np.errstate(over="ignore"):
                means.append(float(np.float16(mean)))
        items = [(x, d) for d, x in enumerate(means)]
        lengths = {d: len(doc) for d, doc in enumerate(scores)}
        kept = set()
        for group in set(groups) if rule.get("per_group") else {"all"}:
            kept |= _ranks([(x, d) for x, d in items if group in ("all", groups[d])], rule, lengths)
        return [[d in kept] * len(doc) for d, doc in enumerate(scores)]
    parts: list[Any] = [None] * len(flat)
    if rule.get("per_group"):
        parts = [groups[d] for d in owner]
    if rule.get("scope") == "document":
        parts = owner
    if rule.get("scope") == "batch":
        unit_of = list(itertools.chain.from_iterable([u] * n for u, n in enumerate(units)))
        counts: dict[int, int] = {}
        parts = []
        for d in owner:
            place = counts.get(unit_of[d], 0)
            counts[unit_of[d]] = place + 1
            parts.append((unit_of[d], place // rule["batch_tokens"]))
    kept = set().union(
        *(_ranks([item for item, p in zip(flat, parts, strict=True) if p == part], rule) for part in set(parts))
    )
    found, at = [], 0
    for doc in scores:
        mask = [at + i in kept for i in range(len(doc))]
        at += len(doc)
        runs = [(value, len(list(run))) for value, run in itertools.groupby(mask)]
        found.append([value and n >= rule.get("min_run", 1) for value, n in runs for _ in range(n)])
    return found


def _masks(store: Path) -> list[list[bool]]:
    selection = Selection.open(str(store))
    return [row["mask"] for unit in selection.units for row in selection.unit_table(unit.unit).to_pylist()]


AMOUNT = st.one_of(
    st.builds(lambda r: {"ratio": r}, st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.6, 1.0])),
    st.builds(lambda t: {"tokens": t}, st.sampled_from([0, 1, 17, 100, 10**6])),
    st.builds(lambda t: {"threshold": t}, st.sampled_from([-1.0, -0.0, 0.3, 1.0005, 1e9])),
)
RATIO = st.builds(lambda r: {"ratio": r}, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
BAND = st.sampled_from([{}, {"drop_top": 0.1}, {"drop_top": 0.4}])
RULES = st.one_of(
    st.builds(lambda a, b: a | b, AMOUNT, BAND),
    st.builds(lambda a, b: a | b | {"level": "document"}, AMOUNT, BAND),
    st.builds(lambda a, b, level: a | b | level | {"per_group": True},
              AMOUNT.filter(lambda a: "tokens" not in a), BAND, st.sampled_from([{}, {"level": "document"}])),
    st.builds(lambda a, b: a | b | {"scope": "document"}, RATIO, BAND),
    st.builds(lambda a, b, n: a | b | {"scope": "batch", "batch_tokens": n}, RATIO, BAND, st.integers(1, 40)),
    st.builds(lambda a, n: a | {"min_run": n}, AMOUNT, st.integers(2, 4)),
)  # fmt: skip
RULES = st.builds(lambda rule, keep: rule | keep, RULES, st.sampled_from([{}, {}, {"keep": "low"}]))
CORPORA = st.builds(
    lambda n, seed, values: random_documents(n, seed=seed, values=values),
    st.integers(0, 40), st.integers(0, 10**6), st.sampled_from([(), VALUES, [1.0], [0.5, 1.0, 2.0]]),
)  # fmt: skip
SIZES = st.lists(st.integers(1, 9), max_size=6)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs tasks as threads of this process, as without a cluster.

    Hundreds of selections then take a minute, and the bytes are the same.
    """
    for module in (ray_cluster_module, tasks):
        monkeypatch.setattr(module, "connected", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(unit_file, "PART_TOKENS", unit_file.PART_TOKENS)  # restores it after the test


@pytest.fixture(scope="module")
def folder(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(pairs=CORPORA, sizes=SIZES, other=st.one_of(st.none(), SIZES), rule=RULES, part=st.sampled_from([1, 9, 1 << 20]))
def test_every_rule_equals_a_full_sort(
    threads: None,
    folder: Path,
    pairs: list[tuple[Doc, Doc]],
    sizes: list[int],
    other: list[int] | None,
    rule: dict[str, Any],
    part: int,
) -> None:
    unit_file.PART_TOKENS = part  # tokens that are read at a time if sets are cut alike
    for name in ("ref", "base", "sel"):
        shutil.rmtree(folder / name, ignore_errors=True)
    units = cut([base for _, base in pairs], sizes)
    write_scores(folder / "base", [units])
    write_scores(folder / "ref", [cut([ref for ref, _ in pairs], sizes if other is None else other)])
    paths = {name: str(folder / name) for name in ("ref", "base")}
    summary = select(SelectConfig(output=str(folder / "sel"), **paths, **rule))
    expected = _expected(pairs, [len(unit) for unit in units], rule)
    assert _masks(folder / "sel") == expected
    n_kept = sum(map(sum, expected))
    assert summary.total.tokens_kept == n_kept
    foreseen = select(SelectConfig(output=str(folder / "dry"), dry_run=True, **paths, **rule))
    assert not (folder / "dry").exists()
    if not foreseen.approximate:
        assert foreseen.total.tokens_kept == n_kept
    elif rule.get("level") != "document":
        assert sum(row["kept"] for row in foreseen.cuts) == n_kept


def test_parts_of_a_unit_are_row_groups_and_give_the_same_rows(
    threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[Doc, Doc]]
) -> None:
    paths = _write(tmp_path, pairs, [25, 25])
    tables = {}
    for part in (1 << 20, 100):
        monkeypatch.setattr(unit_file, "PART_TOKENS", part)
        select(SelectConfig(output=str(tmp_path / str(part)), ref=(paths["ref"],), base=paths["base"], ratio=0.5))
        files = [pq.ParquetFile(path) for path in sorted((tmp_path / str(part) / "data").iterdir())]
        assert all((file.num_row_groups > 1) == (part == 100) for file in files)
        tables[part] = [(file.read().to_pylist(), footer(file)) for file in files]
    assert tables[100] == tables[1 << 20]


def _write(folder: Path, pairs: list[tuple[Doc, Doc]], sizes: list[int]) -> dict[str, str]:
    for i, name in enumerate(("ref", "base")):
        write_scores(folder / name, [cut([pair[i] for pair in pairs], sizes)])
    return {name: str(folder / name) for name in ("ref", "base")}


@pytest.fixture
def pairs() -> list[tuple[Doc, Doc]]:
    return random_documents(50, seed=5)


def _select(output: Path, places: dict[str, str], **options: Any) -> SelectSummary:
    return select(SelectConfig(output=str(output), **(places | options)))


def test_units_of_other_sizes_give_the_same_masks(folder: Path, tmp_path: Path, pairs: list[tuple[Doc, Doc]]) -> None:
    one = _write(tmp_path / "one", pairs, [])
    many = _write(tmp_path / "many", pairs, [3] * 20)
    for options in ({"ratio": 0.6}, {"tokens": 77, "level": "document"}, {"ratio": 0.3, "sample": "gumbel"}):
        found = []
        for i, places in enumerate([one, many, {"ref": one["ref"], "base": many["base"]}]):
            _select(tmp_path / f"{i}{options}", places, **options)
            found.append(_masks(tmp_path / f"{i}{options}"))
        assert found[0] == found[1] == found[2]


def test_quotas_by_share_and_by_tokens(folder: Path, tmp_path: Path, pairs: list[tuple[Doc, Doc]]) -> None:
    places = _write(tmp_path, pairs, [9, 9])
    summary = _select(tmp_path / "sel", places, quota=("a=0.25", "b=11", "*=0"))
    assert summary.groups["a"].tokens_kept == round(0.25 * summary.groups["a"].tokens_scored)
    assert summary.groups["b"].tokens_kept == 11
    assert summary.groups["c"].tokens_kept == 0
    for quota, words in (
        (("a=0.25",), "--quota says nothing about the group"),
        (("A=0.25", "*=0"), "no group is called 'A'"),
    ):
        with pytest.raises(RhoScoreError, match=words):
            _select(tmp_path / f"other{quota}", places, quota=quota)


def test_experts_keep_their_own_shares_and_masks(folder: Path, tmp_path: Path, pairs: list[tuple[Doc, Doc]]) -> None:
    places = _write(tmp_path, pairs, [9, 9])
    second = random_documents(50, seed=6)
    swapped = [
        Doc(a.doc_id, a.group, a.ids, b.loss[: len(a.ids)] + [1.0] * (len(a.ids) - len(b.loss)))
        for (a, _), (b, _) in zip(pairs, second, strict=True)
    ]
    write_scores(tmp_path / "two", [cut(swapped, [20])])
    both = {"ref": (f"one={places['ref']}", f"two={tmp_path}/two"), "base": places["base"]}
    union = _select(tmp_path / "union", both, combine="union", ratio=0.2, share=("two=0.5",), expert_masks=True)
    rows = [row for unit in Selection.open(str(tmp_path / "union")).units
            for row in Selection.open(str(tmp_path / "union")).unit_table(unit.unit).to_pylist()]  # fmt: skip
    for name, ref, ratio in (("one", [a for a, _ in pairs], 0.2), ("two", swapped, 0.5)):
        expected = _expected([(r, b) for r, (_, b) in zip(ref, pairs, strict=True)], [50], {"ratio": ratio})
        assert [row[f"mask_{name}"] for row in rows] == expected
    assert [row["mask"] for row in rows] == [
        [a or b for a, b in zip(r["mask_one"], r["mask_two"], strict=True)] for r in rows
    ]
    assert union.total.tokens_kept == sum(sum(row["mask"]) for row in rows)
    for how, fold in (
        ("min", min),
        ("mean", lambda x, y: float(np.mean([np.float32(x), np.float32(y)], dtype=np.float32))),
    ):
        _select(tmp_path / how, both, combine=how, ratio=0.4)
        folded = [
            Doc(a.doc_id, a.group, a.ids, list(map(fold, a.loss, s.loss)))
            for (a, _), s in zip(pairs, swapped, strict=True)
        ]
        expected = _expected([(f, b) for f, (_, b) in zip(folded, pairs, strict=True)], [50], {"ratio": 0.4})
        assert _masks(tmp_path / how) == expected


def test_samples_depend_on_seed_and_data_alone(folder: Path, tmp_path: Path) -> None:
    pairs = random_documents(300, seed=7, longest=20)
    places = _write(tmp_path, pairs, [40] * 5)
    kept = {}
    for name, options in {
        "a": {"seed": 1},
        "b": {"seed": 1},
        "c": {"seed": 2},
        "cold": {"seed": 1, "temperature": 1e-4},
    }.items():
        summary = _select(tmp_path / name, places, ratio=0.3, sample="gumbel", **options)
        kept[name] = _masks(tmp_path / name)
        assert summary.total.tokens_kept == round(0.3 * summary.total.tokens_scored)
    assert kept["a"] == kept["b"] != kept["c"]
    ranked = _expected(pairs, [300], {"ratio": 0.3})
    differing = sum(a != b for x, y in zip(kept["cold"], ranked, strict=True) for a, b in zip(x, y, strict=True))
    assert differing < 0.01 * summary.total.tokens  # almost no noise: the best are drawn, but for ties
    even = _select(tmp_path / "even", places, ratio=0.3, sample="random")
    assert even.total.tokens_kept == summary.total.tokens_kept
    assert kept["a"] != _masks(tmp_path / "even")


def test_documents_by_share_of_kept_tokens(folder: Path, tmp_path: Path, pairs: list[tuple[Doc, Doc]]) -> None:
    places = _write(tmp_path, pairs, [9, 9])
    _select(tmp_path / "sel", places, ratio=0.5, level="document", document_score="kept-share", token_ratio=0.4)
    scores = [[_score(r, b) for r, b in zip(ref.loss, base.loss, strict=True)] for ref, base in pairs]
    flat = sorted((x for doc in scores for x in doc), reverse=True)
    threshold = flat[round(0.4 * len(flat)) - 1]
    shares = [float(np.float16(np.mean([x >= threshold for x in doc]))) if doc else math.nan for doc in scores]
    wanted = _ranks([(x, d) for d, x in enumerate(shares)], {"ratio": 0.5})
    assert _masks(tmp_path / "sel") == [[d in wanted] * len(doc) for d, doc in enumerate(scores)]


@pytest.mark.parametrize("sizes", [[9, 9], [3] * 60])
def test_documents_then_tokens(folder: Path, tmp_path: Path, pairs: list[tuple[Doc, Doc]], sizes: list[int]) -> None:
    places = _write(tmp_path, pairs, sizes)
    _select(tmp_path / "documents", places, ratio=0.4, level="document")
    _select(tmp_path / "sel", places, ratio=0.3, within=str(tmp_path / "documents"))
    inside = [any(mask) for mask in _masks(tmp_path / "documents")]
    assert 0 < sum(inside) < len(inside)
    scores = [
        [_score(r, b) if kept else math.nan for r, b in zip(ref.loss, base.loss, strict=True)]
        for (ref, base), kept in zip(pairs, inside, strict=True)
    ]
    flat = [(x, i) for i, x in enumerate(x for doc in scores for x in doc)]
    wanted = _ranks(flat, {"ratio": 0.3})
    found = [value for mask in _masks(tmp_path / "sel") for value in mask]
    assert [i for i, kept in enumerate(found) if kept] == sorted(wanted)
    with pytest.raises(InputError, match="was begun with other settings"):
        _select(tmp_path / "sel", places, ratio=0.3)
    other = tmp_path / "other"
    other.mkdir()
    _select(tmp_path / "elsewhere", _write(other, pairs, [7] * 20), ratio=0.4, level="document")
    with pytest.raises(InputError, match="--within"):
        _select(tmp_path / "sel2", places, ratio=0.3, within=str(tmp_path / "elsewhere"))


def test_an_interrupted_selection_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pairs = random_documents(200, seed=8, values=[0.5, 1.0, 2.0])  # ties everywhere
    places = _write(tmp_path, pairs, [3] * 60)
    for options in (
        {"ratio": 0.37},
        {"ratio": 0.37, "sample": "gumbel"},
        {"tokens": 321, "level": "document", "drop_top": 0.1},
    ):
        sel = tmp_path / "sel"
        shutil.rmtree(sel, ignore_errors=True)
        _select(sel, places, **options)
        before = digests(sel)
        files = sorted((sel / "data").iterdir())
        for path in [*files[1::3], *sorted((sel / "counts").iterdir())[::2], sel / "summary.json"]:
            path.unlink()
        assert _select(sel, places, **options).computed == len(files[1::3])
        assert digests(sel) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0.5, "tokens": 3}, "exactly one"),
        ({}, "exactly one"),
        ({"ratio": 1.5}, "between 0 and 1"),
        ({"ratio": 0.5, "drop_top": -0.1}, "--drop-top must be a share"),
        ({"tokens": 5, "per_group": True}, "--quota"),
        ({"tokens": 5, "scope": "document"}, "--scope document"),
        ({"ratio": 0.5, "scope": "batch"}, "--batch-tokens"),
        ({"ratio": 0.5, "batch_tokens": 9}, "--batch-tokens"),
        ({"threshold": 0.5, "sample": "gumbel"}, "--sample"),
        ({"ratio": 0.5, "sample": "gumbel", "temperature": 0.0}, "--temperature"),
        ({"ratio": 0.5, "level": "document", "min_run": 2}, "--min-run"),
        ({"ratio": 0.5, "document_score": "per-byte"}, "--level document"),
        ({"ratio": 0.5, "level": "document", "document_score": "kept-share"}, "--token-ratio"),
        ({"quota": ("a=0.3",), "ratio": 0.5}, "leave out --ratio"),
        ({"quota": ("a=x",)}, "not a number"),
        ({"quota": ("a=0.5", "a=0.2")}, "two quotas"),
        ({"ratio": 0.5, "workers": 0}, "--workers must be at least 1"),
        ({"ratio": 0.5, "sample": "gumbel", "temperature": math.inf}, "--temperature"),
        ({"quota": ("a=1.5",)}, "between 0.0 and 1.0"),
        ({"ratio": 0.5, "share": ("one=0.3",)}, "--share"),
        ({"ratio": 0.5, "expert_masks": True}, "--combine union"),
        ({"threshold": math.nan}, "nan"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        select(SelectConfig(output=str(tmp_path / "sel"), ref=f"{tmp_path}/ref", base=f"{tmp_path}/base", **options))


def test_references_are_told_apart(tmp_path: Path) -> None:
    for refs, words in ((("a", "b"), "Name each"), (("base=x",), "base"), ((), "--ref is missing")):
        with pytest.raises(InputError, match=words):
            select(SelectConfig(output="o", ref=refs, ratio=0.5))


def test_sets_that_hold_other_documents_are_refused(folder: Path, tmp_path: Path, pairs: list[tuple[Doc, Doc]]) -> None:
    places = _write(tmp_path, pairs, [9, 9])
    refs = [ref for ref, _ in pairs]
    write_scores(tmp_path / "short", [cut(refs[:-1], [20])])
    with pytest.raises(RhoScoreError, match=r"different numbers of scored documents: shard-0.parquet: 50 and 49"):
        _select(tmp_path / "s1", {"ref": f"{tmp_path}/short", "base": places["base"]}, ratio=0.5)
    at = next(i for i, doc in enumerate(refs) if doc.ids)
    changed = [
        *refs[:at],
        Doc(refs[at].doc_id, refs[at].group, [99, *refs[at].ids[1:]], refs[at].loss),
        *refs[at + 1 :],
    ]
    write_scores(tmp_path / "changed", [cut(changed, [20])])
    with pytest.raises(RhoScoreError, match="tokens differ from position 0 on"):
        _select(tmp_path / "s2", {"ref": f"{tmp_path}/changed", "base": places["base"]}, ratio=0.5)
    write_scores(tmp_path / "other", [cut(refs, [9, 9])], context=16)
    with pytest.raises(InputError, match="context: base 32, ref 16"):
        _select(tmp_path / "s4", {"ref": f"{tmp_path}/other", "base": places["base"]}, ratio=0.5)
    assert not (tmp_path / "s4").exists()
    write_scores(tmp_path / "same", [cut(changed, [9, 9])])
    with pytest.raises(RhoScoreError, match="do not hold the same documents") as error:
        _select(tmp_path / "s5", {"ref": f"{tmp_path}/same", "base": places["base"]}, ratio=0.5)
    for word in (f"{places['base']}/data/shard-0", f"{tmp_path}/same/data/shard-0", "tokens differ from position 0 on"):
        assert word in str(error.value)
    assert not (tmp_path / "s5" / "summary.json").exists()
    write_scores(tmp_path / "more", [cut(refs, []), [refs[:1]]])
    with pytest.raises(InputError, match=r"from different files: 1 shards .* such as shard-1.parquet"):
        _select(tmp_path / "s3", {"ref": f"{tmp_path}/more", "base": places["base"]}, ratio=0.5)


def test_scores_stored_in_float32_are_ranked_in_float32(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pairs = [
        (Doc(f"d{i}", None, [1] * 20, rng.normal(2, 1e-4, 20).astype(np.float32).tolist()),
         Doc(f"d{i}", None, [1] * 20, rng.normal(2, 1e-4, 20).astype(np.float32).tolist()))
        for i in range(20)
    ]  # fmt: skip
    for i, name in enumerate(("ref", "base")):
        write_scores(tmp_path / name, [cut([p[i] for p in pairs], [4, 4])], grouped=False, precision="float32")
    places = {name: f"{tmp_path}/{name}" for name in ("ref", "base")}
    flat = np.concatenate([np.float32(b.loss) - np.float32(r.loss) for r, b in pairs])
    for n in (1, 37, 399):
        summary = _select(tmp_path / f"{n}", places, tokens=n)
        wanted = np.zeros(len(flat), bool)
        wanted[np.argsort(-flat, kind="stable")[:n]] = True
        assert np.concatenate(_masks(tmp_path / f"{n}")).tolist() == wanted.tolist()
        assert summary.thresholds[None] == flat[wanted].min()
    cut_at = float(np.sort(flat)[100])
    _select(tmp_path / "cut", places, threshold=cut_at)
    assert np.concatenate(_masks(tmp_path / "cut")).tolist() == (flat >= np.float32(cut_at)).tolist()


def test_documents_by_share_of_low_losses_and_infinite_scores(folder: Path, tmp_path: Path) -> None:
    docs = [Doc(f"d{i}", None, [1] * 4, [loss] * 4) for i, loss in enumerate((5.0, 0.0, 9.0))]
    write_scores(tmp_path / "ref", [cut(docs, [])])
    options = {"ratio": 0.34, "level": "document", "document_score": "kept-share", "token_ratio": 0.34}
    _select(tmp_path / "share", {"ref": f"{tmp_path}/ref"}, **options)
    assert [mask[0] for mask in _masks(tmp_path / "share")] == [False, True, False]
    inf = math.inf
    pairs = [(Doc("a", None, [1] * 4, [1.0, 2.0, inf, inf]), Doc("a", None, [1] * 4, [3.0, 3.0, 1.0, inf]))]
    for i, precision in enumerate(("float16", "float32")):
        for j, name in enumerate(("ref", "base")):
            write_scores(tmp_path / f"{i}{name}", [[[pair[j] for pair in pairs]]], precision=precision)
        places = {name: f"{tmp_path}/{i}{name}" for name in ("ref", "base")}
        _select(tmp_path / f"{i}all", places, ratio=1.0)
        assert _masks(tmp_path / f"{i}all") == [[True, True, True, False]]  # -inf is a score, inf - inf is none
        again = _select(tmp_path / f"{i}all", places, ratio=1.0)
        assert again.cuts == _select(tmp_path / f"{i}all", places, ratio=1.0).cuts


def test_shares_hold_within_documents_and_runs_after_the_union(folder: Path, tmp_path: Path) -> None:
    base = [Doc("a", None, [1] * 10, [9.0] * 10)]
    write_scores(tmp_path / "base", [[base]])
    for name, order in (("one", range(10)), ("two", range(9, -1, -1))):
        write_scores(tmp_path / name, [[[Doc("a", None, [1] * 10, [float(i) for i in order])]]])
    refs = (f"one={tmp_path}/one", f"two={tmp_path}/two")
    both = {"ref": refs, "base": f"{tmp_path}/base", "combine": "union"}
    summary = _select(tmp_path / "scope", both, scope="document", ratio=0.1, share=("two=0.4",))
    assert summary.total.tokens_kept == 5
    write_scores(tmp_path / "odd", [[[Doc("a", None, [1] * 10, [5.0, 0.0, *[5.0] * 8])]]])
    options = both | {"ref": (refs[0], f"odd={tmp_path}/odd"), "ratio": 0.1, "min_run": 2, "expert_masks": True}
    _select(tmp_path / "run", options)
    assert _masks(tmp_path / "run") == [[True, True, *[False] * 8]]


def test_an_error_of_the_first_unit_ends_the_run_at_once(folder: Path, tmp_path: Path) -> None:
    pairs = random_documents(200, seed=11, longest=6)
    places = _write(tmp_path, pairs, [1] * 199)
    at = next(i for i, (ref, _) in enumerate(pairs) if ref.ids)
    refs = [ref for ref, _ in pairs]
    refs[at] = Doc(refs[at].doc_id, refs[at].group, [99, *refs[at].ids[1:]], refs[at].loss)
    write_scores(tmp_path / "wrong", [cut(refs, [1] * 199)])
    with pytest.raises(RhoScoreError, match="tokens differ from position 0 on"):
        _select(tmp_path / "sel", {"ref": f"{tmp_path}/wrong", "base": places["base"]}, ratio=0.5, workers=1)
    assert len(list((tmp_path / "sel").glob("counts/*"))) < 33 - 1


@pytest.mark.parametrize("options", [["--ratio", "0.37"], ["--tokens", "200", "--level", "document"]])
def test_without_a_cluster_threads_give_the_same_bytes(folder: Path, tmp_path: Path, options: list[str]) -> None:
    places = _write(tmp_path, random_documents(200, seed=12, values=[0.5, 1.0, 2.0]), [3] * 60)
    arguments = ["select", "--ref", places["ref"], "--base", places["base"]]
    assert main([*arguments, f"{tmp_path}/ray", *options]) == 0
    program = (
        "import sys; from rho_score.cli import main; code = main(sys.argv[1:]); sys.exit(code or 'ray' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", program, *arguments, f"{tmp_path}/alone", *options]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert digests(tmp_path / "alone") == digests(tmp_path / "ray")
