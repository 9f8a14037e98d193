"""Corpora in every format, and files with any names: planned, read and estimated."""

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.config import CorpusConfig, PlanConfig
from rho_score.estimate import estimate
from rho_score.plan import make_plan, read_plan
from rho_score.read import Columns, read_unit
from rho_score.storage import Folder
from tests.fuzz.place import place


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


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def corpus_target(name: str) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        folder = place() / "corpus"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_bytes(content)
        columns = {"text_column": "text", "id_column": "id", "group_column": "source"}
        try:
            plan = make_plan(CorpusConfig(input=str(path), unit_bytes=150, **columns))
            n_documents = 0
            for unit in plan.units:
                table = read_unit(Folder(plan.root), unit, Columns(*columns.values()))
                documents = table.filter(table["doc_id"].is_valid())
                assert documents["text"].null_count == len(documents) - documents["error"].null_count
                n_documents += len(documents)
            rows = [unit.rows for unit in plan.units]
            assert None in rows or sum(rows) == n_documents
            estimate(PlanConfig(input=str(path), **columns))
        finally:
            path.unlink()

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
