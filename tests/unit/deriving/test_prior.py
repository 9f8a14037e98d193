"""Frequencies of tokens as losses, against numpy's bincount over all tokens at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rho_score.cli import main
from rho_score.config import PriorConfig, SelectConfig
from rho_score.deriving import units
from rho_score.deriving.prior import losses_of, prior
from rho_score.errors import InputError, RhoScoreError
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from tests.ray.conftest import digests
from tests.stores import Doc, cut, random_documents, write_scores


def _documents(n: int, seed: int) -> list[Doc]:
    return [pair[0] for pair in random_documents(n, seed=seed, values=[None, 0.5, 2.0])]


def _flat(store: Path) -> tuple[np.ndarray, np.ndarray]:
    scores = ScoreSet.open(str(store))
    rows = [row for unit in scores.units for row in scores.unit_table(unit.unit).to_pylist()]
    ids = np.array([i for row in rows for i in row["input_ids"]], np.int64)
    return ids, np.array([np.nan if x is None else x for row in rows for x in row["loss"]])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 0.25])
def test_a_token_has_the_loss_of_its_share(
    tmp_path: Path, make_model: Callable[[int], Path], alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNITS_PER_BATCH", 2)
    documents = _documents(50, 4)
    like = write_scores(
        tmp_path / "s", [cut(documents[:30], [4, 1, 9]), cut(documents[30:], [])], tokenizer=make_model(1)
    )
    summary = prior(PriorConfig(scores=str(like), output=str(tmp_path / "out"), alpha=alpha, precision="float32"))
    ids, losses = _flat(like)
    known = ~np.isnan(losses)
    counts = np.bincount(ids[known], minlength=400)
    expected = -np.log((counts + alpha) / (counts.sum() + alpha * 400), where=counts + alpha > 0, out=np.zeros(400))
    same_ids, found = _flat(tmp_path / "out")
    assert np.array_equal(same_ids, ids)
    np.testing.assert_allclose(found, np.where(known, expected[ids], np.nan), rtol=1e-6)
    assert (summary.words, summary.words_seen) == (400, int((counts > 0).sum()))
    assert summary.tokens_counted == counts.sum() == summary.counts.losses
    table = pq.read_table(tmp_path / "out" / "prior.parquet")
    assert table["count"].to_pylist() == counts.tolist()
    assert table["token"].to_pylist() == list(range(400))
    if alpha:
        assert np.exp(-table["loss"].to_numpy()).sum() == pytest.approx(1.0)


def test_it_is_counted_in_another_corpus_and_subtracted_from_a_model(
    tmp_path: Path, make_model: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    documents = _documents(30, 1)
    like = write_scores(tmp_path / "s", [[documents]], tokenizer=make_model(1))
    other = write_scores(tmp_path / "o", [[_documents(9, 8)]], tokenizer=make_model(1))
    command = ["prior", str(like), str(tmp_path / "out"), "--counted-in", str(other), "--precision", "float32"]
    assert main(command) == 0
    assert "of the 400 words of the tokenizer occur" in capsys.readouterr().out
    other_ids, other_losses = _flat(other)
    counts = np.bincount(other_ids[~np.isnan(other_losses)], minlength=400)
    ids, losses = _flat(like)
    expected = np.where(np.isnan(losses), np.nan, -np.log((counts[ids] + 1) / (counts.sum() + 400)))
    np.testing.assert_allclose(_flat(tmp_path / "out")[1], expected, rtol=1e-6)
    total = select(
        SelectConfig(output=str(tmp_path / "sel"), ref=(str(like),), base=str(tmp_path / "out"), ratio=0.5)
    ).total
    assert total.tokens_kept == round(0.5 * (~np.isnan(losses)).sum())
    assert main(command) == 0
    assert "is finished already" in capsys.readouterr().out


def test_a_resumed_run_has_the_same_bytes(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    like = write_scores(tmp_path / "s", [cut(_documents(20, 2), [3, 5, 5])], tokenizer=make_model(1))
    prior(PriorConfig(scores=str(like), output=str(tmp_path / "a")))
    prior(PriorConfig(scores=str(like), output=str(tmp_path / "b")))
    whole = digests(tmp_path / "a")
    for name in ("_SUCCESS.json", *sorted(n for n in whole if n.startswith("data/"))[::2]):
        (tmp_path / "b" / name).unlink()
    summary = prior(PriorConfig(scores=str(like), output=str(tmp_path / "b")))
    assert summary.computed == 2
    assert digests(tmp_path / "b") == whole


def test_large_counts_are_exact() -> None:
    counts = np.array([2**40 + 1, 2**40, 0], np.int64)
    total = 2**41 + 1 + 3
    np.testing.assert_allclose(losses_of(counts, 1.0), [-np.log((c + 1) / total) for c in counts.tolist()], rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "--alpha must not be negative, got -1.0"),
        ({"alpha": float("inf")}, "--alpha must not be negative, got inf"),
        ({"alpha": 0.0, "counted_in": "x"}, "--alpha must be above 0 with --counted-in"),
        ({"workers": 0}, "--workers must be at least 1"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prior(PriorConfig(scores=str(tmp_path / "s"), output=str(tmp_path / "out"), **options))


def test_another_tokenizer_is_refused(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    like = write_scores(tmp_path / "s", [[_documents(3, 0)]], tokenizer=make_model(1))
    other = write_scores(tmp_path / "o", [[_documents(3, 0)]], tokenizer=make_model(1), tokenizer_sha256="u")
    with pytest.raises(InputError, match="was made with another tokenizer"):
        prior(PriorConfig(scores=str(like), output=str(tmp_path / "out"), counted_in=str(other)))


def test_an_id_that_was_never_counted_and_is_no_word_is_told(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    like = write_scores(tmp_path / "s", [[[Doc("a", None, [3, 500], [1.0, 1.0])]]], tokenizer=make_model(1))
    other = write_scores(tmp_path / "o", [[_documents(3, 0)]], tokenizer=make_model(1))
    with pytest.raises(RhoScoreError, match="holds the token id 500, but the tokenizer has 400 words"):
        prior(PriorConfig(scores=str(like), output=str(tmp_path / "out"), counted_in=str(other)))
