"""Losses of the same tokens are taken from another score set, and only of the same tokens."""

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rho_score.errors import InputError, RhoScoreError
from rho_score.inference.scored import Scored
from rho_score.models.load import ModelSource
from rho_score.scoring.blocks import COUNTS, TOKENIZED
from rho_score.scoring.copies import Found
from rho_score.scoring.reuse import add_known, find_known, open_reusable
from rho_score.scoring.settings import ScorerSettings
from rho_score.scoring.unit_stats import read_stats
from rho_score.scoring.unit_work import UnitWork
from rho_score.scoring.worker import ScoreUnit, WorkerSettings
from rho_score.stores.score_set import ScoreSet
from tests.stores import Doc, write_scores


def _documents(n: int) -> list[Doc]:
    """Documents with losses that are multiples of 1/8; some have no loss for tokens that do not count."""
    draw = random.Random(0)
    found = []
    for i in range(n):
        ids = [draw.randrange(400) for _ in range(draw.randint(0, 20))]
        counting = [i % 3 > 0 or draw.random() < 0.5 for _ in ids]
        loss = [draw.randrange(80) / 8 if counts else None for counts in counting]
        found.append(Doc(f"d{i}", None, ids, loss))
    return found


def _older(folder: Path, documents: list[Doc], **parts: Any) -> ScoreSet:
    """A score set of three units."""
    units = [documents[0::3], documents[1::3], documents[2::3]]
    return ScoreSet.open(str(write_scores(folder, [units], **{"signals": [], **parts})))


def _block(rows: list[tuple[list[int], list[bool]]]) -> pa.Table:
    table = [
        {"unit": "new", "doc_id": f"n{i}", "input_ids": ids, "counts": counts} for i, (ids, counts) in enumerate(rows)
    ]
    return pa.Table.from_pylist(table, schema=TOKENIZED.append(COUNTS))


def test_documents_are_found_anywhere_by_their_tokens_and_what_counts(tmp_path: Path) -> None:
    documents = _documents(60)
    known = find_known(_older(tmp_path / "old", [*documents, *documents[:9]]))
    rows: list[tuple[list[int], list[bool]]] = []
    expected: list[list[float | None] | None] = []
    draw = random.Random(1)
    for document in draw.sample(documents, 40):
        counts = [loss is not None for loss in document.loss]
        rows.append((document.ids, counts))
        expected.append(document.loss if document.ids else None)
        if document.ids:
            rows += [([*document.ids, 7], [*counts, True]), (document.ids, [not counts[0], *counts[1:]])]
            expected += [None, None]
    found = add_known(_block(rows), known=known, signals=(), prefix=True, hidden=False)
    assert found["known"].to_pylist() == [one is not None for one in expected]
    for value, one in zip(found["known_loss"].to_pylist(), expected, strict=True):
        if one is not None:
            assert np.array_equal(value, np.array(one, np.float32), equal_nan=True)
        else:
            assert np.isnan(np.array(value, np.float32)).all()


def test_the_first_token_without_a_prefix_has_no_loss_on_either_side(tmp_path: Path) -> None:
    known = find_known(_older(tmp_path / "old", [Doc("a", None, [5, 6, 7], [None, 1.5, 2.5])]))
    block = _block([([5, 6, 7], [True] * 3)])
    assert add_known(block, known=known, signals=(), prefix=False, hidden=False)["known"].to_pylist() == [True]
    assert add_known(block, known=known, signals=(), prefix=True, hidden=False)["known"].to_pylist() == [False]
    nothing = find_known(_older(tmp_path / "empty", []))
    assert add_known(block, known=nothing, signals=(), prefix=False, hidden=False)["known"].to_pylist() == [False]


def _loss(read: list[int]) -> float:
    """The loss of the last of these tokens: any number that tells what was read."""
    return (hash(tuple(read)) % 64) / 8


def _scores(documents: list[np.ndarray], *, prefix: bool) -> Found:
    """What a scorer returns for documents, of which it reads every token."""
    loss = [
        np.array([_loss(ids.tolist()[: i + 1]) if i or prefix else np.nan for i in range(len(ids))], np.float32)
        for ids in documents
    ]
    return Scored(loss=loss, signals={}, rescored=0, positions=0, padding=0), {}


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=6), max_size=9),
    hidden=st.booleans(),
    prefix=st.booleans(),
    shuffled=st.randoms(use_true_random=False),
)
def test_losses_that_are_reused_are_those_of_scoring(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[tuple[int, bool]]],
    hidden: bool,
    prefix: bool,
    shuffled: random.Random,
) -> None:
    """With a context that is hidden or not, a prefix or none, wherever the tokens that count begin."""
    documents = []
    for i, row in enumerate(rows):
        read: list[int] = []
        loss: list[float | None] = []
        for token, counts in row:
            read += [token] if counts or not hidden else []
            loss.append(_loss(read) if counts and (prefix or len(read) > 1) else None)
        documents.append(Doc(f"d{i}", None, [token for token, _ in row], loss))
    known = find_known(_older(tmp_path_factory.mktemp("reuse") / "old", documents))
    order = shuffled.sample(range(len(rows)), len(rows))
    block = _block([([token for token, _ in rows[i]], [counts for _, counts in rows[i]]) for i in order])
    work = UnitWork.of(block, hide_context=hidden)
    scored, _ = work.score(lambda ids: _scores(ids, prefix=prefix))
    again = UnitWork.of(add_known(block, known=known, signals=(), prefix=prefix, hidden=hidden), hide_context=hidden)
    assert all(not len(again.ids[i]) for i in again.todo), "whatever has tokens is known"
    reused, _ = again.score(lambda ids: _scores(ids, prefix=prefix))
    expected = [documents[i].loss for i in order]
    for of, found in ((work, scored), (again, reused)):
        assert of.table(found, [None] * len(rows), (), "float16")["loss"].to_pylist() == expected


