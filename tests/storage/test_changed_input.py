"""A shard that changes or vanishes after the plan was made: told by name, and nothing of it is published."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rho_score.corpus.documents
import rho_score.scoring.job
from rho_score.config import CorpusConfig
from rho_score.corpus.columns import Columns
from rho_score.corpus.plan import make_plan
from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.scoring.read import read_unit
from tests.ray.conftest import OPTIONS
from tests.storage.conftest import Run

Change = Callable[[Folder], None]


def _later(folder: Folder) -> None:
    """The same bytes, written again a while later: another version."""
    folder.publish("a.parquet", folder.read("a.parquet"))
    if "://" not in folder.url:
        os.utime(folder.name("a.parquet"), (2e9, 2e9))


CHANGES: dict[str, tuple[Change, str]] = {
    "rewritten": (_later, "a.parquet changed since the run was planned"),
    "grown": (lambda f: f.publish("a.parquet", f.read("a.parquet") + b"x"), "a.parquet changed since the run was planned"),
    "gone": (lambda f: f.remove("a.parquet"), "a.parquet is gone since the run was planned"),
}  # fmt: skip


def _copied(small_corpus: Path, url: str) -> Folder:
    folder = Folder(url)
    for path in small_corpus.iterdir():
        folder.publish(path.name, path.read_bytes())
    return folder


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_shard_that_changes_after_the_plan_is_refused(
    where: str,
    change: str,
    ray_cluster: str,
    small_corpus: Path,
    make_model: Callable[[int], Path],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    top = str(tmp_path) if where == "disk" else f"s3://rho/changed/{change}"
    corpus = _copied(small_corpus, f"{top}/corpus")
    apply, message = CHANGES[change]
    if where == "s3" and change == "rewritten":  # the gateway has no etags, and its times have whole seconds
        import time

        time.sleep(1.1)

    def planned(config: CorpusConfig) -> Any:
        plan = make_plan(config)
        apply(corpus)
        return plan

    command = [
        "score", corpus.url, f"{top}/out", "--model", str(make_model(1)), "--id-column", "id", "--context", "32", "--overlap",
        "8", "--cpus-per-worker", "1", "--unit-bytes", "1500", "--no-compile",
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(rho_score.scoring.job, "make_plan", planned)
        code, said = run(*command)
    assert code == 1, said
    assert message in said
    output = Folder(f"{top}/out")
    assert not [name for name in output.listing("data") if name.startswith("a.parquet")]
    assert not output.exists("_SUCCESS.json")
    code, said = run(*command)
    assert code == 2, said
    assert "a.parquet" in said, "which shard is another is not told"


def test_a_shard_that_changes_while_it_is_read_is_refused(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = _copied(small_corpus, str(tmp_path / "corpus"))
    plan = make_plan(CorpusConfig(input=corpus.url, id_column="id", unit_bytes=OPTIONS["unit_bytes"]))
    real = rho_score.corpus.documents.documents

    def documents(*arguments: Any) -> Any:
        for i, document in enumerate(real(*arguments)):
            if i == 2:
                _later(corpus)
            yield document

    monkeypatch.setattr(rho_score.corpus.documents, "documents", documents)
    with pytest.raises(RhoScoreError, match=r"a\.parquet changed since the run was planned"):
        read_unit(corpus, plan.units[0], Columns("text", "id"))
