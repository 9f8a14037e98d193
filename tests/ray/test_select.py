"""The selection job compared with numpy's full sort of the stored values."""

import gc
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from rho_score.cli import main
from rho_score.config import SelectConfig
from rho_score.errors import InputError
from rho_score.ranking.keys import round_score
from rho_score.selecting.job import select
from rho_score.selecting.summary import SelectSummary
from rho_score.stores.counts import GroupCounts
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.oracle import full_sort_mask
from tests.ray.conftest import digests


@dataclass
class Flat:
    """A whole store as flat arrays in corpus order."""

    scores: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray  # of each document
    mask: np.ndarray

    @property
    def token_groups(self) -> np.ndarray:
        return np.repeat(self.groups, self.lengths)


def _flat(selection: Path, ref: Path, base: Path | None) -> Flat:
    """The selection's masks, and the scores computed anew from the score sets."""
    chosen, sets = Selection.open(str(selection)), [ScoreSet.open(str(p)) for p in (ref, base) if p]
    scores, lengths, groups, mask = [], [], [], []
    for unit in chosen.units:
        rows = [store.unit_table(unit.unit).to_pylist() for store in sets]
        for i, row in enumerate(chosen.unit_table(unit.unit).to_pylist()):
            assert row["doc_id"] == rows[0][i]["doc_id"]
            assert row["input_ids"] == rows[0][i]["input_ids"]
            losses = [np.array(r[i]["loss"], np.float32) for r in rows]
            values = round_score(losses[0] if base is None else losses[1] - losses[0]).astype(np.float32)
            assert np.array_equal(np.array(row[chosen.score_column], np.float32), values)
            scores.append(values)
            lengths.append(len(values))
            groups.append(row["group"])
            mask.append(np.array(row["mask"], bool))
    return Flat(np.concatenate(scores), np.array(lengths), np.array(groups, object), np.concatenate(mask))


@pytest.fixture
def run(scores: dict[str, Path], tmp_path: Path) -> Callable[..., tuple[SelectSummary, Flat]]:
    def _run(*, base: bool = True, **options: Any) -> tuple[SelectSummary, Flat]:
        places = {"ref": str(scores["ref"]), "base": str(scores["base"]) if base else None}
        summary = select(SelectConfig(output=str(tmp_path / "sel"), **places, **options))
        return summary, _flat(tmp_path / "sel", scores["ref"], scores["base"] if base else None)

    return _run


Run = Callable[..., tuple[SelectSummary, Flat]]


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.6, 1.0])
def test_a_ratio_is_exact_to_the_token(run: Run, ratio: float) -> None:
    summary, flat = run(ratio=ratio)
    n_keep = round(ratio * len(flat.scores))
    assert flat.mask.sum() == summary.total.tokens_kept == n_keep
    assert np.array_equal(flat.mask, full_sort_mask(flat.scores, n_keep, high=True))
    if 0 < ratio < 1:
        threshold = summary.thresholds[None]
        assert flat.scores[flat.mask].min() == threshold


def test_ties_go_to_the_first_in_corpus_order(run: Run) -> None:
    _, flat = run(ratio=0.6)
    threshold = flat.scores[flat.mask].min()
    tied = flat.mask[flat.scores == threshold]
    assert tied.tolist() == sorted(tied.tolist(), reverse=True)


def test_a_budget_is_exact_to_the_token(run: Run) -> None:
    summary, flat = run(tokens=777)
    assert summary.total.tokens_kept == 777
    assert np.array_equal(flat.mask, full_sort_mask(flat.scores, 777, high=True))


def test_without_a_base_low_losses_are_kept(run: Run) -> None:
    summary, flat = run(base=False, ratio=0.3)
    assert np.array_equal(flat.mask, full_sort_mask(flat.scores, summary.total.tokens_kept, high=False))


def test_each_group_has_its_own_threshold(run: Run) -> None:
    summary, flat = run(ratio=0.4, per_group=True)
    for group in "abc":
        mine = flat.token_groups == group
        n_keep = round(0.4 * int(mine.sum()))
        assert summary.groups[group].tokens_kept == n_keep
        assert np.array_equal(flat.mask[mine], full_sort_mask(flat.scores[mine], n_keep, high=True))
    assert set(summary.thresholds) == {"a", "b", "c"}


def test_accounts_and_histogram_agree_with_the_masks(run: Run, tmp_path: Path) -> None:
    summary, flat = run(ratio=0.6)
    for group in "abc":
        mine = flat.token_groups == group
        accounts = summary.groups[group]
        assert accounts.tokens == accounts.tokens_scored == mine.sum()
        assert accounts.tokens_kept == flat.mask[mine].sum()
        assert accounts.documents == (flat.groups == group).sum()
    assert sum(summary.groups.values(), GroupCounts()) == summary.total
    table = Selection.open(str(tmp_path / "sel")).histogram()
    for group in "abc":
        values, counts = np.unique(flat.scores[flat.token_groups == group], return_counts=True)
        mine = table.filter(pc.equal(table["group"], group))
        assert mine["value"].to_pylist() == values.tolist()
        assert mine["count"].to_pylist() == counts.tolist()


def test_an_interrupted_selection_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    run(ratio=0.6)
    before = digests(tmp_path / "sel")
    data, counts = (sorted((tmp_path / "sel" / name).iterdir()) for name in ("data", "counts"))
    for path in [*data[1::2], *counts[::3], tmp_path / "sel" / "summary.json"]:
        path.unlink()
    summary, _ = run(ratio=0.6)
    assert summary.computed == len(data[1::2])
    assert digests(tmp_path / "sel") == before
    again, _ = run(ratio=0.6)
    assert again.computed == 0
    with pytest.raises(InputError, match=r"ratio: there 0\.6, now 0\.7"):
        run(ratio=0.7)


def test_an_unfinished_set_is_refused(scores: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(scores["ref"], tmp_path / "ref")
    (tmp_path / "ref" / "_SUCCESS.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        select(SelectConfig(output=str(tmp_path / "sel"), ref=str(tmp_path / "ref"), ratio=0.6))


def test_where_tasks_fail_the_command_alone_says_why(
    scores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scores["ref"], tmp_path / "ref")
    for path in (tmp_path / "ref" / "data").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    printed: list[str] = []
    monkeypatch.setattr(logging.getLogger("ray._private.worker"), "error", printed.append)
    monkeypatch.delenv("RAY_IGNORE_UNHANDLED_ERRORS", raising=False)
    assert main(["select", "--ref", str(tmp_path / "ref"), str(tmp_path / "sel"), "--ratio", "0.5"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    time.sleep(1)  # others fail after it
    gc.collect()
    assert not printed, "Ray says once more what the command has said"
