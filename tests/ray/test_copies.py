"""Copies in a corpus: scored once in a unit, and dropped by dedup."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rho_score.config import DedupConfig
from rho_score.deduplicating.job import dedup
from rho_score.errors import InputError
from rho_score.stores.score_set import ScoreSet
from tests.conftest import some_text
from tests.oracle import load_float32, plain_losses
from tests.ray.conftest import digests, score_into


def _corpus(folder: Path) -> Path:
    """A shard in several units: three texts that occur often, and texts that occur once."""
    folder.mkdir()
    texts = [some_text(60, i // 10 % 3) if i % 2 else some_text(50, 100 + i) for i in range(40)]
    rows = [{"id": f"d{i}", "source": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_copies_have_the_losses_of_the_plain_forward(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    summary = score_into(_corpus(tmp_path / "corpus"), tmp_path / "out", make_model(1))
    scores = ScoreSet.open(str(tmp_path / "out"))
    assert summary.units > 2
    expected = 0
    model = load_float32(make_model(1))
    for unit in scores.units:
        table = scores.unit_table(unit.unit).to_pylist()
        seen: dict[tuple[int, ...], list[float]] = {}
        for row in table:
            ids = tuple(row["input_ids"])
            expected += ids in seen
            assert seen.setdefault(ids, row["loss"]) == row["loss"]
            plain = plain_losses(model, ids, prefix=0, context=32, overlap=8)
            assert np.abs(np.array(row["loss"]) - plain).max() < 0.01
    assert summary.counts.copied == expected > 5
    assert summary.counts.scored == 40
    again = score_into(tmp_path / "corpus", tmp_path / "out", make_model(1))
    assert (again.computed, again.counts) == (0, summary.counts)


def test_the_same_tokens_of_which_others_count(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    """A prompt and a response are one text, so two rows may differ in nothing but what counts."""
    words = some_text(30, 1).split()
    rows = [
        {"prompt": " ".join(words[:n]), "response": " " + " ".join(words[n:]), "id": str(n), "source": "a"}
        for n in (10, 20, 10)
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt_column": "prompt", "response_column": "response"}
    summary = score_into(tmp_path / "c.jsonl", tmp_path / "out", make_model(1), **columns, unit_bytes=100_000)
    scores = ScoreSet.open(str(tmp_path / "out"))
    long, short, again = scores.unit_table(scores.units[0].unit).to_pylist()
    assert long["input_ids"] == short["input_ids"] == again["input_ids"]
    assert long["loss"] == again["loss"]
    n_counting = [sum(loss is not None for loss in row["loss"]) for row in (long, short)]
    assert n_counting[0] > n_counting[1] > 0
    assert all(b is None or a == b for a, b in zip(long["loss"], short["loss"], strict=True))
    assert summary.counts.copied == 2


def _tables(output: Path) -> dict[str, dict[str, Any]]:
    """The rows of a score set by document."""
    scores = ScoreSet.open(str(output))
    return {row["doc_id"]: row for unit in scores.units for row in scores.unit_table(unit.unit).to_pylist()}


def test_a_corpus_that_grew_takes_the_losses_that_are_known(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    corpus, model, older = _corpus(tmp_path / "corpus"), make_model(1), tmp_path / "older"
    score_into(corpus, older, model, signals=("rank", "entropy"))
    first = (corpus / "a.jsonl").read_text().splitlines(keepends=True)
    new = [json.dumps({"id": f"n{i}", "source": "c", "text": some_text(40, 900 + i)}) + "\n" for i in range(6)]
    # other units than before, and the older documents in another order
    (corpus / "a.jsonl").write_text("".join([*new[:3], *reversed(first)]))
    (corpus / "b.jsonl").write_text("".join(new[3:]))
    changes = {"unit_bytes": 3000, "signals": ("rank",)}
    plain = score_into(corpus, tmp_path / "plain", model, **changes)
    reused = score_into(corpus, tmp_path / "reused", model, reuse=str(older), **changes)
    assert (reused.counts.scored, reused.counts.reused, reused.counts.copied) == (46, 40, 0)
    assert plain.counts.reused == 0
    before, found, expected = (_tables(tmp_path / name) for name in ("older", "reused", "plain"))
    for name, row in found.items():
        if name in before:
            same = [of for of in before.values() if of["input_ids"] == row["input_ids"]]
            assert (row["loss"], row["rank"]) in [(of["loss"], of["rank"]) for of in same]
        # losses stored as float16 are at most 2**-10 of their size apart, if the last bit of a float32 moves them
        assert np.allclose(row.pop("loss"), expected[name].pop("loss"), rtol=2**-10, atol=1e-4)
        assert row == expected[name]
    again = score_into(corpus, tmp_path / "reused", model, reuse=str(older), **changes)
    assert (again.computed, again.counts) == (0, reused.counts)
    # a finished run needs the older set no longer, wherever it is now
    older.rename(tmp_path / "moved")
    for place in ("older", "moved"):
        again = score_into(corpus, tmp_path / "reused", model, reuse=str(tmp_path / place), **changes)
        assert (again.computed, again.counts) == (0, reused.counts)
    with pytest.raises(InputError, match="gone"):
        score_into(corpus, tmp_path / "reused", model, reuse=str(tmp_path / "gone"), **changes)
    with pytest.raises(InputError, match="reuse: there None, now"):
        score_into(corpus, tmp_path / "plain", model, reuse=str(tmp_path / "moved"), **changes)
    (tmp_path / "moved").rename(older)
    with pytest.raises(InputError, match=r"reuse: there '[0-9a-f]{64}', now None"):
        score_into(corpus, tmp_path / "reused", model, **changes)
    with pytest.raises(InputError, match=r"weights_sha256: there '\w+', now '\w+'"):
        score_into(corpus, tmp_path / "other", make_model(2), reuse=str(older), **changes)
    with pytest.raises(InputError, match="context: there 32, now 48"):
        score_into(corpus, tmp_path / "other", model, reuse=str(older), context=48, **changes)


def test_dedup_on_a_cluster_writes_what_threads_write(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = _corpus(tmp_path / "corpus")
    config = {"input": str(corpus), "id_column": "id", "unit_bytes": 2000, "units_per_part": 1, "partitions": 3}
    summary = dedup(DedupConfig(output=str(tmp_path / "on-ray"), **config))
    kept = score_into(tmp_path / "on-ray" / "data", tmp_path / "scores", make_model(1))
    assert (kept.counts.scored, kept.counts.copied) == (23, 0)
    monkeypatch.setattr("rho_score.cluster.tasks.connected", lambda: False)
    dedup(DedupConfig(output=str(tmp_path / "threads"), **config))
    assert digests(tmp_path / "on-ray") == digests(tmp_path / "threads")
    assert (summary.counts.kept, summary.counts.exact, summary.counts.documents) == (23, 17, 40)
