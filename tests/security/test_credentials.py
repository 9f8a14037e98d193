"""Credentials in URLs and in the environment are in no output, no message and no log."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

import rho_score.files.retries
from rho_score.cli import main
from rho_score.files.folder import Folder
from rho_score.stores.manifest import relative_url
from tests.stores import cut, random_documents, write_scores

CANARY = "CANARY7f3a"
PLACES = [
    f"s3://user:{CANARY}@bucket/corpus",
    f"s3://user:pass/{CANARY}@bucket/corpus",
    f"s3://bucket/corpus?X-Amz-Signature={CANARY}&X-Amz-Expires=1",
    f"http://user:{CANARY}@127.0.0.1:9/corpus",
    f"http://127.0.0.1:9/corpus.jsonl?sig={CANARY}",
    f"ftp://user:{CANARY}@127.0.0.1:9/corpus",
    f"nosuch://user:{CANARY}@host/corpus?token={CANARY}",
]


@pytest.fixture
def nothing_listens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 server that is not there, credentials that must not show, and no waiting for either."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(rho_score.files.retries, "PATIENCE_S", 0.1)
    S3FileSystem.clear_instance_cache()  # they keep the server that they were made for
    yield
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("place", PLACES)
def test_no_message_holds_a_credential(
    nothing_listens: None, place: str, make_model: Callable[[int], Path], corpus: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    scores = str(write_scores(tmp_path / "scores", [cut([doc for doc, _ in random_documents(9, seed=1)], [5])]))
    model = str(make_model(1))
    commands = [
        ["plan", place],
        ["score", place, str(tmp_path / "out"), "--model", model],
        ["score", str(corpus), place, "--model", model],
        ["score", str(corpus), str(tmp_path / "out"), "--model", place],
        ["select", "--ref", place, str(tmp_path / "out"), "--ratio", "0.5"],
        ["select", "--ref", scores, place, "--ratio", "0.5"],
        ["curve", place],
        ["dynamics", str(tmp_path / "out"), "--scores", place, place],
        ["export", place, str(tmp_path / "out"), "--format", "bin"],
        ["report", place, str(tmp_path / "page.html")],
        ["report", scores, place],
        ["plan", str(corpus), "--config", place],
    ]
    for command in commands:
        code = main(command)
        said = capsys.readouterr()
        assert code in (1, 2), command
        assert CANARY not in said.out + said.err, command
        assert "Traceback" not in said.err, command
    assert CANARY not in caplog.text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes()


def test_what_stores_note_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative_url("corpus", "scores/ref") == "../../corpus"
    assert relative_url("s3://bucket/corpus", "s3://bucket/scores/ref") == "../../corpus"
    assert relative_url(f"s3://k:{CANARY}@bucket/c?sig={CANARY}", "scores") == "s3://bucket/c"
    assert relative_url(f"s3://b/c?X-Amz-Signature={CANARY}=x", "s3://b/s") == "../c"
    assert relative_url("/home/me/corpus", "s3://bucket/scores") is None  # means nothing to who reads it there
    assert relative_url("file:///home/me/corpus", "s3://bucket/scores") is None


@pytest.fixture(scope="module")
def run_on_s3(
    s3: None,
    ray_cluster: str,
    corpus: Path,
    make_model: Callable[[int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str]:
    """A whole run from disk to a place on S3 whose name is a signed URL's, and a local one: the folder, and all that was said."""
    work, signed = tmp_path_factory.mktemp("work"), f"s3://rho/secret?X-Amz-Signature={CANARY}"
    score = [
        "score",
        str(corpus),
        "--id-column",
        "id",
        "--group-column",
        "source",
        "--model",
        str(make_model(1)),
        "--no-compile",
    ]
    score += ["--cpus-per-worker", "1", "--allow-quarantine", "--context", "32", "--dtype", "float32"]
    commands = [
        [*score[:2], f"{signed}/ref", *score[2:]],
        [*score[:2], f"{work}/scores/ref", *score[2:]],
        ["select", "--ref", f"{signed}/ref", f"{signed}/sel", "--ratio", "0.5"],
        ["select", "--ref", f"{signed}/ref", f"{work}/from-s3", "--ratio", "0.5"],
        ["select", "--ref", f"{work}/scores/ref", f"{work}/sel", "--ratio", "0.5", "--level", "document"],
        ["export", f"{work}/sel", f"{work}/kept", "--format", "jsonl"],
        ["report", f"{work}/from-s3", f"{signed}/page.html"],
        ["report", f"{work}/sel", f"{work}/page.html"],
        ["select", "--ref", f"{signed}/ref", f"{signed}/sel", "--ratio", "0.6"],  # refused: begun with 0.5
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        codes = [main(command) for command in commands]
    assert codes == [0] * 8 + [2], said.getvalue()
    return work, said.getvalue()


def _written(work: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("*") if path.is_file()}
    bucket = Folder("s3://rho")
    return found | {name: bucket.read(name) for name in bucket.listing() if name.startswith("secret")}


def test_a_run_writes_and_says_no_credential(run_on_s3: tuple[Path, str]) -> None:
    work, said = run_on_s3
    written = _written(work)
    assert len(written) > 40
    assert "finished" in said or "scored" in said
    for secret in (CANARY, os.environ["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in said
        assert not [name for name, content in written.items() if secret.encode() in content]


def test_rays_logs_hold_no_credential(run_on_s3: tuple[Path, str]) -> None:
    import ray

    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    files = [path for path in logs.rglob("*") if path.is_file()]
    assert files
    for secret in (CANARY, os.environ["AWS_SECRET_ACCESS_KEY"]):
        assert not [path.name for path in files if secret.encode() in path.read_bytes()]


def test_stores_name_no_place_of_this_machine(
    run_on_s3: tuple[Path, str], corpus: Path, make_model: Callable[[int], Path]
) -> None:
    work, _ = run_on_s3
    written = _written(work)
    machine = {
        str(work),
        str(corpus),
        str(make_model(1)),
        str(Path.home()),
        str(Path(__file__).parents[2]),
        str(work.parents[1]),
    }
    for name, content in written.items():
        texts = [content.decode()] if name.endswith((".json", ".jsonl")) and "tokenizer/" not in name else []
        if name.endswith(".parquet"):
            metadata = pq.ParquetFile(io.BytesIO(content)).schema_arrow.metadata or {}
            texts = [value.decode("utf-8", "replace") for key, value in metadata.items() if key != b"ARROW:schema"]
            texts.append(content.decode("latin-1"))
        for text in texts:
            assert not [place for place in machine if place in text], name
    manifest = json.loads(written["scores/ref/manifest.json"])
    assert not manifest["input"]["root"].startswith("/")
