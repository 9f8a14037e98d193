"""Files of token ids: every token once and in order, whatever the units, beside numpy and Megatron-LM's own reader."""

import io
import os
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from rho_score.config import CorpusConfig
from rho_score.corpus import token_shards
from rho_score.corpus.columns import Document
from rho_score.corpus.content import columns_of
from rho_score.corpus.documents import documents, read_unchanged
from rho_score.corpus.plan import make_plan
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder

END = 1


def _flat(dtype: str, ids: np.ndarray) -> bytes:
    return ids.astype(dtype).tobytes()


def _llm_c(magic: int, version: int, dtype: str) -> Callable[[np.ndarray], bytes]:
    return lambda ids: struct.pack("<256i", magic, version, len(ids), *[0] * 253) + _flat(dtype, ids)


def _npy(dtype: str) -> Callable[[np.ndarray], bytes]:
    def save(ids: np.ndarray) -> bytes:
        sink = io.BytesIO()
        np.save(sink, ids.astype(dtype))
        return sink.getvalue()

    return save


KINDS: dict[str, tuple[str, str, Callable[[np.ndarray], bytes]]] = {
    "nanoGPT": ("a.bin", "uint16", lambda ids: _flat("<u2", ids)),
    "uint32": ("a.bin", "uint32", lambda ids: _flat("<u4", ids)),
    "OLMo": ("a.npy", "uint16", lambda ids: _flat("<u2", ids)),
    "llm.c": ("a.bin", "auto", _llm_c(20240520, 1, "<u2")),
    "llm.c, llama": ("a.bin", "auto", _llm_c(20240801, 7, "<u4")),
    "numpy": ("a.npy", "auto", _npy("<i8")),
    "numpy, big-endian": ("a.npy", "auto", _npy(">u2")),
}


def read(folder: Path, **options: Any) -> list[Document]:
    """The documents of all units, each unit read by itself."""
    config = CorpusConfig(**{"input": str(folder), "split_at": str(END), "token_files": "auto"} | options)
    plan = make_plan(config)
    assert len({unit.unit for unit in plan.units}) == len(plan.units)
    return [one for unit in plan.units for one in documents(Folder(plan.root), unit, columns_of(config))]


def ids_of(document: Document) -> list[int]:
    assert document.error is None
    return list(orjson.loads(document.text or ""))


@pytest.mark.parametrize("kind", KINDS)
@given(ids=st.lists(st.integers(0, 4), min_size=1, max_size=40), unit=st.integers(1, 12), piece=st.integers(1, 9))
def test_every_token_is_in_one_document(
    kind: str, ids: list[int], unit: int, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, token_files, written = KINDS[kind]
    folder = tmp_path_factory.mktemp("tokens")
    stream = np.array(ids)
    (folder / name).write_bytes(written(stream))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_shards, "_PIECE", piece)
        found = read(folder, token_files=token_files, unit_bytes=4 * unit)
    expected = [part for part in np.split(stream, np.flatnonzero(stream == END) + 1) if len(part)]
    assert [ids_of(document) for document in found] == [part.tolist() for part in expected]
    starts = np.cumsum([0, *map(len, expected)])[:-1]
    assert [document.doc_id for document in found] == [f"{name}@{start}" for start in starts]


