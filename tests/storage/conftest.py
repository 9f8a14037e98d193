"""Corpora, score sets and runs that the tests of storage share. Runs go through the proxy, which the tests tell to fail."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rho_score.cli import main
from rho_score.files.folder import Folder
from tests.conftest import some_text
from tests.faults import FaultyProxy
from tests.stores import cut, random_documents, write_scores

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`rho-score` with these arguments, in this process and on the tests' cluster: exit code and all that it said."""

    def call(*arguments: str) -> tuple[int, str]:
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet and a JSONL shard: four units of 1500 bytes."""
    folder = tmp_path_factory.mktemp("small")
    rows = [{"id": f"d{i}", "text": some_text(40, i)} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows[:10]), folder / "a.parquet", row_group_size=5)
    lines = "".join(f'{{"id": "{row["id"]}", "text": "{row["text"]}"}}\n' for row in rows[10:])
    (folder / "b.jsonl").write_text(lines)
    return folder


N_UNITS = 12  # of a score set in the bucket; each costs dozens of requests


@pytest.fixture(scope="session")
def bucket(s3: FaultyProxy, small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The bucket, with the corpus under corpus/ and two score sets of `N_UNITS` units under scores/."""
    bucket = Folder("s3://rho/storage")
    made = tmp_path_factory.mktemp("made")
    documents = random_documents(4 * N_UNITS, seed=5)
    for i, name in enumerate(("ref", "base")):
        write_scores(made / name, [cut([pair[i] for pair in documents], [4] * N_UNITS)])
    for source, under in ((small_corpus, "corpus"), (made, "scores")):
        for path in source.rglob("*"):
            if path.is_file():
                bucket.publish(f"{under}/{path.relative_to(source)}", path.read_bytes())
    return bucket


SELECT = ["select", "--ref", "s3://rho/storage/scores/ref", "--base", "s3://rho/storage/scores/base", "--ratio", "0.5"]


@pytest.fixture(scope="session")
def score_command(bucket: Folder, ray_cluster: str, make_model: Callable[[int], Path]) -> list[str]:
    """Scoring the corpus in the bucket; the output is still to be said."""
    return [
        "score", "s3://rho/storage/corpus", "--model", str(make_model(1)), "--id-column", "id", "--context", "32",
        "--overlap", "8", "--unit-bytes", "1500", "--cpus-per-worker", "1", "--no-compile",
    ]  # fmt: skip


def files(url: str) -> dict[str, bytes]:
    """Every file of a store."""
    folder = Folder(url)
    return {name: folder.read(name) for name in folder.listing()}


@pytest.fixture(scope="session")
def peace(bucket: Folder, score_command: list[str]) -> dict[str, dict[str, bytes]]:
    """The files of undisturbed runs, by command."""
    assert main([*score_command, "s3://rho/storage/peace-score"]) == 0
    assert main([*SELECT, "s3://rho/storage/peace-select"]) == 0
    return {command: files(f"s3://rho/storage/peace-{command}") for command in ("score", "select")}


@pytest.fixture
def command_of(score_command: list[str]) -> dict[str, list[str]]:
    """Both commands, without their output."""
    return {"score": score_command, "select": SELECT}
