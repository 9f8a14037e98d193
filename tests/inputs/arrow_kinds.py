"""Arrow files and streams, saved datasets, and tables of Delta and Iceberg: kind, how it is made, answer."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from deltalake import DeltaTable, write_deltalake

from tests.inputs.kinds import Doc, Kind, Make, lost, refused
from tests.inputs.parquet_kinds import both, content

A, B = Doc("one"), Doc("two")
TWO = {"text": ["one", "two"]}


def arrow(columns: dict[str, Any], name: str = "a.arrow", *, file: bool = False, cut: int = 0, codec: str = "") -> Make:
    """One record batch as a stream or a file, without its last bytes."""

    def make(folder: Path) -> None:
        batch = pa.record_batch(columns)
        sink = pa.BufferOutputStream()
        new = pa.ipc.new_file if file else pa.ipc.new_stream
        with new(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec or None)) as writer:
            writer.write_batch(batch)
        data = sink.getvalue().to_pybytes()
        (folder / name).write_bytes(data[: len(data) - cut])

    return make


def _feather(folder: Path) -> None:
    pa.feather.write_feather(pa.table(TWO), folder / "a.feather")


def _feather_1(folder: Path) -> None:
    pa.feather.write_feather(pa.table(TWO), folder / "a.feather", version=1)


def _saved(folder: Path) -> None:
    Dataset.from_dict(TWO).save_to_disk(folder / "set", num_shards=2)
    arrow({"text": ["cached"]}, "cache-0123456789abcdef.arrow")(folder / "set")
    arrow({"text": ["of an older save"]}, "data-00000-of-00001.arrow")(folder / "set")


def _splits(folder: Path) -> None:
    DatasetDict({"train": Dataset.from_dict(TWO), "test": Dataset.from_dict({"text": ["one"]})}).save_to_disk(
        folder / "d"
    )


def _indices(folder: Path) -> None:
    """As versions before 2.0 saved a dataset that was filtered or shuffled."""
    Dataset.from_dict(TWO).save_to_disk(folder)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "indices.arrow"}]}))


def delta(folder: Path) -> None:
    """A table of which a version was replaced and a row deleted."""
    table = str(folder / "table")
    write_deltalake(table, pa.table({"text": ["gone"], "lang": ["de"]}), partition_by=["lang"])
    write_deltalake(table, pa.table({"text": ["one", "two", "deleted"], "lang": ["en", "de", "de"]}), mode="overwrite")
    DeltaTable(table).delete("text = 'deleted'")


def _part_of_delta(given: str) -> Make:
    def make(folder: Path) -> str:
        delta(folder)
        return str(next((folder / "table").glob(given)))

    return make


def _deletion_vectors(folder: Path) -> None:
    """A table as Databricks writes it: a row of its file is deleted by a list of places."""
    (folder / "_delta_log").mkdir()
    pq.write_table(pa.table(TWO), folder / "a.parquet")
    schema = {"type": "struct", "fields": [{"name": "text", "type": "string", "nullable": True, "metadata": {}}]}
    vector = {"storageType": "i", "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", "sizeInBytes": 44, "cardinality": 6}  # fmt: skip
    actions = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}},
        {"metaData": {"id": "1", "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps(schema), "partitionColumns": [], "configuration": {"delta.enableDeletionVectors": "true"}}},
        {"add": {"path": "a.parquet", "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": True, "stats": '{"numRecords": 100}', "deletionVector": vector}},
    ]  # fmt: skip
    (folder / "_delta_log" / "00000000000000000000.json").write_text("\n".join(map(json.dumps, actions)))


def _lost_file(folder: Path) -> None:
    delta(folder)
    for path in (folder / "table").glob("lang=en/*.parquet"):
        path.unlink()


def _iceberg(folder: Path) -> None:
    (folder / "t" / "data").mkdir(parents=True)
    (folder / "t" / "metadata").mkdir()
    pq.write_table(pa.table(TWO), folder / "t" / "data" / "a.parquet")
    (folder / "t" / "metadata" / "v1.metadata.json").write_text('{"format-version": 2}')


ARROW = [
    Kind("an Arrow stream", arrow(TWO), [Doc("one", id="a.arrow#0"), Doc("two", id="a.arrow#1")]),
    Kind("an Arrow file, compressed", arrow(TWO, file=True, codec="zstd"), [A, B]),
    Kind("names .arrows, .ipc, .feather", both(arrow(TWO, "a.arrows"), arrow({"text": ["one"]}, "b.ipc", file=True), arrow({"text": ["two"]}, "c.feather", file=True)), [A, B, A, B]),
    Kind("Feather of version 2", _feather, [A, B]),
    Kind("Feather of version 1", _feather_1, refused("a.feather", "it is Feather of version 1", "as Parquet")),
    Kind("columns of Arrow as text, id and group", arrow({"body": pa.array([{"text": "one"}, None]), "n": [7, 8], "lang": pa.array(["en", "de"]).dictionary_encode()}), [Doc("one", id="7", group="en"), lost("column 'body.text' is null", "8")._replace(group="de")], options={"text_column": "body.text", "id_column": "n", "group_column": "lang"}),
    Kind("strings of Arrow that are not UTF-8", arrow({"text": pa.array([b"one", b"\xc3\x28"], pa.binary()).view(pa.string())}), [A, lost("column 'text' is not valid UTF-8")]),
    Kind("a stream without rows", both(arrow({"text": pa.array([], pa.string())}), arrow(TWO, "b.arrow")), [A, B]),
    Kind("no column of that name in Arrow", arrow({"body": ["one"]}), refused("a.arrow", "no column 'text'", "there are: body", "--text-column")),
    Kind("numbers for text in Arrow", arrow({"text": [1]}), refused("a.arrow", "column 'text' has type int64, not string", "--text-column")),
    Kind("a stream that breaks off inside a batch", arrow(TWO, cut=60), refused("a.arrow", "not readable (truncated", "Replace it")),
    Kind("an Arrow file without its footer", arrow(TWO, file=True, cut=4), refused("a.arrow", "not readable (truncated: it has no footer)", "Replace it")),
    Kind("an Arrow file of 0 bytes", content(b"", "a.arrow"), refused("a.arrow", "0 bytes, so not even a header", "Replace it")),
    Kind("other bytes named .arrow", content(b"not Arrow at all", "a.arrow"), refused("a.arrow", "not readable", "Replace it")),
    Kind("a saved Dataset, with caches and files of an older save", _saved, [A, B], "its rows are scored; caches, and files that state.json does not name, are left out and named"),
    Kind("caches of datasets without a state.json", both(arrow(TWO), arrow(TWO, "cache-0123456789abcdef.arrow"), arrow(TWO, "cache-0123456789abcdef_00000_of_00002.arrow")), [A, B], "left out and named; the other Arrow files are read"),
    Kind("a saved DatasetDict", _splits, [A, A, B], "the rows of all its splits are scored"),
    Kind("a saved Dataset with a list of indices", _indices, refused("is a dataset of which a list of indices chooses the rows", "dataset.flatten_indices().save_to_disk(…)")),
    Kind("a Delta table", delta, [Doc("two", group="de"), Doc("one", group="en")], "the rows of its newest version are scored; files of older versions are left out and named", options={"group_column": "lang"}),
    Kind("one file of a Delta table", _part_of_delta("lang=en/*.parquet"), refused("is inside the Delta table", "Give the folder of the table")),
    Kind("a folder of a Delta table", _part_of_delta("lang=en"), refused("is inside the Delta table", "Give the folder of the table")),
    Kind("a Delta table that lacks a file", _lost_file, refused("table/ is a Delta table, but its file lang=en/part", "is not there", "Restore it")),
    Kind("a Delta table with deletion vectors", _deletion_vectors, refused("the Delta table", "has deletion vectors", "APPLY (PURGE)")),
    Kind("an Iceberg table", _iceberg, refused("t is an Iceberg table (t/metadata/v1.metadata.json)", "Write its newest snapshot as Parquet first")),
]  # fmt: skip