@given(
    lengths=st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=12),
    unit=st.integers(1, 20),
    dtype=st.sampled_from([np.uint16, np.int32]),
)
def test_megatron_datasets_are_cut_as_their_index_says(
    lengths: list[list[int]], unit: int, dtype: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A document may have several sequences, or none."""
    folder = tmp_path_factory.mktemp("megatron")
    draw = np.random.default_rng(sum(map(sum, lengths)))
    with (folder / "a.bin").open("wb"):
        builder = IndexedDatasetBuilder(str(folder / "a.bin"), dtype)
    for document in lengths:
        for length in document:
            builder.add_item(torch.from_numpy(draw.integers(0, 400, length).astype(np.int64)))
        builder.end_document()
    builder.finalize(str(folder / "a.idx"))
    if not sum(map(sum, lengths)):
        return  # the reader maps no empty file
    theirs = IndexedDataset(str(folder / "a"))
    bounds = theirs.document_indices
    expected = [
        [int(token) for sequence in range(first, stop) for token in theirs[sequence]]
        for first, stop in pairwise(bounds)
    ]
    plan = make_plan(CorpusConfig(input=str(folder), token_files="auto", unit_bytes=4 * unit))
    assert plan.not_shards == ()
    assert sum(one.rows or 0 for one in plan.units) == len(expected)
    found = read(folder, unit_bytes=4 * unit)
    assert [ids_of(document) for document in found] == expected
    assert [document.doc_id for document in found] == [f"a.bin#{i}" for i in range(len(expected))]


def test_units_have_the_tokens_that_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(_flat("<u2", np.full(1000, 7)))
    plan = make_plan(CorpusConfig(input=str(tmp_path), token_files="uint16", unit_bytes=400))
    assert [(unit.start, unit.stop) for unit in plan.units] == [(i, i + 100) for i in range(0, 1000, 100)]


def test_a_document_without_an_end_is_quarantined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_shards, "LONGEST_IDS", 20)
    monkeypatch.setattr(token_shards, "_PIECE", 8)
    stream = np.full(400, 7)
    stream[[9, 150]] = END
    (tmp_path / "a.bin").write_bytes(_flat("<u2", stream))
    for unit_bytes in (4, 40, 10**6):
        found = read(tmp_path, token_files="uint16", unit_bytes=unit_bytes)
        assert [document.doc_id for document in found] == ["a.bin@0", "a.bin@10", "a.bin@151"]
        assert len(ids_of(found[0])) == 10
        assert {document.error for document in found[1:]} == {"longer than 20 tokens. Is --split-at the right id?"}


def test_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit in the middle of a file of which most is missing on the disk takes its own range alone."""
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(8 << 30)  # a sparse file of zeros
    config = CorpusConfig(input=str(tmp_path), token_files="uint16", split_at="0")
    plan = make_plan(config)
    assert len(plan.units) == (4 << 30) // 4_000_000 + 1
    seen = []
    of = Folder.open

    def watched(self: Folder, name: str) -> Any:
        file = of(self, name)
        inner = file.read
        file.read = lambda size=-1: seen.append(size) or inner(size)
        return file

    monkeypatch.setattr(Folder, "open", watched)
    unit = plan.units[500]
    first = next(documents(Folder(plan.root), unit, columns_of(config)))
    assert first.doc_id == f"a.bin@{unit.start}"
    assert seen == [2 * (1 << 18)]


def test_a_dataset_whose_index_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(_flat("<u2", np.arange(6)))
    _index(tmp_path / "a.idx", [2, 4])
    config = CorpusConfig(input=str(tmp_path), token_files="auto")
    plan = make_plan(config)
    _index(tmp_path / "a.idx", [3, 3])
    os.utime(tmp_path / "a.idx", (1, 1))
    with pytest.raises(RhoScoreError, match=r"a\.bin changed since the run was planned"):
        read_unchanged(Folder(plan.root), plan.units[0], columns_of(config))


def _index(path: Path, of: list[int], **wrong: Any) -> None:
    """An index of documents of uint16 with these lengths, in which `wrong` replaces what is right."""
    n = len(of)
    parts: dict[str, Any] = {
        "magic": b"MMIDIDX\x00\x00",
        "version": 1,
        "code": 8,
        "lengths": of,
        "places": [2 * sum(of[:i]) for i in range(n)],
        "bounds": list(range(n + 1)),
    } | wrong
    head = parts["magic"] + struct.pack("<QBQQ", parts["version"], parts["code"], n, len(parts["bounds"]))
    arrays = (("lengths", "<i4"), ("places", "<i8"), ("bounds", "<i8"))
    path.write_bytes(head + b"".join(np.array(parts[name], dtype).tobytes() for name, dtype in arrays))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"magic": b"TNTIDX\x00\x00\x00"}, "a.idx beside it is no index of Megatron-LM"),
        ({"version": 2}, "a.idx has version 2 and the type 8"),
        ({"code": 7}, "the type 7 for ids, not version 1 and a type of integers"),
        ({"lengths": [2, 3]}, "counts 5 ids of 2 bytes, but the file has 12 bytes"),
        ({"lengths": [2, -4]}, "are no places of ids"),
        ({"places": [0, 6]}, "do not follow one another"),
        ({"places": [2, 6]}, "document 0 begins at token 1, but the one before ends at 0"),
        ({"bounds": [0, 2, 1]}, "the bounds of the documents 0 to 2"),
        ({"bounds": [0, 1, 1]}, "the bounds of the documents 0 to 2"),
        ({"bounds": [1, 1, 2]}, "the bounds of the documents 0 to 2"),
        ({"bounds": [0, 1 << 60, 2]}, "the bounds of the documents 0 to 2"),
        ({"bounds": []}, "0 bounds of documents"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(wrong: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(_flat("<u2", np.arange(6)))
    _index(tmp_path / "a.idx", [2, 4])
    assert [ids_of(document) for document in read(tmp_path)] == [[0, 1], [2, 3, 4, 5]]
    _index(tmp_path / "a.idx", [2, 4], **wrong)
    with pytest.raises(InputError) as error:
        read(tmp_path)
    assert "a.bin: " in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize("cut", [1, 10, 33, 40, 60])
def test_a_truncated_index_is_refused(cut: int, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(_flat("<u2", np.arange(6)))
    _index(tmp_path / "a.idx", [2, 4])
    (tmp_path / "a.idx").write_bytes((tmp_path / "a.idx").read_bytes()[:-cut])
    with pytest.raises(InputError, match=r"a\.idx"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ids_column": "ids"}, "--ids-column does not go with --token-files"),
        ({"id_column": "id"}, "--id-column does not go with --token-files"),
        ({"text_column": "body"}, "--text-column does not go with --token-files"),
        ({"split_at": "</s>"}, "--split-at must be eos or the id of a token, got '</s>'"),
        ({"roles": ("user",)}, "--roles and --chat-date are for chats"),
        ({"group_column": "lang"}, "no folder lang=… below the input"),
        ({"token_files": None}, "--split-at is for files of token ids"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(_flat("<u2", np.arange(6)))
    with pytest.raises(InputError) as error:
        read(tmp_path, **({"token_files": "uint16"} | options))
    assert words in str(error.value)
