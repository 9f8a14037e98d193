"""s3:// to s3:// against a real S3 server: JuiceFS' gateway, which is MinIO's."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rho_score.cli import main
from rho_score.files.folder import Folder
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.conftest import N_DOCUMENTS, N_QUARANTINED
from tests.faults import FaultyProxy

ROOT = Path(__file__).parents[2]


def _rho_score(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The command line, on the tests' cluster."""
    code = main(list(arguments))
    said = capsys.readouterr()
    return code, said.out + said.err


def _files(url: str) -> dict[str, bytes]:
    folder = Folder(url)
    return {name: folder.read(name) for name in folder.listing()}


def test_score_select_and_resume_on_s3(
    s3: FaultyProxy,
    ray_cluster: str,
    corpus: Path,
    make_model: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = Folder("s3://rho")
    for path in corpus.rglob("*"):
        if path.is_file():
            bucket.publish(f"corpus/{path.relative_to(corpus)}", path.read_bytes())
    score = [
        "score",
        "s3://rho/corpus",
        "s3://rho/scores/ref",
        "--model",
        str(make_model(1)),
        "--id-column",
        "id",
    ]
    score += ["--group-column", "source", "--unit-bytes", "3000", "--cpus-per-worker", "1", "--no-compile"]
    code, said = _rho_score(capsys, *score)
    assert code == 3, said
    store = ScoreSet.open("s3://rho/scores/ref")
    assert store.summary["documents"] == N_DOCUMENTS
    assert store.summary["quarantined"] == N_QUARANTINED
    before = _files("s3://rho/scores/ref")

    lost = sorted(name for name in before if name.startswith("data/"))[::2]
    for name in [*lost, "_SUCCESS.json"]:
        bucket.fs.rm_file(f"rho/scores/ref/{name}")
    code, said = _rho_score(capsys, *score, "--allow-quarantine")
    assert code == 0, said
    assert f"scored {len(lost)} of {len(store.units)} units" in said
    assert _files("s3://rho/scores/ref") == before

    code, said = _rho_score(capsys, "select", "--ref", "s3://rho/scores/ref", "s3://rho/selection", "--ratio", "0.6")
    assert code == 0, said
    selection = Selection.open("s3://rho/selection")
    kept = sum(row["tokens_kept"] for row in selection.summary["groups"])
    assert kept == round(0.6 * store.summary["tokens"])

    code, said = _rho_score(capsys, "report", "s3://rho/selection", "s3://rho/report.html")
    assert code == 0, said
    assert b"Share kept per group" in bucket.read("report.html")
    everything = b"".join(_files("s3://rho").values()) + said.encode()
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in everything
    assert json.loads(selection.folder.read("manifest.json"))["scores"]["ref"] == "../scores/ref"
