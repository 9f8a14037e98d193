"""Parquet: kind, how it is made, answer."""

import base64
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from tests.conftest import damage_row_group
from tests.inputs.kinds import Doc, Kind, Make, lost, refused

A, B = Doc("one"), Doc("two")
TWO = ["one", "two"]


def table(columns: dict[str, Any], name: str = "a.parquet", **options: Any) -> Make:
    """One shard with these columns."""

    def make(folder: Path) -> None:
        pq.write_table(pa.table(columns), folder / name, **options)

    return make


def text_of(kind: pa.DataType, values: Sequence[Any] = TWO) -> Make:
    """One shard whose text has this type."""
    return table({"text": pa.array(values, kind)})


def content(data: bytes, name: str = "a.parquet") -> Make:
    """One file of these bytes."""

    def make(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return make


def both(*makes: Make) -> Make:
    """Several files."""

    def make(folder: Path) -> None:
        for one in makes:
            one(folder)

    return make


def _cut_off(folder: Path) -> None:
    table({"text": TWO})(folder)
    (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-20])


def _no_row_groups(folder: Path) -> None:
    pq.ParquetWriter(folder / "a.parquet", pa.schema([("text", pa.string())])).close()
    table({"text": TWO}, "b.parquet")(folder)


def _damaged_page(folder: Path) -> None:
    path = folder / "a.parquet"
    rows = [f"{i} " + "abcdefgh" * 200 + str(i * 7919) for i in range(6)]
    pq.write_table(pa.table({"text": rows}), path, row_group_size=2, write_page_checksum=True, use_dictionary=False)
    damage_row_group(path, 1)


DAMAGED_ROWS = [Doc(f"{i} " + "abcdefgh" * 200 + str(i * 7919)) for i in range(6)]
DAMAGED_ROWS[2:4] = [lost("row group 1 is damaged: …", f"a.parquet#{row}") for row in (2, 3)]


def _lzo(folder: Path) -> None:
    """The codec in the footer (field 4 of the column, after its path): from Snappy, 1, to LZO, 3, as zigzag numbers."""
    table({"text": TWO}, compression="snappy")(folder)
    path = folder / "a.parquet"
    before = path.read_bytes()
    assert before.count(b"\x19\x18\x04text\x15\x02") == 1
    path.write_bytes(before.replace(b"\x19\x18\x04text\x15\x02", b"\x19\x18\x04text\x15\x06"))


class _Keys(pe.KmsClient):
    """Wraps keys in base64: enough to write an encrypted file."""

    def __init__(self, _: object) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def encrypted(*, plaintext_footer: bool) -> Make:
    """A shard with encrypted columns, its footer encrypted as well or signed only."""

    def make(folder: Path) -> None:
        options = pe.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["text"]}, plaintext_footer=plaintext_footer, double_wrapping=False
        )
        factory = pe.CryptoFactory(_Keys)
        properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), options)
        columns = pa.table({"text": TWO})
        with pq.ParquetWriter(folder / "a.parquet", columns.schema, encryption_properties=properties) as writer:
            writer.write_table(columns)

    return make


def _two_columns_of_a_name(folder: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(TWO)] * 2, names=["text", "text"]), folder / "a.parquet")


TOO_MUCH = lost("row group …")
NOT_READABLE = ("a.parquet: not readable", "Replace it or take it out of the corpus.")
INVALID_UTF8 = pa.array([b"one", b"\xc3\x28"], pa.binary()).view(pa.string())
LONG_ID, ODD_ID = "i" * 1_000_000, "tab\tline\nnul\x00bell\x07"
NUMBERS = {"id": "number"}

SCALARS: list[tuple[pa.DataType, list[Any], tuple[str | None, str | None]]] = [
    (pa.bool_(), [True, False], ("true", "false")),
    (pa.uint64(), [2**64 - 1, None], ("18446744073709551615", None)),
    (pa.float16(), [0.5, 65504.0], ("0.5", "65504.0")),
    (pa.float32(), [0.1, 123456792.0], ("0.1", "123456792.0")),
    (pa.float64(), [1.5, float("nan")], ("1.5", "nan")),
    (pa.decimal128(9, 2), [Decimal("1.50"), Decimal("-7")], ("1.50", "-7.00")),
    (pa.decimal256(60, 9), [Decimal("1E-9"), Decimal("1E+40")], ("0.000000001", "1" + "0" * 40 + ".000000000")),
    (pa.date32(), [date(2024, 5, 1), date(1, 1, 1)], ("2024-05-01", "0001-01-01")),
    (pa.date64(), [date(2024, 5, 1), date(1900, 1, 1)], ("2024-05-01", "1900-01-01")),
    (pa.time32("ms"), [time(1, 2, 3), time(1, 2, 3, 4000)], ("01:02:03", "01:02:03.004000")),
    (pa.time64("ns"), [3_723_000_000_000, 3_723_000_000_001], ("01:02:03", "01:02:03.000000001")),
    (pa.timestamp("ms"), [0, -1], ("1970-01-01T00:00:00", "1969-12-31T23:59:59.999000")),
    (pa.timestamp("ns"), [1, 1_000], ("1970-01-01T00:00:00.000000001", "1970-01-01T00:00:00.000001")),
    (pa.timestamp("us", "UTC"), [0, 1], ("1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00.000001+00:00")),
    (pa.timestamp("us", "Asia/Tokyo"), [0, 1], ("1970-01-01T09:00:00+09:00", "1970-01-01T09:00:00.000001+09:00")),
    (pa.duration("ms"), [1500, -60_000], ("1.5", "-60")),
    (pa.binary(), [b"web", "东".encode()], ("web", "东")),
    (pa.binary(4), [b"web ", b"\xff\x00\x01\x02"], ("77656220", "ff000102")),
    (pa.uuid(), [bytes(range(16)), None], ("00010203-0405-0607-0809-0a0b0c0d0e0f", None)),
    (pa.dictionary(pa.int8(), pa.string()), ["web", None], ("web", None)),
]

