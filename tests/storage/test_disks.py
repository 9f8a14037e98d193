"""Disks that are full, over quota, read-only or broken: a clear message, nothing left behind, and resume."""

import errno
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rho_score.cli import main
from rho_score.cluster import ray_cluster as ray_cluster_module
from rho_score.cluster import tasks
from tests.ray.conftest import digests, score_into
from tests.storage.conftest import Run
from tests.stores import cut, random_documents, write_scores

PAGE = 4096


@pytest.fixture(scope="module")
def score_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A score set of 40 units."""
    documents = [ref for ref, _ in random_documents(160, seed=9)]
    return write_scores(tmp_path_factory.mktemp("disk") / "ref", [cut(documents, [4] * 40)])


class SmallDisk:
    """A real file system in memory, of a size that can be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)], check=True, capture_output=True
        )

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A mounted disk of 64 MiB; skipped where mounting is not allowed."""
    (tmp_path / "disk").mkdir()
    disk = SmallDisk(tmp_path / "disk")
    try:
        disk.mount("size=64m")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield disk
    subprocess.run(["umount", "-l", str(disk.path)], check=False)


def _size(store: Path) -> int:
    """What a store takes on a disk in memory, bytes."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in store.rglob("*") if path.is_file())


def _temporary(store: Path) -> list[Path]:
    return [path for path in store.rglob(".*") if path.is_file()]


def test_a_full_disk_ends_a_selection_and_resume_is_right(
    disk: SmallDisk, score_set: Path, tmp_path: Path, run: Run
) -> None:
    command = ["select", "--ref", str(score_set), "--ratio", "0.5"]
    assert run(*command, str(tmp_path / "peace"))[0] == 0
    disk.remount(f"size={_size(tmp_path / 'peace') // 2}")
    output = disk.path / "out"
    code, said = run(*command, str(output))
    assert code == 1
    assert f"{output}/" in said
    assert "could not be written: ENOSPC: No space left on device. Free space on that disk" in said
    assert not _temporary(output)
    half = {name: digest for name, digest in digests(output).items() if name != "manifest.json"}
    assert 0 < len(half) < len(digests(tmp_path / "peace"))
    assert half.items() <= digests(tmp_path / "peace").items()
    disk.remount("size=64m")
    assert run(*command, str(output))[0] == 0
    assert _differing(output, tmp_path / "peace") <= {"manifest.json"}  # which tells where the scores are from there


def test_a_full_disk_ends_scoring_and_resume_is_right(
    disk: SmallDisk, small_corpus: Path, make_model: Callable[[int], Path], ray_cluster: str, tmp_path: Path, run: Run
) -> None:
    score_into(small_corpus, tmp_path / "peace", make_model(1), unit_bytes=300, group_column=None)
    command = [
        "score", str(small_corpus), str(disk.path / "out"), "--model", str(make_model(1)), "--id-column", "id", "--context",
        "32", "--overlap", "8", "--batch-tokens", "128", "--cpus-per-worker", "1", "--unit-bytes", "300",
        "--gpus-per-worker", "0", "--no-compile", "--dtype", "float32",
    ]  # fmt: skip
    disk.remount(f"size={_size(tmp_path / 'peace') - 3 * PAGE}")
    code, said = run(*command)
    assert code == 1
    assert "could not be written: ENOSPC: No space left on device. Free space on that disk" in said
    assert not _temporary(disk.path)
    assert not (disk.path / "out/_SUCCESS.json").exists()
    disk.remount("size=64m")
    code, said = run(*command)
    assert code == 0, said
    assert _differing(disk.path / "out", tmp_path / "peace") <= {"manifest.json"}


def test_a_disk_that_cannot_be_written_to_is_told_at_once(disk: SmallDisk, score_set: Path, run: Run) -> None:
    disk.remount("ro")
    code, said = run("select", "--ref", str(score_set), str(disk.path / "out"), "--ratio", "0.5")
    assert code == 2
    assert "is on a read-only file system. Mount that disk for writing" in said


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks as threads of this process, as without a cluster: whose calls of the system can be made to fail."""
    for module in (ray_cluster_module, tasks):
        monkeypatch.setattr(module, "connected", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("rho_score.files.retries.PATIENCE_S", 1)


@contextmanager
def _failing_fsync(number: int, times: int) -> Iterator[None]:
    """From the 30th call on, `os.fsync` fails so many times with this number."""
    real, calls = os.fsync, itertools.count(1)

    def fsync(file: int) -> None:
        if 30 <= next(calls) < 30 + times:
            raise OSError(number, os.strerror(number))
        real(file)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        yield


@pytest.fixture(scope="module")
def undisturbed(score_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a selection whose disk does not fail."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(["select", "--ref", str(score_set), str(output), "--ratio", "0.5"]) == 0
    return digests(output)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EDQUOT, "Raise the quota or free space in it"), (errno.EIO, "The disk or the server behind it fails"),
        (errno.ESTALE, "The file server was restarted"),
    ],
)  # fmt: skip
def test_a_disk_that_fails_ends_the_run_and_resume_is_right(
    number: int, remedy: str, undisturbed: dict[str, str], threads: None, score_set: Path, tmp_path: Path, run: Run
) -> None:
    command = ["select", "--ref", str(score_set), str(tmp_path / "out"), "--ratio", "0.5"]
    with _failing_fsync(number, 1_000_000):
        code, said = run(*command)
    assert code == 1, said
    assert f"could not be written: {errno.errorcode[number]}: {os.strerror(number)}" in said
    assert remedy in said
    assert not _temporary(tmp_path / "out")
    assert not (tmp_path / "out/summary.json").exists()
    code, said = run(*command)
    assert code == 0, said
    assert digests(tmp_path / "out") == undisturbed


def test_a_file_server_that_stumbles_is_asked_again(
    undisturbed: dict[str, str], threads: None, score_set: Path, tmp_path: Path, run: Run
) -> None:
    with _failing_fsync(errno.ESTALE, 2):
        code, said = run("select", "--ref", str(score_set), str(tmp_path / "out"), "--ratio", "0.5")
    assert code == 0, said
    assert "storage: 2 calls were made again (ESTALE 2)" in said
    assert not _temporary(tmp_path / "out")
    assert digests(tmp_path / "out") == undisturbed


def _differing(left: Path, right: Path) -> set[str]:
    """Names of the files that are not the same in both."""
    here, there = digests(left), digests(right)
    names: set[Any] = {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)}
    return names
