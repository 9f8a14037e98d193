"""s3:// to s3:// against a real S3 server: JuiceFS' gateway, which is MinIO's."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rho_score.storage import Folder
from rho_score.store import ScoreSet, Selection
from tests.conftest import N_DOCUMENTS, N_QUARANTINED

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A gateway with a bucket `rho`, and the environment that points s3:// at it."""
    folder = tmp_path_factory.mktemp("juicefs")
    juicefs = shutil.which("juicefs", path=str(Path(sys.executable).parent)) or "juicefs"
    meta = f"sqlite3://{folder}/meta.db"
    subprocess.run(
        [juicefs, "format", meta, "vol", "--storage", "file", "--bucket", f"{folder}/blocks/"],
        check=True,
        capture_output=True,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secrets = {"MINIO_ROOT_USER": "rho-score", "MINIO_ROOT_PASSWORD": "only-for-tests"}
    log = (folder / "gateway.log").open("wb")
    gateway = subprocess.Popen(
        [juicefs, "gateway", "--multi-buckets", "--no-usage-report", meta, f"127.0.0.1:{port}"],
        env=os.environ | secrets, stdout=log, stderr=log,
    )  # fmt: skip
    environment = pytest.MonkeyPatch()
    environment.setenv("AWS_ACCESS_KEY_ID", secrets["MINIO_ROOT_USER"])
    environment.setenv("AWS_SECRET_ACCESS_KEY", secrets["MINIO_ROOT_PASSWORD"])
    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        end = time.monotonic() + 60
        while True:
            try:
                Folder("s3://rho").fs.mkdir("rho")
                break
            except OSError:
                assert time.monotonic() < end, (folder / "gateway.log").read_text()
                time.sleep(0.5)
        yield
    finally:
        environment.undo()
        gateway.terminate()
        gateway.wait(20)
        log.close()


def _rho_score(*arguments: str) -> tuple[int, str]:
    """The command line in a process of its own, as a user has it, with a Ray cluster of its own."""
    command = [sys.executable, "-c", "from rho_score.cli import run; run()", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "RAY_ADDRESS": ""}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def _files(url: str) -> dict[str, bytes]:
    folder = Folder(url)
    return {name: folder.read(name) for name in folder.listing()}


def test_score_select_and_resume_on_s3(s3: None, corpus: Path, make_model: Callable[[int], Path]) -> None:
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
    score += ["--group-column", "source", "--unit-bytes", "3000", "--cpus-per-worker", "1"]
    code, said = _rho_score(*score)
    assert code == 3, said
    store = ScoreSet.open("s3://rho/scores/ref")
    assert store.summary["documents"] == N_DOCUMENTS
    assert store.summary["quarantined"] == N_QUARANTINED
    before = _files("s3://rho/scores/ref")

    lost = sorted(name for name in before if name.startswith("data/"))[::2]
    for name in [*lost, "_SUCCESS.json"]:
        bucket.fs.rm_file(f"rho/scores/ref/{name}")
    code, said = _rho_score(*score, "--allow-quarantine")
    assert code == 0, said
    assert f"scored {len(lost)} of {len(store.units)} units" in said
    assert _files("s3://rho/scores/ref") == before

    code, said = _rho_score("select", "--ref", "s3://rho/scores/ref", "s3://rho/selection", "--ratio", "0.6")
    assert code == 0, said
    selection = Selection.open("s3://rho/selection")
    kept = sum(row["tokens_kept"] for row in selection.summary["groups"])
    assert kept == round(0.6 * store.summary["tokens"])

    code, said = _rho_score("report", "s3://rho/selection", "s3://rho/report.html")
    assert code == 0, said
    assert b"Share kept per group" in bucket.read("report.html")
    everything = b"".join(_files("s3://rho").values()) + said.encode()
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in everything
    assert json.loads(selection.folder.read("manifest.json"))["scores"]["ref"] == "../scores/ref"
