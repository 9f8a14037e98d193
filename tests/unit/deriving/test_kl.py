"""Divergences from stored candidates, against the whole distributions that they are from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rho_score.cli import main
from rho_score.config import KLConfig, ReportConfig
from rho_score.deriving.kl import kl
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.parquet import parquet_bytes
from rho_score.reporting.page import report
from rho_score.stores.layout import data_name
from rho_score.stores.schema import score_schema
from rho_score.stores.score_set import ScoreSet
from tests.stores import Doc, cut, write_scores

WORDS, K = 30, 6


def _models(n_documents: int) -> tuple[list[list[int]], list[list[np.ndarray]]]:
    """The tokens of documents, and under each of two models the log-probabilities of all words at each token."""
    rng = np.random.default_rng(7)
    ids = [rng.integers(0, WORDS, int(rng.integers(0, 9))).tolist() for _ in range(n_documents)]
    logits = [rng.normal(size=(len(own), WORDS)) * 2 for own in ids]
    models = []
    for _ in range(2):
        own = [z + rng.normal(size=z.shape) * 0.8 for z in logits]
        models.append([z - np.log(np.exp(z).sum(axis=1, keepdims=True)) for z in own])
    return ids, models


def _store(folder: Path, ids: list[list[int]], log_p: list[np.ndarray], **parts: Any) -> Path:
    """A score set with the candidates of these distributions; the first token of each document has none."""
    losses = [
        [None, *(-of[i, own[i]] for i in range(1, len(own)))][: len(own)] for own, of in zip(ids, log_p, strict=True)
    ]
    documents = [Doc(f"d{i}", "g", own, loss) for i, (own, loss) in enumerate(zip(ids, losses, strict=True))]
    write_scores(folder, [cut(documents, [3, 4])], precision="float32", signals=["top-k"], top_k=K, **parts)
    store, at = ScoreSet.open(str(folder)), 0
    schema = score_schema(grouped=True, signals=("top-k",))
    for unit in store.units:
        table, about = store.read_unit(unit.unit)
        part = log_p[at : at + len(table)]
        at += len(table)
        words = [[None, *np.argsort(-of, axis=1)[1:, :K].tolist()][: len(of)] for of in part]
        best = [[None, *(-np.sort(-of, axis=1))[1:, :K].tolist()][: len(of)] for of in part]
        columns = [
            *table.columns,
            pa.array(words, schema.field("top_ids").type),
            pa.array(best, schema.field("top_log_p").type),
        ]
        Folder(str(folder)).publish(
            data_name(unit.unit), parquet_bytes(pa.table(columns, schema=schema), schema, about)
        )
    return folder


def _losses(store: Path) -> list[list[float | None]]:
    scores = ScoreSet.open(str(store))
    return [row["loss"] for unit in scores.units for row in scores.unit_table(unit.unit, ["loss"]).to_pylist()]


@pytest.mark.parametrize("reverse", [False, True])
def test_it_is_the_divergence_over_what_both_hold(
    tmp_path: Path, make_model: Callable[[int], Path], reverse: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, (base, ref) = _models(25)
    stores = [_store(tmp_path / name, ids, of, tokenizer=make_model(1)) for name, of in (("base", base), ("ref", ref))]
    command = ["kl", *map(str, stores), str(tmp_path / "kl"), *["--reverse"] * reverse]
    assert main(command) == 0
    n_known = sum(max(len(own) - 1, 0) for own in ids)
    assert f"{n_known:,} of {sum(map(len, ids)):,} tokens have a value, mean lower bound" in capsys.readouterr().out
    for own, p, q, found in zip(ids, *((ref, base) if reverse else (base, ref)), _losses(tmp_path / "kl"), strict=True):
        assert len(found) == len(own)
        assert found[:1] in ([], [None])
        for i in range(1, len(own)):
            kept = {own[i], *(set(np.argsort(-p[i])[:K]) & set(np.argsort(-q[i])[:K]))}
            inside = np.isin(np.arange(WORDS), list(kept))
            cells = [*zip(np.exp(p[i][inside]), np.exp(q[i][inside]), strict=True)]
            cells.append((np.exp(p[i][~inside]).sum(), np.exp(q[i][~inside]).sum()))
            assert found[i] == pytest.approx(sum(a * np.log(a / b) for a, b in cells), abs=2e-5)
            assert found[i] <= (np.exp(p[i]) * (p[i] - q[i])).sum() + 1e-5
    page = Path(report(ReportConfig(store=str(tmp_path / "kl"), output=str(tmp_path / "kl.html")))).read_text()
    assert "mean divergence, nats" in page
    assert "perplexity" not in page
    before = {path: path.read_bytes() for path in (tmp_path / "kl" / "data").iterdir()}
    (tmp_path / "kl" / "_SUCCESS.json").unlink()
    next(iter(before)).unlink()
    assert main(command) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "kl" / "data").iterdir()} == before


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    ids, (base, ref) = _models(10)
    one = _store(tmp_path / "base", ids, base)
    plain = write_scores(tmp_path / "plain", [cut([Doc("d0", "g", [1], [1.0])], [])])
    with pytest.raises(InputError, match=r"does not hold the likeliest tokens\. Score with --signals top-k"):
        kl(KLConfig(base=str(one), ref=str(plain), output=str(tmp_path / "out")))
    other = _store(tmp_path / "other", ids, ref, tokenizer_sha256="u")
    with pytest.raises(InputError, match="tokenizer_sha256"):
        kl(KLConfig(base=str(one), ref=str(other), output=str(tmp_path / "out")))
    hidden = _store(tmp_path / "hidden", ids, ref, context_hidden=True, hidden_prefix_id=0)
    with pytest.raises(InputError, match=r"hidden was made with --hide-context and .*base without"):
        kl(KLConfig(base=str(one), ref=str(hidden), output=str(tmp_path / "out")))
    changed = [[(word + 1) % WORDS for word in own] for own in ids]
    third = _store(tmp_path / "third", changed, ref)
    with pytest.raises(RhoScoreError, match="holds other documents in"):
        kl(KLConfig(base=str(one), ref=str(third), output=str(tmp_path / "out")))


def test_divergences_of_models_that_saw_no_context_say_so(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    """They are no more comparable with those behind the context than the losses are."""
    ids, models = _models(10)
    hidden = {"context_hidden": True, "hidden_prefix_id": 0, "tokenizer": make_model(1)}
    base, ref = (_store(tmp_path / name, ids, of, **hidden) for name, of in zip(("base", "ref"), models, strict=True))
    kl(KLConfig(base=str(base), ref=str(ref), output=str(tmp_path / "kl")))
    parts = ScoreSet.open(str(tmp_path / "kl")).manifest["parts"]
    assert (parts["context_hidden"], parts["hidden_prefix_id"]) == (True, 0)
