"""Where a corpus is: kind, how it is made, answer."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.inputs.kinds import Doc, Kind, Make, lost, refused

LINE = '{"text": "one"}\n'
NAMES = ("a b.jsonl", "ü東.jsonl", "c#d.jsonl", "e%20f.jsonl", "g\nh.jsonl", "i*[1]?.jsonl", "UPPER.JSONL")


def files(*names: str, given: str = "") -> Make:
    """Shards of one document each; `given`: INPUT, relative to the folder, where it is not the folder."""

    def make(folder: Path) -> str | None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(LINE)
        return f"{folder}/{given}" if given else None

    return make


def link(name: str, target: str) -> Make:
    """A shard beside a link."""

    def make(folder: Path) -> None:
        files("a.jsonl")(folder)
        (folder / name).symlink_to(folder / target if target == name else target)

    return make


def _loop(folder: Path) -> None:
    files("a.jsonl", "sub/b.jsonl")(folder)
    (folder / "sub" / "up").symlink_to(folder)


def _hive(folder: Path) -> None:
    for name, row in (
        ("lang=en/a.parquet", {"text": "one", "id": 7}),
        ("lang=zh-H%C3%A4nt/b.jsonl", {"text": "two", "id": 8}),
        ("lang=en/c.parquet", {"text": "one", "id": 9, "lang": "own"}),
        ("lang=__HIVE_DEFAULT_PARTITION__/d.parquet", {"text": "two", "id": 10}),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        if name.endswith(".jsonl"):
            (folder / name).write_text(json.dumps(row))
        else:
            pq.write_table(pa.Table.from_pylist([row]), folder / name)


def _hive_lacks(folder: Path) -> None:
    (folder / "lang=en").mkdir()
    for name in ("lang=en/a.parquet", "b.parquet"):
        pq.write_table(pa.table({"text": ["one"]}), folder / name)


PATHS = [
    Kind("nothing there", files(given="none"), refused("there is nothing at", "none", "Check the path")),
    Kind("a pattern that matches nothing", files("a.jsonl", given="*.parquet"), refused("no shards in", "*.parquet", "Check the path")),
    Kind("a folder without a shard", files("a.txt", "b.csv"), refused("no shards in", "2 files there", ".parquet, .json, .jsonl", "convert")),
    Kind("a file of another kind", files("a.csv", given="a.csv"), refused("no shards in", "a.csv", ".json, .jsonl, .jsonlines or .ndjson", "convert")),
    Kind("JSON lines named .json, .jsonl, .jsonlines, .ndjson, in any case", files("a.json", "b.jsonl", "c.ndjson", "D.JSON", "e.jsonlines"), [Doc("one")] * 5),
    Kind("names that say compressed over plain lines", files("a.json.gz", "b.jsonl.zst", "c.ndjson.bz2", "d.json.xz", "e.jsonl.gzip", "f.json.zstd", "g.jsonl.lz4"), [Doc("one")] * 7, "read as the plain lines they are"),
    Kind("folders named KEY=VALUE as group and in ids", _hive, [lost("column 'lang' is null", "lang=__HIVE_DEFAULT_PARTITION__/d.parquet#0"), Doc("one", id="en/7", group="en"), Doc("one", id="own/9", group="own"), Doc("two", id="zh-Hänt/8", group="zh-Hänt")], options={"group_column": "lang", "id_column": "lang,id"}),
    Kind("no folder and no column of that name in one shard of two", _hive_lacks, refused("1 of 2 shards", "b.parquet", "no column 'lang', and no folder lang=… below the input", "there are: text", "--group-column"), options={"group_column": "lang"}),
    Kind("no folder and no field of that name in one shard of two", files("lang=en/a.jsonl", "b.jsonl"), refused("1 of 2 shards", "b.jsonl", "no field 'lang' in its first records, and no folder lang=… below the input", "--group-column"), options={"group_column": "lang"}),
    Kind("other files beside shards", files("a.jsonl", "b.txt", "_SUCCESS"), [Doc("one")], "the shards are scored; the others are left out and named"),
    Kind("shards in folders", files("a.jsonl", "b/c/d.jsonl"), [Doc("one"), Doc("one")]),
    Kind("names with spaces, `#`, `%`, `*`, newlines, in any script or case", files(*NAMES), [Doc("one")] * len(NAMES)),
    Kind("a file given by a name with `*`, `?` or `[`", files("i*[1]?.jsonl", given="i*[1]?.jsonl"), [Doc("one", id="i*[1]?.jsonl@0")]),
    Kind("a link to nothing", link("b.jsonl", "/no/such/file"), refused("b.jsonl", "a link to a file that is not there", "Mend the link")),
    Kind("a link to itself", link("b.jsonl", "b.jsonl"), refused("b.jsonl", "a link to a file that is not there")),
    Kind("a link to a folder above it", _loop, [Doc("one"), Doc("one")], "links to folders are not followed; each is named as left out"),
]  # fmt: skip
