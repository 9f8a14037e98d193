import errno
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rho_score.errors import InputError, StorageError
from rho_score.files.folder import Folder
from rho_score.files.urls import without_credentials


def test_publish_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.publish("data/a", b"one")
    folder.publish("data/a", b"two")
    assert folder.read("data/a") == b"two"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]


def test_a_publish_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.publish("a", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"/a could not be written: ENOSPC: No space left on device. Free space"):
        folder.publish("a", b"new")
    assert folder.read("a") == b"old"
    assert list(folder.listing()) == ["a"]
    assert len(list(tmp_path.iterdir())) == 1


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    for name in ("../a", "b/../../a", "/etc/passwd"):
        with pytest.raises(ValueError, match="leads out"):
            Folder(str(tmp_path)).read(name)


def test_listing_is_relative_sorted_and_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/c", "a", ".hidden", "b/.tmp/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert list(Folder(str(tmp_path)).listing()) == ["a", "b/c"]
    assert list(Folder(str(tmp_path)).listing("b")) == ["c"]
    assert Folder(str(tmp_path / "none")).listing() == {}


def test_any_fsspec_url() -> None:
    folder = Folder("memory://bucket/store")
    folder.publish("data/a", b"x")
    assert folder.read("data/a") == b"x"
    assert list(folder.listing("data")) == ["a"]
    assert folder.exists("data/a")
    assert not folder.exists("data/b")
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


class _NoAtomicPut(MemoryFileSystem):
    """Stands for sftp, hdfs, smb: a write that is cut off leaves what was written."""

    protocol = "nap"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("nap://", "memory://")))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        super().pipe_file(path, value[:1], mode, **kwargs)
        if value == b"cut off":
            raise ConnectionResetError
        super().pipe_file(path, value, mode, **kwargs)


def test_other_file_systems_are_published_to_by_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("nap", _NoAtomicPut, clobber=True)
    monkeypatch.setattr("rho_score.files.folder.with_retries", lambda call, **_: call())
    folder = Folder("nap://store")
    folder.publish("data/a", b"whole")
    assert folder.read("data/a") == b"whole"
    with pytest.raises(StorageError, match="nap://store/data/b could not be written: ConnectionResetError"):
        folder.publish("data/b", b"cut off")
    assert list(folder.listing()) == ["data/a"]


def test_an_unknown_protocol_is_wrong_usage() -> None:
    with pytest.raises(InputError, match="nosuch://x/y cannot be opened"):
        Folder("nosuch://user:secret@x/y?token=1").listing()


def test_credentials_are_taken_out_of_urls() -> None:
    assert without_credentials("sftp://me:pw@host/a/b") == "sftp://host/a/b"
    assert without_credentials("https://host/a?sig=1") == "https://host/a"
    assert without_credentials("/a/b@c") == "/a/b@c"


def test_a_disk_that_fails_is_no_answer_that_nothing_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.publish("manifest.json", b"{}")
    assert (folder.exists("manifest.json"), folder.exists("none"), folder.exists("manifest.json/none")) == (
        True,
        False,
        False,
    )

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("rho_score.files.retries.PATIENCE_S", 0.1)
    monkeypatch.setattr(type(folder.fs), "info", fails)
    with pytest.raises(StorageError, match=r"manifest\.json could not be read: EIO"):
        folder.exists("manifest.json")


def test_a_folder_stays_where_it_was_named_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = [Folder("scores"), Folder("./x/../scores/"), Folder("~/scores"), Folder(Path("scores"))]  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    assert {folder.path for folder in folders} == {folder.url for folder in folders} == {str(tmp_path / "scores")}
    assert Folder("memory://scores").url == "memory://scores"
