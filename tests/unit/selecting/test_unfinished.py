"""Selections from unfinished score sets, compared with score sets of only the published units."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from rho_score.config import SelectConfig
from rho_score.errors import InputError
from rho_score.files.json import dump_json
from rho_score.ranking.keys import round_score
from rho_score.reporting.sample import sample_tokens, scores_behind
from rho_score.selecting.job import select
from rho_score.stores.layout import data_name
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.stores import Doc, cut, random_documents, write_scores

Corpus = dict[str, list[list[Doc]]]


def _corpus() -> Corpus:
    pairs = random_documents(30, seed=3)
    return {name: cut([pair[i] for pair in pairs], [6, 6, 6, 6]) for i, name in enumerate(("ref", "base"))}


def _write(folder: Path, corpus: Corpus) -> dict[str, Path]:
    return {name: write_scores(folder / name, [units]) for name, units in corpus.items()}


def _unfinish(scores: Path, missing: list[int]) -> None:
    """Removes the units of these numbers, and the file that says that the set is finished."""
    for i in missing:
        (scores / data_name(ScoreSet.open(str(scores)).units[i].unit)).unlink()
    (scores / "_SUCCESS.json").unlink()


def _config(places: dict[str, Path], output: Path, *, unfinished: bool = True, dry_run: bool = False) -> SelectConfig:
    return SelectConfig(
        ref=(str(places["ref"]),), base=str(places["base"]), output=str(output), ratio=0.4, per_group=True,
        allow_unfinished=unfinished, dry_run=dry_run,
    )  # fmt: skip


def _rows(output: Path) -> list[dict[str, object]]:
    selection = Selection.open(str(output))
    return [row for unit in selection.units for row in selection.unit_table(unit.unit).to_pylist()]


def test_what_both_sets_have_is_selected_as_if_there_were_no_more(tmp_path: Path) -> None:
    corpus = _corpus()
    places = _write(tmp_path, corpus)
    _unfinish(places["ref"], [1])
    _unfinish(places["base"], [3])
    only = _write(tmp_path / "only", {name: [units[i] for i in (0, 2, 4)] for name, units in corpus.items()})

    foreseen = select(_config(places, tmp_path / "sel", dry_run=True))
    assert not (tmp_path / "sel").exists()
    summary = select(_config(places, tmp_path / "sel"))
    assert (summary.units, summary.planned, summary.computed) == (3, 5, 3)
    expected = select(_config(only, tmp_path / "expected", unfinished=False))
    assert summary.total == expected.total
    assert summary.cuts == expected.cuts == foreseen.cuts
    assert _rows(tmp_path / "sel") == _rows(tmp_path / "expected")
    selection = Selection.open(str(tmp_path / "sel"))
    noted = selection.manifest["parts"]["unfinished"]
    assert (noted["units"], noted["of"]) == (3, 5)
    for given in ({}, {name: str(place) for name, place in places.items()}):
        sample = sample_tokens(selection, n_tokens=1 << 20, **scores_behind(selection, **given))
        assert sample.ref_loss is not None
        assert sample.base_loss is not None
        scored = ~np.isnan(sample.score)
        excess = round_score(sample.base_loss.astype(np.float32) - sample.ref_loss)
        assert np.array_equal(excess[scored], sample.score[scored].astype(np.float16)), "losses of other tokens"


def test_a_selection_keeps_the_units_that_it_began_with(tmp_path: Path) -> None:
    places = _write(tmp_path, _corpus())
    there = places["ref"] / data_name(ScoreSet.open(str(places["ref"])).units[1].unit)
    content, success = there.read_bytes(), (places["ref"] / "_SUCCESS.json").read_bytes()
    _unfinish(places["ref"], [1])
    select(_config(places, tmp_path / "sel"))
    before = _rows(tmp_path / "sel")
    (tmp_path / "sel" / "summary.json").unlink()
    next((tmp_path / "sel" / "data").iterdir()).unlink()

    there.write_bytes(content)
    (places["ref"] / "_SUCCESS.json").write_bytes(success)
    assert select(_config(places, tmp_path / "sel", dry_run=True)).units == 4
    resumed = select(_config(places, tmp_path / "sel"))
    assert (resumed.units, resumed.computed) == (4, 1)
    assert _rows(tmp_path / "sel") == before
    with pytest.raises(InputError, match=r"unfinished: there .*, now None"):
        select(_config(places, tmp_path / "sel", unfinished=False))
    whole = select(_config(places, tmp_path / "whole"))
    assert whole.units == whole.planned == 5
    assert "unfinished" not in Selection.open(str(tmp_path / "whole")).manifest["parts"]


def test_an_unfinished_set_is_refused_unless_asked_for(tmp_path: Path) -> None:
    places = _write(tmp_path, _corpus())
    _unfinish(places["base"], [0])
    with pytest.raises(InputError, match=r"base is not finished: it has no _SUCCESS.json.*--allow-unfinished"):
        select(_config(places, tmp_path / "sel", unfinished=False))
    _unfinish(places["ref"], [1, 2, 3, 4])
    with pytest.raises(InputError, match=r"no unit is published in all score sets yet\. Not finished: .*base, .*ref"):
        select(_config(places, tmp_path / "sel"))
    assert not (tmp_path / "sel").exists()


def test_unfinished_sets_that_are_cut_otherwise_are_refused(tmp_path: Path) -> None:
    corpus = _corpus()
    documents = [doc for unit in corpus["ref"] for doc in unit]
    places = _write(tmp_path, corpus | {"ref": cut(documents, [10, 10])})
    for name in ("base", "ref"):  # then none of the units' names is in both
        _unfinish(places[name], [0])
        with pytest.raises(
            InputError, match=r"ref is cut into other units than .*base\. Such sets can be joined only when both"
        ):
            select(_config(places, tmp_path / "sel"))


def test_score_sets_that_were_mended_since_are_others(tmp_path: Path) -> None:
    places = _write(tmp_path, _corpus())
    config = _config(places, tmp_path / "sel")
    select(config)
    assert scores_behind(Selection.open(str(tmp_path / "sel"))).keys() == places.keys()
    done = places["ref"] / "_SUCCESS.json"
    totals = orjson.loads(done.read_bytes())
    done.write_bytes(dump_json(totals | {"scored": totals["scored"] + 1, "quarantined": totals["quarantined"] - 1}))
    with pytest.raises(InputError, match=r"held: there .*now"):
        select(config)
    assert scores_behind(Selection.open(str(tmp_path / "sel"))).keys() == {"base"}
    with pytest.raises(InputError, match="is not the score set that"):
        scores_behind(Selection.open(str(tmp_path / "sel")), ref=str(places["ref"]))


def test_what_is_kept_is_told_to_the_document_and_the_token(tmp_path: Path) -> None:
    same = [Doc(f"d{i}", "ab"[i % 2], list(range(10)), [1.0] * 10) for i in range(10)]
    ref = str(write_scores(tmp_path / "same", [[same]]))
    budget = SelectConfig(ref=(ref,), output=str(tmp_path / "sel"), tokens=30, drop_top=0.2, level="document")
    summary = select(budget)
    assert summary.cuts[0]["kept"] == summary.total.documents_kept == 3
    two = [Doc("a", "a", [1], [1.0]), Doc("b", "b", [1], [1.0])]
    ref = str(write_scores(tmp_path / "two", [[two]]))
    for dry_run in (True, False):
        summary = select(SelectConfig(ref=(ref,), output=str(tmp_path / "one"), ratio=0.5, dry_run=dry_run))
        assert summary.total.tokens_kept == 1
