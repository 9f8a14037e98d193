"""Arrow files and streams: every row once and in order, whatever the units, with the values that Parquet gives."""

import random
import struct
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.config import CorpusConfig
from rho_score.corpus import arrow_shards
from rho_score.corpus.arrow_messages import BATCH, DICTIONARY, footer, messages
from rho_score.corpus.columns import Document
from rho_score.corpus.content import columns_of
from rho_score.corpus.documents import documents
from rho_score.corpus.plan import make_plan
from rho_score.errors import InputError
from rho_score.files.folder import Folder

FORMS = ("stream", "file", "stream zstd", "file lz4")


def write(path: Path, batches: Sequence[pa.RecordBatch], form: str = "stream", **options: Any) -> Path:
    """An Arrow file or stream of these record batches."""
    kind, _, codec = form.partition(" ")
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with new(path, batches[0].schema, options=pa.ipc.IpcWriteOptions(compression=codec or None, **options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


def read(folder: Path, **options: Any) -> list[Document]:
    """The documents of all units, each unit read by itself."""
    config = CorpusConfig(input=str(folder), **options)
    plan = make_plan(config)
    found = []
    for unit in plan.units:
        of_unit = list(documents(Folder(plan.root), unit, columns_of(config)))
        assert len(of_unit) == unit.rows
        found += of_unit
    return found


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    unit_bytes=st.sampled_from([1, 200, 500, 10**6]),
    form=st.sampled_from(FORMS),
    dictionary=st.booleans(),
)
def test_every_row_is_one_document(
    lengths: list[int], unit_bytes: int, form: str, dictionary: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With dictionaries that a later batch of a stream replaces."""
    folder = tmp_path_factory.mktemp("arrow")
    texts = [[f"text {i}.{j} " * (j + 1) for j in range(n)] for i, n in enumerate(lengths)]
    if dictionary and form.startswith("file"):  # a file has one dictionary for all batches
        every = pa.array([text for of in texts for text in of], pa.string()).dictionary_encode()
        ends = np.cumsum([0, *lengths])
        columns = [every.slice(start, n) for start, n in zip(ends, lengths, strict=False)]
    else:
        columns = [pa.array(of, pa.string()) for of in texts]
        columns = [column.dictionary_encode() for column in columns] if dictionary else columns
    batches = [pa.record_batch({"n": pa.array(range(len(column)), pa.int64()), "text": column}) for column in columns]
    write(folder / "a.arrow", batches, form)
    if not sum(lengths):
        with pytest.raises(InputError, match="every shard is empty"):
            read(folder)
        return
    found = read(folder, unit_bytes=unit_bytes)
    assert [document.text for document in found] == [text for of in texts for text in of]
    assert [document.doc_id for document in found] == [f"a.arrow#{i}" for i in range(len(found))]
    if unit_bytes == 1:
        units = make_plan(CorpusConfig(input=str(folder), unit_bytes=1)).units
        assert [unit.rows for unit in units] == [n for n in lengths if n]


def _everything() -> pa.Table:
    return pa.table(
        {
            "text": pa.array(["one", None, "drei", "naïve 🙂"]),
            "view": pa.array(["one", None, "drei", "naïve"], pa.string_view()),
            "large": pa.array(["one", None, "drei", "naïve"], pa.large_string()),
            "id": pa.array([1, 2, None, 4]),
            "day": pa.array([date(2020, 1, 2)] * 4),
            "money": pa.array([Decimal("1.50")] * 4),
            "lang": pa.array(["en", "de", "en", None]).dictionary_encode(),
            "meta": pa.array([{"id": 7, "tags": {"a": "x"}}, None, {"id": None, "tags": None}, {"id": 9, "tags": {"a": "y"}}]),
            "ids": pa.array([[1, 2], [], None, [3]]),
            "chat": pa.array([[{"role": "user", "content": "hi"}], [], None, [{"role": "user", "content": None}]]),
        }
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"id_column": "id", "group_column": "lang"},
        {"text_column": "view", "id_column": "lang,meta.id"},
        {"text_column": "large", "id_column": "day", "group_column": "money"},
        {"text_column": "meta.tags.a", "group_column": "meta.id"},
        {"ids_column": "ids"},
        {"messages_column": "chat"},
        {"prefix_column": "view", "group_column": "where"},
    ],
)
def test_the_values_are_those_of_parquet(form: str, options: dict[str, Any], tmp_path: Path) -> None:
    table = _everything()
    for name in ("arrow", "parquet"):
        (tmp_path / name / "where=a%20b").mkdir(parents=True)
    write(tmp_path / "arrow" / "where=a%20b" / "a.x", table.to_batches(max_chunksize=3), form).rename(
        tmp_path / "arrow" / "where=a%20b" / "a.arrow"
    )
    pq.write_table(table, tmp_path / "parquet" / "where=a%20b" / "a.parquet", row_group_size=3)
    ours, theirs = read(tmp_path / "arrow", **options), read(tmp_path / "parquet", **options)
    assert [one._replace(doc_id=one.doc_id.replace("arrow", "parquet")) for one in ours] == theirs
    assert any(one.text for one in ours)
    columns = columns_of(CorpusConfig(input="", **options))
    ours_lack = CorpusConfig(input=str(tmp_path / "arrow"), **{**options, "group_column": "no"})
    with pytest.raises(InputError, match="no column 'no', and no folder no=… below the input; there are: text, view"):
        make_plan(ours_lack)
    assert columns.text


def test_feather_and_what_pandas_and_polars_write_are_read(tmp_path: Path) -> None:
    import polars

    rows = {"text": ["one", "two"]}
    pa.feather.write_feather(pa.table(rows), tmp_path / "a.feather")
    polars.DataFrame(rows).write_ipc(tmp_path / "b.ipc", compression="zstd")
    polars.DataFrame(rows).write_ipc_stream(tmp_path / "c.arrows")
    assert [document.text for document in read(tmp_path)] == ["one", "two"] * 3


@pytest.mark.parametrize("form", ["stream zstd", "file zstd"])
def test_a_damaged_batch_costs_its_own_rows_only(form: str, tmp_path: Path) -> None:
    """A frame of zstd that begins with other bytes: Arrow itself has no checksums."""
    draw = random.Random(0)
    batches = [pa.record_batch({"text": [draw.randbytes(400).hex() for _ in range(3)]}) for _ in range(3)]
    path = write(tmp_path / "a.arrow", batches, form)
    content = path.read_bytes()
    with path.open("rb") as file:
        found = messages(file, len(content)) if form.startswith("stream") else footer(file, len(content))[1]
        second = [message for message in found if message.kind == BATCH][1]
    frame = content.index(b"\x28\xb5\x2f\xfd", second.body)
    assert frame < second.stop
    path.write_bytes(content[:frame] + bytes(4) + content[frame + 4 :])
    read_back = read(tmp_path)
    assert [document.error is None for document in read_back] == [True] * 3 + [False] * 3 + [True] * 3
    assert f"record batch at byte {second.start} is damaged: " in str(read_back[3].error)


def test_strings_that_are_not_utf8_cost_their_own_rows_only(tmp_path: Path) -> None:
    column = pa.array([b"ok", b"\xc3\x28"], pa.binary()).view(pa.string())
    for form in ("stream", "file"):
        write(tmp_path / f"{form}.arrow", [pa.record_batch({"text": column, "m": pa.array([{"t": "x"}, None])})], form)
    assert [document.error for document in read(tmp_path)] == [None, "column 'text' is not valid UTF-8"] * 2


def test_offsets_that_lead_out_of_the_buffer_are_no_crash(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", [pa.record_batch({"text": ["one", "two", "three"]})])
    content = path.read_bytes()
    offsets = struct.pack("<4i", 0, 3, 6, 11)
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, struct.pack("<4i", 0, 1 << 30, 6, 11)))
    assert ["is damaged" in str(document.error) for document in read(tmp_path)] == [True] * 3


def test_a_batch_that_says_it_has_many_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", [pa.record_batch({"text": ["one"] * 77})])
    content, rows = path.read_bytes(), struct.pack("<q", 77)
    assert content.count(rows) == 2  # of the batch, and of its column
    path.write_bytes(content.replace(rows, struct.pack("<q", 1 << 24)))
    with pytest.raises(InputError, match=r"a\.arrow: not readable \(damaged at byte \d+: 16,777,216 rows in"):
        read(tmp_path)


def test_a_buffer_that_says_it_is_huge_is_not_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", [pa.record_batch({"text": ["x" * 10_000]})], "stream zstd")
    content = path.read_bytes()
    size = struct.pack("<q", 10_000)
    before, _, rest = content.rpartition(size)  # the first one is the end of the text in the offsets
    path.write_bytes(before + struct.pack("<q", 1 << 40) + rest)
    (document,) = read(tmp_path)
    assert "bytes uncompressed, more than 2,147,483,648" in str(document.error)


def test_most_text_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_shards, "LARGEST_SHARD", 3000)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 9, pa.int32()), ["x" * 1000])
    write(tmp_path / "a.arrow", [pa.record_batch({"text": text})] * 2)
    found = read(tmp_path)
    assert [document.error is None for document in found] == [True] * 2 + [False] * 16
    assert "has more than 3,000 characters of text" in str(found[-1].error)


@pytest.mark.parametrize("form", ["stream", "file"])
def test_a_failing_storage_is_no_damaged_batch(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.arrow", [pa.record_batch({"text": pa.array(["one"]).dictionary_encode()})], form)
    config, of = CorpusConfig(input=str(tmp_path)), Folder.open
    (unit,) = make_plan(config).units

    def outcome(stop: int) -> Any:
        monkeypatch.setattr(Folder, "open", lambda self, name: _Failing(of(self, name), stop))
        try:
            return [document.text for document in documents(Folder(str(tmp_path)), unit, columns_of(config))]
        except OSError as error:
            return error.errno

    found = [outcome(stop) for stop in range(0, path.stat().st_size, 7)]
    assert found.count(5) > len(found) / 2
    assert all(one in (5, ["one"]) for one in found)


class _Failing:
    """A file of which the bytes from `stop` on cannot be read."""

    def __init__(self, file: Any, stop: int) -> None:
        self._file, self._stop = file, stop
        self.seek, self.tell = file.seek, file.tell

    def __enter__(self) -> "_Failing":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> Any:
        if self._file.tell() <= self._stop < self._file.tell() + size:
            raise OSError(5, "Input/output error: invalid")
        return self._file.read(size)


@pytest.mark.parametrize("form", ["stream", "file"])
def test_no_damage_ends_the_process(form: str, tmp_path: Path) -> None:
    """Any byte changed, and the file cut anywhere: documents, quarantined ones, or a refusal."""
    batches = [pa.record_batch({"text": pa.array(["one", "two"]).dictionary_encode(), "id": [1, 2]})] * 2
    whole = write(tmp_path / "a.arrow", batches, form).read_bytes()
    draw = random.Random(0)
    for i in range(400):
        content = bytearray(whole)
        if i % 4:
            for _ in range(draw.randrange(1, 4)):
                content[draw.randrange(len(content))] = draw.choice([0, 1, 127, 128, 255, draw.randrange(256)])
        else:
            del content[draw.randrange(len(content)) :]
        (tmp_path / "a.arrow").write_bytes(bytes(content))
        try:
            found = read(tmp_path, id_column="id")
        except InputError:
            continue
        assert all((document.text is None) == (document.error is not None) for document in found)


def test_the_plan_reads_the_heads_of_batches_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pa.record_batch({"text": ["x" * 1000] * 1000})
    path = write(tmp_path / "a.arrow", [batch] * 20)
    read_bytes = 0
    of = Folder.open

    def watched(self: Folder, name: str, **options: Any) -> Any:
        file = of(self, name, **options)
        inner = file.read

        def counted(size: int = -1) -> Any:
            nonlocal read_bytes
            content = inner(size)
            read_bytes += len(content)
            return content

        file.read = counted
        return file

    monkeypatch.setattr(Folder, "open", watched)
    plan = make_plan(CorpusConfig(input=str(tmp_path), unit_bytes=2_000_000))
    assert [unit.rows for unit in plan.units] == [2000] * 10
    assert read_bytes < path.stat().st_size / 500


def test_dictionaries_stand_where_they_are_expected(tmp_path: Path) -> None:
    """A check of `messages` itself: pyarrow writes a dictionary before each batch that changes it."""
    batches = [pa.record_batch({"text": pa.array([word]).dictionary_encode()}) for word in ("a", "b")]
    path = write(tmp_path / "a.arrow", batches)
    with path.open("rb") as file:
        kinds = [message.kind for message in messages(file, path.stat().st_size)]
    assert kinds == [1, DICTIONARY, BATCH, DICTIONARY, BATCH]
