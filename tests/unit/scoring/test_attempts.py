"""Workers that die of a document: whoever takes the unit next finds it, in few attempts, on any node and in any run."""

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.inference.scored import Scored
from rho_score.scoring.attempts import FOLDER, MOST_POISONED, Attempts, clear


class _Died(BaseException):
    """The process ends: no handler of errors sees it, and no note is removed."""


def _scored(ids: Sequence[np.ndarray]) -> Scored:
    """Losses that tell how many documents were scored together."""
    loss = [np.full(len(document), document[0] + len(ids) / 1000, np.float32) for document in ids]
    return Scored(loss=loss, signals={"rank": loss}, rescored=0, positions=sum(map(len, ids)), padding=0)


def _documents(n: int) -> list[np.ndarray]:
    return [np.full(3, i, np.int32) for i in range(n)]


def _attempts(folder: Path, *, alive: bool = True, run: str = "run") -> Attempts:
    return Attempts(
        output=Folder(str(folder)), run=run, node="node", alive=lambda: {"node"} if alive else set(), limit_s=100
    )


def _until_done(attempts: Attempts, n: int, deadly: set[int], failing: set[int]) -> tuple[Scored, dict[int, str], int]:
    """The unit scored by one worker after the other; how many of them died."""

    def score(ids: Sequence[np.ndarray]) -> Scored:
        inside = {int(document[0]) for document in ids}
        if inside & deadly:
            raise _Died
        if inside & failing:
            raise ValueError(f"token out of range in {min(inside & failing)}")
        return _scored(ids)

    for deaths in range(2000):
        try:
            return *attempts.score("unit", _documents(n), score), deaths
        except _Died:
            continue
    raise AssertionError("it never ended")


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(n=st.integers(2, 40), alive=st.booleans(), data=st.data())
def test_the_poisoned_documents_and_no_others_are_left_out(
    tmp_path_factory: pytest.TempPathFactory, n: int, alive: bool, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("poison")
    bad = data.draw(st.lists(st.integers(0, n - 1), max_size=min(4, n - 1), unique=True))
    deadly, failing = set(bad[::2]), set(bad[1::2])
    scored, poisoned, deaths = _until_done(_attempts(folder, alive=alive), n, deadly, failing)
    assert set(poisoned) == set(bad)
    good = [document for i, document in enumerate(_documents(n)) if i not in bad]
    expected = iter(_scored(good).loss)
    for i, (loss, rank) in enumerate(zip(scored.loss, scored.signals["rank"], strict=True)):
        wanted = np.full(3, np.nan) if i in bad else next(expected)
        assert np.array_equal(loss, wanted, equal_nan=True)
        assert np.array_equal(rank, wanted, equal_nan=True)
    each = 1 if alive else 4  # a death that is not certain counts a quarter
    assert deaths <= each * (3 + len(deadly) * (math.ceil(math.log2(n)) + 2))
    assert not Folder(str(folder)).names(FOLDER)


@pytest.mark.parametrize("together", [True, False])
def test_what_a_server_refuses_keeps_its_place(tmp_path: Path, together: bool) -> None:
    """Documents are refused beside one that fails, and where parts are all that can be scored."""

    def score(ids: Sequence[np.ndarray]) -> Scored:
        numbers = [int(document[0]) for document in ids]
        if 4 in numbers or (not together and len(ids) > 3):
            raise ValueError("it fails")
        scored = _scored(ids)
        return replace(scored, refused={i: f"no {n}" for i, n in enumerate(numbers) if n % 3 == 2})

    scored, poisoned = _attempts(tmp_path).score("unit", _documents(10), score)
    assert scored.refused == {2: "no 2", 5: "no 5", 8: "no 8"}
    assert set(poisoned) == {4}


def test_a_reason_says_what_is_known(tmp_path: Path) -> None:
    _, poisoned, _ = _until_done(_attempts(tmp_path), 5, {1}, {3})
    assert poisoned == {1: "it killed its worker 2 times when scored alone", 3: "ValueError: token out of range in 3"}


def test_deaths_of_nodes_and_runs_do_not_make_a_document_suspect_soon(tmp_path: Path) -> None:
    """A single document, the worst case: in hand for long, and its nodes vanish."""
    for _ in range(11):
        with pytest.raises(_Died):
            _attempts(tmp_path, alive=False).score("unit", _documents(1), _dying)
    scored, poisoned = _attempts(tmp_path, alive=False).score("unit", _documents(1), _scored)
    assert not poisoned
    assert np.array_equal(scored.loss[0], _scored(_documents(1)).loss[0])


def test_the_count_survives_the_driver(tmp_path: Path) -> None:
    n_deaths = 0
    for i in range(100):
        try:
            _, poisoned = _attempts(tmp_path, run=f"run {i}").score("unit", _documents(1), _dying)
            break
        except _Died:
            n_deaths += 1
    assert n_deaths == 12
    assert set(poisoned) == {0}


def test_where_everything_fails_it_is_not_about_documents(tmp_path: Path) -> None:
    everything = set(range(MOST_POISONED + 10))
    with pytest.raises(
        RhoScoreError, match=r"unit unit: 17 documents fail, each by itself, .* The documents are not the cause"
    ):
        _until_done(_attempts(tmp_path), len(everything), set(), everything)
    with pytest.raises(RhoScoreError, match="2 documents fail"):
        _until_done(_attempts(tmp_path), 2, set(), {0, 1})


@pytest.mark.parametrize("n", [1, 2, MOST_POISONED])
def test_documents_beside_which_others_have_scores_may_all_fail(tmp_path: Path, n: int) -> None:
    """With `--reuse`, the documents that failed before may be all that are left of a unit."""

    def fails(ids: Sequence[np.ndarray]) -> Scored:
        if ids:
            raise ValueError("too odd")
        return Scored(loss=[], signals={}, rescored=0, positions=0, padding=0)

    scored, poisoned = _attempts(tmp_path).score("unit", _documents(n), fails, n_known=1)
    assert poisoned == dict.fromkeys(range(n), "ValueError: too odd")
    assert all(np.isnan(loss).all() for loss in scored.loss)
    if n > 1:
        with pytest.raises(RhoScoreError, match=f"{n} documents fail"):
            _attempts(tmp_path).score("unit", _documents(n), fails)
    with pytest.raises(RhoScoreError, match=f"{MOST_POISONED + 1} documents fail"):
        _attempts(tmp_path).score("unit", _documents(MOST_POISONED + 1), fails, n_known=1000)


def test_documents_that_only_fail_together_are_scored_apart(tmp_path: Path) -> None:
    def score(ids: Sequence[np.ndarray]) -> Scored:
        if len(ids) > 3:
            raise MemoryError("too many")
        return _scored(ids)

    scored, poisoned = _attempts(tmp_path).score("unit", _documents(10), score)
    assert not poisoned
    assert [int(loss[0]) for loss in scored.loss] == list(range(10))


def test_a_worker_that_hangs_is_ended_and_says_so(tmp_path: Path) -> None:
    program = (
        "import sys, time; from dataclasses import replace; from pathlib import Path;"
        "from tests.unit.scoring.test_attempts import _attempts, _documents;"
        "replace(_attempts(Path(sys.argv[1])), limit_s=0.5).score('unit', _documents(1), lambda ids: time.sleep(600))"
    )
    for _ in range(2):
        with pytest.raises(_Died):
            _attempts(tmp_path).score("unit", _documents(1), _dying)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=300)
    assert done.returncode == 1
    _, poisoned = _attempts(tmp_path).score("unit", _documents(1), _dying)
    assert poisoned == {0: "it killed its worker 3 times when scored alone: not done after 0.5 s (--unit-timeout)"}


def test_what_is_left_at_the_end_is_removed(tmp_path: Path) -> None:
    with pytest.raises(_Died):
        _attempts(tmp_path).score("a~unit", _documents(2), _dying)
    assert len(Folder(str(tmp_path)).names(FOLDER)) == 1
    clear(Folder(str(tmp_path)))
    assert not Folder(str(tmp_path)).names(FOLDER)


def _dying(ids: Sequence[np.ndarray]) -> Scored:
    if ids:
        raise _Died
    return _scored(ids)