def test_a_score_set_made_in_another_way_is_refused(tmp_path: Path) -> None:
    older = _older(tmp_path / "old", _documents(6), signals=["rank"])
    url, there = older.folder.url, older.manifest["parts"]
    same = there | {"plan_sha256": "other", "unit_bytes": 3, "text_column": "body", "id_column": None}
    assert open_reusable(url, same).folder.url == url
    with pytest.raises(InputError, match=r"context: there 32, now 64"):
        open_reusable(url, same | {"context": 64})
    with pytest.raises(InputError, match=r"weights_sha256: there None, now 'x'"):
        open_reusable(url, same | {"weights_sha256": "x"})
    with pytest.raises(InputError, match=re.escape("it has no entropy (--signals)")):
        open_reusable(url, same | {"signals": ["entropy", "rank"]})
    (tmp_path / "old" / "_SUCCESS.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        open_reusable(url, same)


class _Scorer:
    """A scorer whose losses are the token ids, and that remembers what it was given."""

    weight_note, overflow, signals = "", "overflow", ()

    def __init__(self) -> None:
        self.given: list[list[int]] = []

    def score(self, ids: list[np.ndarray], on_tokens: Any) -> Scored:
        self.given += [document.tolist() for document in ids]
        return Scored(loss=[of.astype(np.float32) for of in ids], signals={}, rescored=0, positions=0, padding=0)

    def is_finite(self, loss: np.ndarray) -> bool:
        return bool(np.isfinite(loss).all())


class _Reporter:
    """Tells nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self

    def __call__(self, *arguments: Any) -> None: ...


def _worker(scorer: _Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ScoreUnit:
    monkeypatch.setattr("rho_score.scoring.worker._load", lambda worker, reporter, purse: scorer)
    monkeypatch.setattr("rho_score.scoring.worker.node_name", lambda: "node")
    monkeypatch.setattr("rho_score.scoring.worker.alive_nodes", lambda: {"node"})
    worker = WorkerSettings(
        scorer=ScorerSettings(
            model=ModelSource(model="m"), dtype="float32", context=8, overlap=0, prefix_id=0, batch_tokens=None,
            signals=(), compile=False,
        ),
        identity={}, threads=1, gpus=0, precision="float16", output=str(folder), run="a", limit_s=60,
        hide_context=False,
    )  # fmt: skip
    return ScoreUnit(worker, _Reporter())  # type: ignore[arg-type]


def test_a_worker_computes_what_is_not_known_and_each_tokens_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = _Scorer()
    known = find_known(_older(tmp_path / "old", [Doc("a", None, [5, 6], [0.5, None]), Doc("b", None, [9], [0.25])]))
    counts = [[True, False], [True], [True, True], [True, True], [], [True, False]]
    ids = [[5, 6], [9], [5, 6], [5, 6], [], [8, 8]]
    block = add_known(_block(list(zip(ids, counts, strict=True))), known=known, signals=(), prefix=True, hidden=False)
    scored = _worker(scorer, tmp_path / "out", monkeypatch)(block)
    assert scored["loss"].to_pylist() == [[0.5, None], [0.25], [5.0, 6.0], [5.0, 6.0], [], [8.0, None]]
    assert scored["error"].to_pylist() == [None] * 6
    assert scorer.given == [[5, 6], [], [8, 8]]
    stats = read_stats(scored)
    assert (stats.reused, stats.copied) == (2, 1)


class _Failing(_Scorer):
    """Fails on documents that begin with 9."""

    def score(self, ids: list[np.ndarray], on_tokens: Any) -> Scored:
        if any(document[:1] == 9 for document in ids):
            raise ValueError("a nine")
        return super().score(ids, on_tokens)


def test_a_unit_of_which_only_failing_documents_are_left_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = find_known(_older(tmp_path / "old", [Doc("a", None, [5, 6], [0.5, 0.25])]))
    worker = _worker(_Failing(), tmp_path / "out", monkeypatch)
    block = _block([(ids, [True] * 2) for ids in ([9, 1], [5, 6], [9, 2])])
    scored = worker(add_known(block, known=known, signals=(), prefix=True, hidden=False))
    assert scored["error"].to_pylist() == [reason := "the model fails on it: ValueError: a nine", None, reason]
    assert scored["loss"].to_pylist() == [[None, None], [0.5, 0.25], [None, None]]
    with pytest.raises(RhoScoreError, match="2 documents fail"):
        worker(block.take([0, 2]))
