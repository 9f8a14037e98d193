"""Corpora in every format, and files with any names: planned, read and estimated."""

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.config import CorpusConfig, PlanConfig
from rho_score.corpus.content import columns_of
from rho_score.corpus.plan import make_plan, read_plan
from rho_score.exporting.megatron import megatron_index
from rho_score.files.folder import Folder
from rho_score.scoring.plan_lines import estimate
from rho_score.scoring.read import read_unit
from tests.fuzz.place import place
from tests.inputs.tar_kinds import tar


def _rows() -> list[dict[str, Any]]:
    texts = ["a b c", "", None, "東京 🙂", "x" * 300, "line\nbreak", "\x00\x1b[31m"]
    return [{"id": f"d{i}", "source": "ab"[i % 2], "n": i, "text": texts[i % 7]} for i in range(23)]


def parquet_files() -> list[bytes]:
    table, files = pa.Table.from_pylist(_rows()), []
    for options in (
        {"compression": "none", "use_dictionary": False},
        {"compression": "zstd", "write_page_checksum": True},
        {"compression": "snappy", "data_page_version": "2.0", "row_group_size": 5},
        {"compression": "gzip", "column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "use_dictionary": False},
    ):
        sink = io.BytesIO()
        pq.write_table(table, sink, **options)
        files.append(sink.getvalue())
    nested = io.BytesIO()
    pq.write_table(table.append_column("tags", pa.array([[{"k": [1, 2]}]] * len(table))), nested)
    return [*files, nested.getvalue()]


def jsonl() -> bytes:
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0).encode() for i, row in enumerate(_rows())]
    return b"\n".join([*lines, b"", b"[1]", b'{"id": 1, "text": 7}', b'{"text": "\\ud800"}', b"{" * 50]) + b"\n"


NESTED = {"text_column": "body.text", "id_column": "lang,meta.id", "group_column": "meta.seen"}


def _nested_rows() -> list[dict[str, Any]]:
    return [
        {"body": {"text": row["text"]}, "meta": {"id": row["n"] / 2, "seen": i % 3 == 0} if i % 5 else None}
        for i, row in enumerate(_rows())
    ]


def nested_jsonl() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in _nested_rows())


def nested_parquet() -> list[bytes]:
    files = []
    for kind in (pa.bool_(), pa.timestamp("us", "UTC"), pa.binary(4), pa.uuid(), pa.decimal128(9, 2), pa.string()):
        rows = len(_rows())
        width = {pa.binary(4): 4, pa.uuid(): 16}.get(kind, 1)
        seen = pa.array([None] * rows, kind) if kind == pa.string() else _some(kind, rows, width)
        structs = pa.StructArray.from_arrays([pa.array([i / 2 for i in range(rows)]), seen], ["id", "seen"])
        bodies = pa.array([{"text": row["text"]} for row in _rows()])
        sink = io.BytesIO()
        pq.write_table(pa.table({"body": bodies, "meta": structs}), sink, row_group_size=9)
        files.append(sink.getvalue())
    return files


def _some(kind: pa.DataType, n: int, width: int) -> pa.Array:
    if kind == pa.decimal128(9, 2):
        return pa.array([Decimal(i) / 4 for i in range(n)], kind)
    return pa.array(
        [bytes([i] * width) if width > 1 else i if kind != pa.bool_() else i % 2 == 0 for i in range(n)], kind
    )


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def arrow_files() -> list[bytes]:
    table, files = pa.Table.from_pylist(_rows()), []
    table = table.set_column(1, "source", table["source"].combine_chunks().dictionary_encode())
    for new, codec in (
        (pa.ipc.new_stream, None),
        (pa.ipc.new_file, "lz4"),
        (pa.ipc.new_stream, "zstd"),
        (pa.ipc.new_file, None),
    ):
        sink = pa.BufferOutputStream()
        with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            writer.write_table(table, max_chunksize=7)
        files.append(sink.getvalue().to_pybytes())
    return files


def tars() -> list[bytes]:
    files = [
        (f"{i}.{name}", value.encode())
        for i in range(9)
        for name, value in (("text", f"t{i}"), ("id", str(i)), ("source", "a"))
    ]
    return [tar(*files, form=form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]


IDS = np.arange(90, dtype="<u2") % 7


def token_files() -> list[bytes]:
    saved = io.BytesIO()
    np.save(saved, IDS)
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(IDS)
    return [IDS.tobytes(), saved.getvalue(), header.tobytes() + IDS.tobytes()]


def indices() -> list[bytes]:
    return [megatron_index(np.full(n, len(IDS) // n), np.dtype(np.uint16)) for n in (9, 90)]


TOKENS = {"token_files": "uint16", "split_at": "1"}


def corpus_target(name: str, beside: dict[str, bytes] | None = None, **named: str) -> Callable[[bytes], None]:
    """beside: other files of the corpus, by name."""
    columns: dict[str, Any] = named or {"text_column": "text", "id_column": "id", "group_column": "source"}

    def run(content: bytes) -> None:
        folder = place() / "corpus"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for other, data in {**(beside or {}), name: content}.items():
            (folder / other).write_bytes(data)
        try:
            config = CorpusConfig(input=str(folder), unit_bytes=150, **columns)
            plan = make_plan(config)
            n_documents = 0
            for unit in plan.units:
                table = read_unit(Folder(plan.root), unit, columns_of(config))
                documents = table.filter(table["doc_id"].is_valid())
                assert documents["text"].null_count == len(documents) - documents["error"].null_count
                n_documents += len(documents)
            rows = [unit.rows for unit in plan.units]
            assert None in rows or sum(rows) == n_documents
            estimate(PlanConfig(input=str(folder), **columns))
        finally:
            for other in (name, *(beside or {})):
                (folder / other).unlink()

    return run


def file_names(content: bytes) -> None:
    """A corpus whose files have these names, as far as a disk takes them."""
    folder = place() / "names"
    folder.mkdir(exist_ok=True)
    made = []
    try:
        for name in content.split(b"\n")[:6]:
            path = folder / os.fsdecode(name.replace(b"/", b"")[:200] + b".jsonl")
            with contextlib.suppress(OSError, ValueError):
                path.write_bytes(b'{"text": "x"}\n')
                made.append(path)
        plan = make_plan(CorpusConfig(input=str(folder)))
        for unit in plan.units:
            output = Folder(str(place() / "out"))
            assert Path(output.name(f"data/{unit.unit}.parquet")).resolve().parent == (place() / "out/data").resolve()
            assert unit.unit.isascii()
            assert len(unit.unit) < 200
        assert read_plan(plan.to_parquet()) == plan.units
        print(estimate(PlanConfig(input=str(folder))))
    finally:
        for path in made:
            path.unlink(missing_ok=True)
