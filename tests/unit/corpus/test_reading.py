"""The planner and the readers together: every document once, as it was written, whatever the units."""

import bz2
import contextlib
import gzip
import json
import lzma
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rho_score.config import CorpusConfig
from rho_score.corpus.columns import Columns, Document
from rho_score.corpus.documents import documents
from rho_score.corpus.plan import make_plan, read_plan
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.scoring.blocks import DOCUMENTS
from rho_score.scoring.read import read_unit
from tests.conftest import N_DOCUMENTS, N_QUARANTINED, damage_row_group, write_corpus

COLUMNS = Columns("text", "id", "source")


def _config(path: Path | str, **changes: object) -> CorpusConfig:
    return CorpusConfig(**({"input": str(path), "id_column": "id", "group_column": "source"} | changes))  # type: ignore[arg-type]


def _read(config: CorpusConfig) -> list[Document]:
    plan = make_plan(config)
    columns = Columns(config.text_column, config.id_column, config.group_column)
    return [d for unit in plan.units for d in documents(Folder(plan.root), unit, columns)]


@pytest.mark.parametrize("unit_bytes", [1, 500, 3000, 10**9])
def test_units_partition_the_corpus(corpus: Path, unit_bytes: int) -> None:
    read = _read(_config(corpus, unit_bytes=unit_bytes))
    # the line's number is known in a shard's first unit only
    known = [document._replace(error=document.error and document.error.split("byte ")[-1]) for document in read]
    whole = [
        document._replace(error=document.error and document.error.split("byte ")[-1])
        for document in _read(_config(corpus))
    ]
    assert known == whole
    assert len(read) == N_DOCUMENTS
    assert sum(document.error is not None for document in read) == N_QUARANTINED
    assert all((document.text is None) == (document.error is not None) for document in read)