PARQUET = [
    Kind("text as string", table({"text": TWO}), [A, B]),
    Kind("text as large_string", text_of(pa.large_string()), [A, B]),
    Kind("text as string_view", text_of(pa.string_view()), [A, B]),
    Kind("text as a dictionary of strings", table({"text": pa.array(TWO).dictionary_encode()}), [A, B]),
    Kind("null texts", table({"text": ["one", None]}), [A, lost("column 'text' is null", "a.parquet#1")]),
    Kind(
        "a text column without any value (type null)",
        table({"text": pa.nulls(2)}),
        [lost("column 'text' is null")] * 2,
    ),
    Kind(
        "text that is not UTF-8", table({"text": INVALID_UTF8}), [A, lost("column 'text' is not valid UTF-8")]
    ),
    Kind(
        "text of an integer type", text_of(pa.int64(), [1]), refused("a.parquet", "column 'text' has type int64, not string", "--text-column")
    ),
    Kind("text of binary type", text_of(pa.binary(), [b"a"]), refused("a.parquet", "has type binary, not string", "--text-column")),
    Kind("text of type bool", text_of(pa.bool_(), [True]), refused("a.parquet", "has type bool, not string", "--text-column")),
    Kind("text as a list of strings", text_of(pa.list_(pa.string()), [["a"]]), refused("a.parquet", "has type list<", "--text-column")),
    Kind(
        "text inside a struct", text_of(pa.struct([("body", pa.string())]), [{"body": "a"}]),
        refused("a.parquet", "has type struct<body: string>, not string", "text.body", "--text-column"),
    ),
    Kind(
        "text, id and group inside structs", table({"a": [{"b": {"text": "one"}, "id": 1, "g": True}, {"b": None, "id": 2, "g": None}, None]}),
        [Doc("one", id="1", group="true"), lost("column 'a.b.text' is null", "2"), lost("column 'a.id' is null", "a.parquet#2")],
        options={"text_column": "a.b.text", "id_column": "a.id", "group_column": "a.g"},
    ),
    Kind("a column with a dot in its name wins over the path", table({"m.s": ["x", "y"], "m": [{"s": "p"}] * 2, "text": TWO}), [Doc("one", group="x"), Doc("two", group="y")], options={"group_column": "m.s"}),
    Kind("a path that is not there", table({"text": TWO, "meta": [{"url": "u", "tags": ["t"]}] * 2}), refused("a.parquet", "no column 'meta.source'", "there are: text, meta.url, meta.tags", "--group-column"), options={"group_column": "meta.source"}),
    Kind("a path into what is no struct", table({"text": TWO}), refused("a.parquet", "no column 'text.x'", "there are: text", "--text-column"), options={"text_column": "text.x"}),
    Kind("ids of several columns", table({"text": TWO, "a": ["x", "y"], "b": [7, None]}), [Doc("one", id="x/7"), lost("column 'b' is null", "a.parquet#1")], options={"id_column": "a,b"}),
    Kind("groups of a type that has no text", table({"text": TWO, "g": [["a"], ["b"]]}), refused("a.parquet", "column 'g' has type list<", "not string, number, boolean, date, time or binary", "--group-column"), options={"group_column": "g"}),
    *[
        Kind(f"groups of type {kind}", table({"text": TWO, "g": pa.array(values, kind)}), [Doc("one", group=words[0]), Doc("two", group=words[1])], f"scored; their text is `{words[0]}`, `{words[1]}`", options={"group_column": "g"})
        for kind, values, words in SCALARS
    ],
    Kind("groups of binary type that is not UTF-8", table({"text": TWO, "g": [b"ok", b"\xc3\x28"]}), [Doc("one", group="ok"), lost("column 'g' is not valid UTF-8")], options={"group_column": "g"}),
    Kind("groups that are timestamps no calendar has", table({"text": TWO, "g": pa.array([0, 2**62], pa.timestamp("ms"))}), [Doc("one", group="1970-01-01T00:00:00"), lost("column 'g' is a timestamp outside the years 1 to 9999")], options={"group_column": "g"}),
    Kind("no column of that name", table({"body": TWO}), refused("a.parquet", "no column 'text'", "there are: body", "--text-column")),
    Kind(
        "the column is missing in one shard of many",
        both(table({"text": TWO}), table({"text": TWO}, "b.parquet"), table({"body": TWO}, "c.parquet")),
        refused("1 of 3 shards", "c.parquet", "no column 'text'", "there are: body"),
    ),
    Kind("two columns of one name", _two_columns_of_a_name, refused("a.parquet", "2 columns are called 'text'", "Rename")),
    Kind(
        "shards with text as string and as large_string",
        both(text_of(pa.string()), table({"text": pa.array(TWO, pa.large_string())}, "b.parquet")), [A, B, A, B],
    ),
    Kind("ids twice", table({"text": TWO, "id": ["x", "x"]}), [Doc("one", id="x"), Doc("two", id="x")], options={"id_column": "id"}),
    Kind(
        "null ids", table({"text": TWO, "id": ["x", None]}),
        [Doc("one", id="x"), lost("column 'id' is null", "a.parquet#1")], options={"id_column": "id"},
    ),
    Kind("integer ids", table({"text": TWO, "id": [7, -8]}), [Doc("one", id="7"), Doc("two", id="-8")], "all 2 scored; ids as written in decimal", options={"id_column": "id"}),
    Kind(
        "ids as integers in one shard, as strings in another",
        both(table({"text": TWO, "id": [7, 8]}), table({"text": TWO, "id": ["x", "y"]}, "b.parquet")),
        [Doc("one", id="7"), Doc("two", id="8"), Doc("one", id="x"), Doc("two", id="y")], options={"id_column": "id"},
    ),
    Kind("ids of 1 MB", table({"text": TWO, "id": [LONG_ID, "x"]}), [Doc("one", id=LONG_ID), Doc("two", id="x")], options={"id_column": "id"}),
    Kind(
        "ids with newlines and control characters", table({"text": TWO, "id": [ODD_ID, ""]}),
        [Doc("one", id=ODD_ID), Doc("two", id="")], "all 2 scored; ids unchanged", options={"id_column": "id"},
    ),
    Kind(
        "ids of type double", table({"text": TWO, "id": [1.5, 2.5]}),
        [Doc("one", id="1.5"), Doc("two", id="2.5")], options={"id_column": "id"},
    ),
    Kind("null groups", table({"text": TWO, "source": ["web", None]}), [Doc("one", group="web"), B], "all 2 scored; the group is null", options={"group_column": "source"}),
    Kind("a group column without any value (type null)", table({"text": TWO, "source": pa.nulls(2)}), [A, B], "all 2 scored; the group is null", options={"group_column": "source"}),
    Kind("a footer that is cut off", _cut_off, refused(*NOT_READABLE)),
    Kind("another format under that name", content(b"PK\x03\x04" + b"x" * 100), refused(*NOT_READABLE)),
    Kind("a file of 0 bytes beside others", both(table({"text": TWO}), content(b"", "b.parquet")), refused("1 of 2 shards", "b.parquet: 0 bytes", "Replace it")),
    Kind("no rows at all", text_of(pa.string(), []), refused("holds 1 shards and no document", "every shard is empty")),
    Kind("no row groups, beside others", _no_row_groups, [A, B]),
    Kind("a thousand row groups of one row", table({"text": [f"t{i}" for i in range(1000)]}, row_group_size=1), [Doc(f"t{i}") for i in range(1000)]),
    Kind("a damaged page in one row group", _damaged_page, DAMAGED_ROWS, "the rows of that row group are quarantined: `row group 1 is damaged: …`; the others are scored"),
    Kind("a dictionary bomb: one text for many rows", table({"text": ["one"] * 200}, row_group_size=150), [*[A] * 20, *[TOO_MUCH] * 180], "2 Gi characters of a unit are scored; the rest is quarantined: `row group … its unit has more than … characters of text, the rest is not read.`; memory stays bounded", limits={"LARGEST_SHARD": 300}),
    Kind("more rows in a row group than memory holds", table({"text": ["one"] * 9}), refused("a.parquet: row group 0 has 9 rows, more than 8", "Write smaller row groups"), "refused: `a.parquet: row group 0 has … rows, more than 16,777,216` … `Write smaller row groups`", limits={"MOST_ROWS": 8}),
    Kind("more text in a row group than memory holds", table({"text": TWO}), refused("a.parquet: row group 0 has ", " bytes of text, more than 10", "Write smaller row groups"), "refused: `a.parquet: row group 0 has … bytes of text, more than 2,147,483,648` … `Write smaller row groups`", limits={"LARGEST_SHARD": 10}),
    Kind("codec LZO, which pyarrow cannot read", _lzo, [lost("row group 0 is damaged: …")] * 2),
    Kind("an encrypted footer", encrypted(plaintext_footer=False), refused(*NOT_READABLE, "encrypted")),
    Kind("encrypted columns under a readable footer", encrypted(plaintext_footer=True), refused("a.parquet: it has encrypted columns", "without encryption")),
]  # fmt: skip
