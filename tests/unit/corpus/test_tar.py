"""Tars of samples: what Hugging Face's reader of webdataset finds in them, in little memory and without reading images."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st

from rho_score.config import CorpusConfig, PlanConfig
from rho_score.corpus.columns import Columns, Document
from rho_score.corpus.content import columns_of
from rho_score.corpus.documents import documents
from rho_score.corpus.plan import make_plan
from rho_score.corpus.tar_shards import _opened, _samples
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.scoring.estimate import count
from tests.inputs.tar_kinds import tar


def read(folder: Path, **options: Any) -> list[Document]:
    """The documents of all units."""
    config = CorpusConfig(input=str(folder), **options)
    plan = make_plan(config)
    return [one for unit in plan.units for one in documents(Folder(plan.root), unit, columns_of(config))]


def test_the_samples_are_those_of_hugging_faces_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for i in range(30):
        key = f"part{i % 3}/{i:05}"
        files += [(f"{key}.JPG.bin", bytes(700)), (f"{key}.txt", f"text {i} é".encode())]
        files += [
            (f"{key}.json", json.dumps({"n": i, "meta": {"lang": "ab"[i % 2]}}).encode()),
            (f"{key}.cls", b"%d" % (i % 5)),
        ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar(*files))
    theirs = load_dataset(
        "webdataset", data_files=str(tmp_path / "in" / "a.tar"), split="train", cache_dir=str(tmp_path / "cache")
    )
    found = read(tmp_path / "in", text_column="txt", group_column="json.meta.lang")
    assert [document.doc_id for document in found] == [f"a.tar#{key}" for key in theirs["__key__"]]
    assert [document.text for document in found] == list(theirs["txt"])
    assert [document.group for document in found] == [record["meta"]["lang"] for record in theirs["json"]]
    named = read(tmp_path / "in", text_column="txt", id_column="cls,json.n")
    assert [document.doc_id for document in named] == [
        f"{number}/{record['n']}" for number, record in zip(theirs["cls"], theirs["json"], strict=True)
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["txt", "jpg", "x.txt", "json"])), max_size=12))
def test_each_sample_is_one_document(tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("tar")
    files = [(f"{key}.{name}", b'"%d"' % i) for i, (key, name) in enumerate(names)]
    (folder / "a.tar").write_bytes(tar(("first.txt", b"first"), *files))
    runs = [names[i:j] for i, j in _runs(names)]
    found = read(folder, text_column="txt")[1:]
    assert len(found) == len(runs)
    seen: set[str] = set()
    at = 0
    for document, run in zip(found, runs, strict=True):
        key, kinds = run[0][0], [name for _, name in run]
        if key in seen or len(set(kinds)) < len(kinds) or "txt" not in kinds:
            assert document.error is not None
        else:
            assert document.text == f'"{at + kinds.index("txt")}"'
        seen.add(key)
        at += len(run)


def _runs(names: list[tuple[str, str]]) -> list[tuple[int, int]]:
    """The ranges of consecutive names with the same key."""
    ends = [i for i in range(1, len(names)) if names[i][0] != names[i - 1][0]]
    return list(zip([0, *ends], [*ends, len(names)], strict=True)) if names else []


def test_images_are_not_read_and_members_do_not_pile_up(tmp_path: Path) -> None:
    files = [
        (f"{i}.{name}", bytes(1 << 20) if name == "jpg" else b"text") for i in range(20) for name in ("jpg", "txt")
    ]
    path = tmp_path / "a.tar"
    path.write_bytes(tar(*files))
    n_read = 0
    with path.open("rb") as file:

        class Counted:
            seek, tell = file.seek, file.tell
            mode = "rb"

            def read(self, size: int = -1) -> bytes:
                nonlocal n_read
                content = file.read(size)
                n_read += len(content)
                return content

        opened = _opened(Counted(), "")
        samples = list(_samples(opened, Columns("txt")))
    assert len(samples) == 20
    assert n_read < path.stat().st_size / 100
    assert not opened.members  # type: ignore[attr-defined]


def test_a_tar_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(*((f"{i}.txt", b"four") for i in range(50))))
    config = PlanConfig(input=str(tmp_path), text_column="txt")
    found = count(config, make_plan(config))
    assert (found.documents, found.text_bytes, found.text_exact) == (50, 200, True)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_any_length_is_not_read_into_memory(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, 4 << 30
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(5 << 30)  # a sparse file of zeros
    with pytest.raises(InputError, match=r"a\.tar: not readable \(a header of 4,294,967,296 bytes\)"):
        read(tmp_path, text_column="txt")


def test_a_tar_of_no_texts_beside_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    with tarfile.open(tmp_path / "b.tar", "w") as written:
        written.add(tmp_path / "a.jsonl", "a.jsonl")
    with pytest.raises(
        InputError, match=r"1 of 2 shards[^\n]*\n  b\.tar: no field 'text' .*there are: jsonl\..*a glob"
    ):
        make_plan(CorpusConfig(input=str(tmp_path)))