LINES = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(
            lambda t: json.dumps({"text": t}, ensure_ascii=False)
        ),
        st.sampled_from(["", "  ", "{", "[]", '{"text": null}', '{"text": "\\ud800"}', '{"x": "text"}', "\x00"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(LINES, st.integers(1, 60), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_jsonl_ranges_read_each_line_once_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], unit_bytes: int, newline: str, ends: bool
) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    lines = ['{"text": "first"}', *[line.replace("\n", " ").replace("\r", " ") for line in lines]]
    (folder / "a.jsonl").write_bytes((newline.join(lines) + (newline if ends else "")).encode())
    read = _read(CorpusConfig(input=str(folder), unit_bytes=unit_bytes))
    wanted = [line for line in lines if line.strip(" \t")]
    assert len(read) == len(wanted)
    for document, line in zip(read, wanted, strict=True):
        try:
            text = json.loads(line)["text"]
            valid = isinstance(text, str) and text.encode("utf-8", "strict") is not None
        except (ValueError, TypeError, KeyError):
            valid = False
        assert document.text == (text if valid else None)
        assert (document.error is None) == valid
    assert len({document.doc_id for document in read}) == len(read)


def test_strings_stay_strings(tmp_path: Path) -> None:
    values = ["00012", "2020-01-01", "1e5", "null", " padded ", "tab\t", '"', "\u2028"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": v}) + "\n" for v in values))
    assert [document.text for document in _read(CorpusConfig(input=str(tmp_path)))] == values


def test_ids_and_places(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b", None]}), tmp_path / "p.parquet", row_group_size=1)
    (tmp_path / "q.jsonl").write_text('{"text": "c"}\n\n{"text": 1}\n{"text": "d"}\n')
    read = _read(CorpusConfig(input=str(tmp_path), unit_bytes=1))
    assert [d.doc_id for d in read] == [
        "p.parquet#0",
        "p.parquet#1",
        "p.parquet#2",
        "q.jsonl@0",
        "q.jsonl@15",
        "q.jsonl@27",
    ]
    assert read[2].error == "column 'text' is null"
    assert read[4].error == "byte 15: column 'text' is int, not a string"
    whole = _read(CorpusConfig(input=str(tmp_path)))
    assert whole[4].error == "line 3, byte 15: column 'text' is int, not a string"


def test_invalid_utf8_is_a_record_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "\xff\xfe"}\n')
    column = pa.array([b"ok", b"\xc3\x28"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "b.parquet")
    errors = [document.error for document in _read(CorpusConfig(input=str(tmp_path)))]
    assert errors[0] is None
    assert errors[1] is not None
    assert errors[1].startswith("line 2, byte 17: not valid JSON")
    assert errors[2:] == [None, "column 'text' is not valid UTF-8"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_string_types(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(["a", None, "ä"]).cast(kind), "id": [3, 4, 5]}), tmp_path / "a.parquet")
    read = _read(CorpusConfig(input=str(tmp_path), id_column="id"))
    assert [(d.doc_id, d.text) for d in read] == [("3", "a"), ("4", None), ("5", "ä")]


def test_a_truncated_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    content = gzip.compress(
        b"".join(b'{"text": "%d %s"}\n' % (i, bytes(str(i * 7919), "ascii") * 30) for i in range(3000))
    )
    (tmp_path / "a.jsonl.gz").write_bytes(content[: len(content) // 2])
    read = _read(CorpusConfig(input=str(tmp_path)))
    assert len(read) > 100
    assert all(document.error is None for document in read[:-1])
    assert read[-1].error is not None


PRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    "lz4": lambda data: pa.Codec("lz4").compress(data, asbytes=True),
}


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", ["bz2", "xz", "lz4"])
@pytest.mark.parametrize("how", ["cut", "changed"])
def test_a_damaged_stream_keeps_what_came_before(tmp_path: Path, suffix: str, how: str, where: float) -> None:
    texts = [random.Random(i).randbytes(300).hex() for i in range(3000)]
    content = PRESS[suffix](b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
    at = int(len(content) * where)
    damaged = content[:at] if how == "cut" else content[:at] + bytes(200) + content[at + 200 :]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(damaged)
    read = _read(CorpusConfig(input=str(tmp_path)))
    assert read[-1].error is not None
    assert "the compressed stream is damaged here, the rest is lost" in read[-1].error
    good = [document.text for document in read if document.error is None]
    kept = next((i for i, text in enumerate(good) if text != texts[i]), len(good))
    assert kept > 0.9 * where * len(texts) - 200  # a block of bzip2 is 150 of them
    assert len({document.doc_id for document in read}) == len(read)


@pytest.mark.parametrize("suffix", PRESS)
def test_streams_behind_each_other_are_all_read(tmp_path: Path, suffix: str) -> None:
    streams = [PRESS[suffix](b'{"text": "%d"}\n' % i) for i in range(3)]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(b"".join(streams))
    assert [document.text for document in _read(CorpusConfig(input=str(tmp_path)))] == ["0", "1", "2"]


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_damaged_stream_behind_another_is_not_taken_for_the_end(tmp_path: Path, suffix: str) -> None:
    first, second = (PRESS[suffix](b'{"text": "%d"}\n' % i) for i in range(2))
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(first + b"XXXX" + second[4:])
    read = _read(CorpusConfig(input=str(tmp_path)))
    assert [document.text for document in read] == ["0", None]
    assert "the rest is lost" in str(read[1].error)


@pytest.mark.parametrize("suffix", ["bz2", "xz"])
def test_a_failing_storage_is_not_a_damaged_stream(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(PRESS[suffix](b'{"text": "a"}\n'))
    plan = make_plan(CorpusConfig(input=str(tmp_path)))

    class Failing:
        def read(self, size: int) -> bytes:
            raise OSError(5, "Input/output error: invalid")

    monkeypatch.setattr(Folder, "open", lambda *_: contextlib.nullcontext(Failing()))
    with pytest.raises(OSError, match="Input/output error"):
        list(documents(Folder(plan.root), plan.units[0], Columns("text")))


def test_an_xz_file_cannot_ask_for_any_memory(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(b'{"text": "a"}\n', filters=filters))
    with pytest.raises(InputError, match=r"a\.jsonl\.xz: not readable \(Memory usage limit"):
        make_plan(CorpusConfig(input=str(tmp_path)))


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [f"{i} " + "abcdefgh" * 200 + str(i * 7919) for i in range(40)]
    pq.write_table(pa.table({"text": rows}), path, row_group_size=10, write_page_checksum=True, use_dictionary=False)
    damage_row_group(path, 1)
    read = _read(CorpusConfig(input=str(tmp_path)))
    assert [document.text is not None for document in read] == [True] * 10 + [False] * 10 + [True] * 20
    assert read[10].error is not None
    assert read[10].error.startswith("row group 1 is damaged")


def test_a_unit_without_documents_is_one_row_of_nulls(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b"\n\n")
    plan = make_plan(CorpusConfig(input=str(tmp_path)))
    table = read_unit(Folder(plan.root), plan.units[0], Columns("text"))
    assert table.schema == DOCUMENTS
    assert table["doc_id"].to_pylist() == [None]


def test_a_gzip_with_garbage_behind_is_a_record(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}\n') + b"garbage")
    read = _read(CorpusConfig(input=str(tmp_path)))
    assert [document.text for document in read] == ["a", "b", None]
    assert read[2].error is not None
    assert "the rest is lost" in read[2].error


def test_an_error_of_the_storage_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What says `invalid` may be a token of the store: it must end the run, not quarantine a row group."""
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    plan = make_plan(CorpusConfig(input=str(tmp_path)))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(22, "The provided token is malformed or otherwise invalid.")

    monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", refuse)
    with pytest.raises(OSError, match="otherwise invalid"):
        list(documents(Folder(plan.root), plan.units[0], Columns("text")))


FOOTERS = """
import io, struct, sys
import pyarrow as pa, pyarrow.parquet as pq
from rho_score.config import CorpusConfig
from rho_score.errors import InputError
from rho_score.corpus.plan import make_plan
sink = io.BytesIO()
nested = len(sys.argv) > 2
table = {"id": ["a", "b", None], "text": ["one", "two", "three"]}
if nested:
    table = {"m": [{"id": 1, "b": {"text": "one"}}, {"id": 2, "b": None}, None]}
columns = {"text_column": "m.b.text", "id_column": "m.id"} if nested else {}
pq.write_table(pa.table(table), sink, row_group_size=2)
content = sink.getvalue()
(length,) = struct.unpack("<I", content[-8:-4])
refused = 0
for at in range(len(content) - 8 - length, len(content) - 8):
    for byte in (0, 37, 255):
        with open(sys.argv[1], "wb") as file:
            file.write(content[:at] + bytes([byte]) + content[at + 1 :])
        try:
            make_plan(CorpusConfig(input=sys.argv[1], **columns))
        except InputError as error:
            refused += 1
            assert "x.parquet" in str(error) or "no document" in str(error), error
print(refused)
"""


@pytest.mark.parametrize("nested", [[], ["nested"]], ids=["flat", "nested"])
def test_no_damaged_footer_ends_the_process(tmp_path: Path, nested: list[str]) -> None:
    """Asked about a column whose footer is damaged, pyarrow does."""
    command = [sys.executable, "-c", FOOTERS, str(tmp_path / "x.parquet"), *nested]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 500


def test_a_footer_that_counts_its_rows_two_ways_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"] * 7}), path, row_group_size=4)
    before, _, after = path.read_bytes().rpartition(b"\x16\x0e")  # an integer of 64 bits: 7, as twice its value
    assert pq.ParquetFile(path).metadata.num_rows == 7
    path.write_bytes(before + b"\x16\x12" + after)
    with pytest.raises(
        InputError, match=r"a\.parquet: not readable \(its footer says 9 rows, its row groups 7\)\. Replace it"
    ):
        make_plan(CorpusConfig(input=str(tmp_path)))


def test_rows_that_a_row_group_lacks_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    plan = make_plan(CorpusConfig(input=str(tmp_path)))
    one = pa.RecordBatch.from_pydict({"text": ["a"]})
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", lambda *_, **__: iter([one]))
    read = list(documents(Folder(plan.root), plan.units[0], Columns("text")))
    assert [(doc.doc_id, doc.error) for doc in read] == [
        (f"a.parquet#{i}", "row group 0 is damaged: 1 rows, where the footer says 2") for i in range(2)
    ]


def test_every_file_is_a_shard_or_named_as_left_out(tmp_path: Path) -> None:
    for name in ("a.jsonl", "_b.jsonl", "_raw/c.jsonl", "d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}\n')
    plan = make_plan(CorpusConfig(input=str(tmp_path)))
    assert {unit.shard for unit in plan.units} == {"a.jsonl"}
    assert set(plan.not_shards) == {"_b.jsonl", "_raw/c.jsonl", "d.csv"}


def test_names_of_units_are_names_that_readers_see(tmp_path: Path) -> None:
    name = "x" * 60 + "/" + "_" * 70 + "y.jsonl"
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text('{"text": "a"}\n')
    shard = tmp_path / ("x" * 60) / ("a" + "_" * 75 + ".jsonl")
    shard.write_text('{"text": "a"}\n')
    for unit in make_plan(CorpusConfig(input=str(tmp_path))).units:
        assert unit.unit[0] not in "._-"


def test_the_plan_depends_on_the_input_alone(corpus: Path, tmp_path: Path) -> None:
    plan = make_plan(_config(corpus, unit_bytes=500))
    assert read_plan(plan.to_parquet()) == plan.units
    assert len({unit.unit for unit in plan.units}) == len(plan.units) > 20
    assert plan.not_shards == ("NOTES.txt",)
    elsewhere = make_plan(_config(write_corpus(tmp_path / "copy"), unit_bytes=500))
    assert [unit.unit for unit in elsewhere.units] == [unit.unit for unit in plan.units]


def test_a_file_or_a_glob_is_a_corpus_too(corpus: Path) -> None:
    assert {u.shard for u in make_plan(_config(corpus / "a.parquet")).units} == {"a.parquet"}
    assert {u.shard for u in make_plan(_config(f"{corpus}/*.parquet")).units} == {"a.parquet"}
    assert {u.shard for u in make_plan(_config(f"{corpus}/**/*.parquet")).units} == {
        "a.parquet",
        "sub/b.parquet",
    }


def test_a_shard_that_changed_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    plan = make_plan(_config(corpus))
    (corpus / "c.jsonl").write_text('{"text": "other"}\n')
    unit = next(unit for unit in plan.units if unit.shard == "c.jsonl")
    with pytest.raises(RhoScoreError, match=r"c\.jsonl changed since the run was planned"):
        read_unit(Folder(plan.root), unit, COLUMNS)


def _no_column(folder: Path) -> None:
    pq.write_table(pa.table({"body": ["a"]}), folder / "a.parquet")


def _wrong_type(folder: Path) -> None:
    pq.write_table(pa.table({"text": [1]}), folder / "a.parquet")


def _truncated(folder: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), folder / "a.parquet")
    (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-20])


def _no_field(folder: Path) -> None:
    (folder / "a.jsonl").write_text('{"body": "a"}\n')


def _only_empty(folder: Path) -> None:
    (folder / "a.jsonl").write_text("")


def _no_shards(folder: Path) -> None:
    (folder / "a.txt").write_text("text")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_column, ["a.parquet", "no column 'text'", "body", "--text-column"]),
        (_wrong_type, ["a.parquet", "int64", "--text-column"]),
        (_truncated, ["a.parquet", "not readable"]),
        (_no_field, ["a.jsonl", "no field 'text'", "body"]),
        (_only_empty, ["every shard is empty"]),
        (_no_shards, ["no shards", ".parquet"]),
    ],
)
def test_bad_input_is_named_before_any_work(tmp_path: Path, spoil: Callable[[Path], None], words: list[str]) -> None:
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        make_plan(CorpusConfig(input=str(tmp_path)))
    for word in words:
        assert word in str(error.value)


def test_nothing_there() -> None:
    with pytest.raises(InputError, match="nothing at /nowhere/at/all"):
        make_plan(CorpusConfig(input="/nowhere/at/all"))
