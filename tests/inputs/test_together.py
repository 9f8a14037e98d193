"""Kinds of input that are read, in one corpus and one run of the command: every document's record is its kind's answer."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.stores.score_set import ScoreSet, quarantined_documents
from tests.inputs.kinds import Doc, Kind, Refused
from tests.inputs.test_kinds import KINDS

LONGEST = 5_000  # characters of a text: longer ones are scored by the thousand tokens, for minutes
LARGEST = 4 << 20  # bytes of a kind's files


def write_kinds(corpus: Path, every: int = 1) -> dict[str, Kind]:
    """Each kind that has documents, or one of so many, in a folder of its own; by the folder's name."""
    kinds = {}
    for i, kind in enumerate(KINDS[::every]):
        if isinstance(kind.answer, Refused) or kind.options or kind.limits or "breaks off" in kind.name:
            continue
        if any(len(doc.text or "") > LONGEST for doc in kind.answer):
            continue
        folder = corpus / f"{i:03}"
        folder.mkdir(parents=True)
        elsewhere = kind.make(folder) is not None
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if elsewhere or size > LARGEST or any(path.is_symlink() for path in folder.rglob("*")):
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            folder.rmdir()
        else:
            kinds[folder.name] = kind
    return kinds


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
def test_every_document_of_a_mixed_corpus_has_its_record(
    every: int, ray_cluster: str, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    kinds = write_kinds(tmp_path / "corpus", every)
    options = [
        "--context",
        "64",
        "--dtype",
        "float32",
        "--no-compile",
        "--gpus-per-worker",
        "0",
        "--cpus-per-worker",
        "1",
    ]
    assert (
        main(["score", str(tmp_path / "corpus"), str(tmp_path / "out"), "--model", str(make_model(1)), *options]) == 3
    )
    scores = ScoreSet.open(str(tmp_path / "out"))
    scored = {row["doc_id"]: row for unit in scores.units for row in scores.unit_table(unit.unit).to_pylist()}
    lost = dict(quarantined_documents(scores.folder, scores.n_units))
    expected = {True: 0, False: 0}
    for folder, kind in kinds.items():
        assert not isinstance(kind.answer, Refused)
        mine = sorted(name for name in {*scored, *lost} if name.startswith(f"{folder}/"))
        assert len(mine) == len(kind.answer), kind.name
        texts = [tokenizer.decode(scored[name]["input_ids"]) for name in mine if name in scored]
        assert sorted(texts) == sorted(doc.text or "" for doc in kind.answer if doc.reason is None), kind.name
        reasons = sorted(lost[name] for name in mine if name in lost)
        for reason, doc in zip(reasons, sorted(_lost(kind), key=lambda doc: doc.reason or ""), strict=True):
            assert (doc.reason or "").removesuffix("…") in reason, kind.name
        for doc in kind.answer:
            expected[doc.reason is None] += 1
    assert (scores.summary["scored"], scores.summary["quarantined"]) == (expected[True], expected[False])
    assert len(kinds) >= 50 // every
    assert expected[True]
    assert expected[False]
    assert all(len(row["loss"]) == len(row["input_ids"]) and None not in row["loss"] for row in scored.values())


def _lost(kind: Kind) -> list[Doc]:
    assert not isinstance(kind.answer, Refused)
    return [doc for doc in kind.answer if doc.reason is not None]
