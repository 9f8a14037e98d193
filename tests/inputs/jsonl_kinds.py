"""JSONL, plain and compressed, and texts: kind, how it is made, answer."""

import bz2
import gzip
import json
import lzma
import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.inputs.kinds import Doc, Kind, Make, lost, refused
from tests.inputs.parquet_kinds import content

ONE, TWO = b'{"text": "one"}\n', b'{"text": "two"}\n'
A, B = Doc("one"), Doc("two")
MB = 1 << 20


def lines(*rows: bytes) -> Make:
    """A plain shard of these lines."""
    return content(b"".join(row + b"\n" for row in rows), "a.jsonl")


def zstd(data: bytes) -> bytes:
    """One frame."""
    frame: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return frame


def lz4(data: bytes) -> bytes:
    """One frame."""
    frame: bytes = pa.Codec("lz4").compress(data, asbytes=True)
    return frame


def gz(data: bytes) -> Make:
    return content(data, "a.jsonl.gz")


def zst(data: bytes) -> Make:
    return content(data, "a.jsonl.zst")


def _long_line(folder: Path) -> None:
    with (folder / "a.jsonl").open("wb") as file:
        file.write(ONE + b'{"text": "')
        for _ in range(200):
            file.write(b"x" * MB)
        file.write(b'"}\n' + TWO)


def _gzip_bomb(folder: Path) -> None:
    with gzip.open(folder / "a.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(ONE)
        for _ in range(256):
            file.write(bytes(MB))


def _zstd_bomb(folder: Path) -> None:
    with pa.output_stream(folder / "a.jsonl.zst", compression="zstd") as stream:
        stream.write(ONE)
        for _ in range(256):
            stream.write(bytes(MB))


def _bomb(suffix: str) -> Make:
    def make(folder: Path) -> None:
        opened = {"bz2": bz2.open, "xz": lzma.open}[suffix]
        with opened(folder / f"a.jsonl.{suffix}", "wb") as file:  # type: ignore[operator]
            file.write(ONE)
            for _ in range(256):
                file.write(bytes(MB))

    return make


MANY = ONE * (MB // 2 // len(ONE))  # a bomb of many lines: nearly nothing of its text is in the file
HALF = MB // 4
NOISE = [json.dumps({"text": random.Random(seed).randbytes(400).hex()}).encode() + b"\n" for seed in range(400)]
DEEP = b"[" * 10_000 + b"]" * 10_000
LINE_LOST = "line {0}, byte {1}: not valid JSON: …"


_SMALL: dict[str, dict[str, Any]] = {"bz2": {"compresslevel": 1}, "xz": {}}


def _cut_stream(data: bytes, name: str) -> Make:
    return content(data[: len(data) * 3 // 4], name)


JSONL = [
    Kind("a byte order mark", content(b"\xef\xbb\xbf" + ONE + TWO, "a.jsonl"), [A, B]),
    Kind("lines that end with CRLF", content((ONE + TWO).replace(b"\n", b"\r\n"), "a.jsonl"), [A, B]),
    Kind("lines that end with CR alone: one line to JSON", content((ONE + TWO).replace(b"\n", b"\r"), "a.jsonl"), [lost(LINE_LOST.format(1, 0), "a.jsonl@0")]),
    Kind("UTF-16", content((ONE + TWO).decode().encode("utf-16"), "a.jsonl"), [lost(LINE_LOST.format(1, 0)), lost(LINE_LOST.format(2, 33)), lost(LINE_LOST.format(3, 65))]),
    Kind("a lone surrogate", lines(b'{"text": "\\ud800"}', ONE.strip()), [lost(LINE_LOST.format(1, 0)), A]),
    Kind("a pair of surrogates", lines(b'{"text": "\\ud83d\\ude00"}'), [Doc("😀")]),
    Kind("NUL as an escape", lines(b'{"text": "a\\u0000b"}'), [Doc("a\x00b")]),
    Kind("NUL as a byte", lines(ONE.strip(), b'{"text": "a\x00b"}'), [A, lost(LINE_LOST.format(2, 16))]),
    Kind("bytes that are not UTF-8", lines(ONE.strip(), b'{"text": "\xff\xfe"}'), [A, lost(LINE_LOST.format(2, 16))]),
    Kind("numbers, booleans, null, objects, lists for text", lines(b'{"text": 1}', b'{"text": true}', b'{"text": null}', b'{"text": {"a": "b"}}', b'{"text": ["a"]}', b'{"text": 1.5}'), [
        lost("line 1, byte 0: column 'text' is int, not a string"), lost("line 2, byte 12: column 'text' is bool, not a string"),
        lost("line 3, byte 27: column 'text' is null"), lost("line 4, byte 42: column 'text' is dict, not a string"),
        lost("line 5, byte 63: column 'text' is list, not a string"), lost("line 6, byte 79: column 'text' is float, not a string"),
    ]),
    Kind("a key twice: the last one holds", lines(b'{"text": "one", "text": "two"}'), [B]),
    Kind("a record without the field", lines(ONE.strip(), b'{"body": "a"}'), [A, lost("line 2, byte 16: no field 'text'")]),
    Kind("no record at the start of a shard has the field", lines(b'{"Text": "a"}'), refused("a.jsonl", "no field 'text'", "there are: Text", "--text-column")),
    Kind("blank lines", content(b"\n" + ONE + b"\n \t\n" + TWO + b"\n", "a.jsonl"), [A, B], "left out: they are no documents"),
    Kind("no newline at the end", content(ONE + TWO.strip(), "a.jsonl"), [A, B]),
    Kind("a line that breaks off", lines(ONE.strip(), b'{"text": "tw'), [A, lost(LINE_LOST.format(2, 16))]),
    Kind("a list in place of an object", lines(b'[{"text": "one"}]', b'"two"'), [lost("line 1, byte 0: a JSON list, not an object"), lost("line 2, byte 18: a JSON str, not an object")]),
    Kind("NaN, which is not JSON", lines(b'{"text": "one", "x": NaN}'), [lost(LINE_LOST.format(1, 0))]),
    Kind("ten thousand brackets", lines(ONE.strip(), b'{"text": ' + DEEP + b"}", b'{"text": "c", "x": ' + DEEP + b"}"), [A, lost(LINE_LOST.format(2, 16)), lost(LINE_LOST.format(3, 20027))]),
    Kind("integer ids of 64 bits and beyond", lines(b'{"text": "one", "id": 18446744073709551615}', b'{"text": "two", "id": 18446744073709551616}'), [
        Doc("one", id="18446744073709551615"), Doc("two", id="18446744073709551616"),
    ], options={"id_column": "id"}),
    Kind("ids that are null, missing, booleans", lines(b'{"text": "one", "id": null}', b'{"text": "two"}', b'{"text": "one", "id": true}'), [
        lost("line 1, byte 0: column 'id' is null", "a.jsonl@0"), lost("line 2, byte 28: column 'id' is null", "a.jsonl@28"),
        Doc("one", id="true"),
    ], options={"id_column": "id"}),
    Kind("ids that are fractions, with exponents, lists", lines(b'{"text": "one", "id": 1.50}', b'{"text": "two", "id": 1e2}', b'{"text": "one", "id": [1]}'), [
        Doc("one", id="1.5"), Doc("two", id="100.0"), lost("line 3, byte 55: column 'id' is list, not a string", "a.jsonl@55"),
    ], options={"id_column": "id"}),
    Kind("text, id and group inside objects", lines(b'{"body": {"text": "one"}, "meta": {"id": 1, "source": true}}', b'{"body": {"text": "two"}, "meta": null}', b'{"body": null, "meta": {"id": 2}}', b'{"body": "x", "meta": {"id": 3}}'), [
        Doc("one", id="1", group="true"), lost("line 2, byte 61: column 'meta.id' is null"), lost("line 3, byte 101: column 'body.text' is null", "2"),
        lost("line 4, byte 135: no field 'body.text'", "3"),
    ], options={"text_column": "body.text", "id_column": "meta.id", "group_column": "meta.source"}),
    Kind("a key with a dot in its name wins over the path", lines(b'{"text": "one", "m.s": "key", "m": {"s": "path"}}', b'{"text": "two", "m": {"s": "path"}}'), [Doc("one", group="key"), Doc("two", group="path")], options={"group_column": "m.s"}),
    Kind("a path that no record has", lines(b'{"text": "one", "meta": {"url": "u", "in": {"x": 1}}}'), refused("a.jsonl", "no field 'meta.source'", "there are: meta.in.x, meta.url, text", "--group-column"), options={"group_column": "meta.source"}),
    Kind("groups that are null, missing, numbers, objects", lines(b'{"text": "one", "g": null}', b'{"text": "two"}', b'{"text": "one", "g": 7}', b'{"text": "one", "g": {}}'), [
        A, B, Doc("one", group="7"), lost("line 4, byte 67: column 'g' is dict, not a string"),
    ], options={"group_column": "g"}),
    Kind("a line of 200 MB", _long_line, [A, lost("line 2, byte 16: longer than 67,108,864 bytes. Split the document."), B], "that line is quarantined: `longer than 67,108,864 bytes. Split the document.`; the others are scored; memory stays bounded"),
    Kind("a long line across many units", content(ONE + b'{"text": "' + b"x" * 5000 + b'"}\n' + TWO, "a.jsonl"), [A, Doc("x" * 5000), B], options={"unit_bytes": 100}),
    Kind("a text longer than may be, in Parquet's way or as JSON", lines(ONE.strip(), b'{"text": "' + b"x" * 200 + b'"}'), [A, lost("line 2, byte 16: longer than 100 bytes. Split the document.")], "quarantined", limits={"LONGEST_LINE": 100}),
    Kind("a file of 0 bytes beside others", lambda folder: (content(b"", "b.jsonl")(folder), content(ONE, "a.jsonl")(folder))[0], [A], "left out, and named as empty"),
    Kind("only files of 0 bytes", content(b"", "a.jsonl"), refused("holds 1 shards and no document", "every shard is empty")),
    Kind("nothing but white space", content(b" \n\n\t\n", "a.jsonl"), []),
    Kind("gzip: members one after the other", gz(gzip.compress(ONE) + gzip.compress(TWO)), [A, B]),
    Kind("gzip: of nothing", gz(gzip.compress(b"")), []),
    Kind("gzip: 0 bytes", gz(b""), refused("a.jsonl.gz: 0 bytes", "Replace it")),
    Kind("gzip: not gzip, nor JSON", gz(b"PK" + ONE), refused("a.jsonl.gz: not readable", "Replace it or take it out of the corpus.")),
    Kind("gzip: not gzip, but another compression", gz(bz2.compress(ONE + TWO)), [A, B]),
    Kind("gzip: under a name that does not say so", content(gzip.compress(ONE + TWO), "a.json"), [A, B]),
    Kind("gzip: in gzip", gz(gzip.compress(gzip.compress(ONE))), refused("a.jsonl.gz: it is compressed twice (.gz around .gz)", "Decompress it once")),
    Kind("gzip: garbage behind the end", gz(gzip.compress(ONE) + b"garbage"), [A, lost("line 2, byte 16: the compressed stream is damaged here, the rest is lost: …")]),
    Kind("gzip: a stream that breaks off", _cut_stream(gzip.compress(b"".join(NOISE)), "a.jsonl.gz"), [lost("the compressed stream is damaged here, the rest is lost: …")], "what comes before is scored; one record for the rest: `the compressed stream is damaged here, the rest is lost: …`"),
    Kind("gzip: a bomb of one line", _gzip_bomb, [A, lost("line 2, byte 16: longer than 67,108,864 bytes. Split the document.")], "quarantined: `longer than 67,108,864 bytes. Split the document.`; memory stays bounded"),
    Kind("gzip: a bomb of many lines", gz(gzip.compress(MANY)), [*[A] * (HALF // len(ONE)), lost(f"line {HALF // len(ONE) + 1}, byte {HALF}: the shard has more than {HALF:,} bytes of text, the rest is not read. Cut it into smaller ones.")], "2 GiB of text are scored; one record for the rest: `the shard has more than … bytes of text, the rest is not read. Cut it into smaller ones.`", limits={"LARGEST_SHARD": HALF}),
    Kind("zstd: frames one after the other", zst(zstd(ONE) + zstd(TWO)), [A, B]),
    Kind("zstd: a skippable frame between others", zst(zstd(ONE) + b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + zstd(TWO)), [A, B]),
    Kind("zstd: 0 bytes", zst(b""), refused("a.jsonl.zst: 0 bytes", "Replace it")),
    Kind("zstd: not zstd, nor JSON", zst(b"PK" + ONE), refused("a.jsonl.zst: not readable", "Replace it or take it out of the corpus.")),
    Kind("zstd: a stream that breaks off", _cut_stream(zstd(b"".join(NOISE)), "a.jsonl.zst"), [lost("the compressed stream is damaged here, the rest is lost: …")], "what comes before is scored; one record for the rest: `the compressed stream is damaged here, the rest is lost: …`"),
    Kind("zstd: a bomb of one line", _zstd_bomb, [A, lost("line 2, byte 16: longer than 67,108,864 bytes. Split the document.")], "quarantined: `longer than 67,108,864 bytes. Split the document.`; memory stays bounded"),
    Kind("zstd: a bomb of many lines", zst(zstd(MANY)), [*[A] * (HALF // len(ONE)), lost(f"line {HALF // len(ONE) + 1}, byte {HALF}: the shard has more than {HALF:,} bytes of text, the rest is not read. Cut it into smaller ones.")], "as with gzip", limits={"LARGEST_SHARD": HALF}),
]  # fmt: skip


for _tool, _suffix, _press in (("bzip2", "bz2", bz2.compress), ("xz", "xz", lzma.compress)):
    _name = f"a.jsonl.{_suffix}"
    JSONL += [
        Kind(f"{_tool}: streams one after the other, with zeros between", content(_press(ONE) + bytes(4) + _press(TWO), _name), [A, B]),
        Kind(f"{_tool}: of nothing", content(_press(b""), _name), []),
        Kind(f"{_tool}: 0 bytes", content(b"", _name), refused(f"{_name}: 0 bytes", "Replace it")),
        Kind(f"{_tool}: not {_tool}, nor JSON", content(b"PK" + ONE, _name), refused(f"{_name}: not readable", "Replace it or take it out of the corpus.")),
        Kind(f"{_tool}: garbage behind the end", content(_press(ONE) + b"garbage", _name), [A, lost("line 2, byte 16: the compressed stream is damaged here, the rest is lost: …")]),
        Kind(f"{_tool}: a stream that breaks off", _cut_stream(_press(b"".join(NOISE), **_SMALL[_suffix]), _name), [lost("the compressed stream is damaged here, the rest is lost: …")], "what comes before is scored; one record for the rest: `the compressed stream is damaged here, the rest is lost: …`"),
        Kind(f"{_tool}: a bomb of one line", _bomb(_suffix), [A, lost("line 2, byte 16: longer than 67,108,864 bytes. Split the document.")], "quarantined: `longer than 67,108,864 bytes. Split the document.`; memory stays bounded"),
        Kind(f"{_tool}: a bomb of many lines", content(_press(MANY), _name), [*[A] * (HALF // len(ONE)), lost(f"line {HALF // len(ONE) + 1}, byte {HALF}: the shard has more than {HALF:,} bytes of text, the rest is not read. Cut it into smaller ones.")], "as with gzip", limits={"LARGEST_SHARD": HALF}),
    ]  # fmt: skip

ARRAY = json.dumps([{"text": "one"}, {"text": "two"}])
ONE_ARRAY = ("a.jsonl: it holds one JSON array", "jq -c '.[]' FILE > FILE.jsonl", "glob")
ONE_OBJECT = ("a.jsonl: it holds a JSON object over several lines", "jq -c . FILE > FILE.jsonl", "glob")
LONG_ARRAY = json.dumps([{"text": "x" * 100}] * 9000).encode()

JSONL += [
    Kind("lz4, as frames that follow one another", content(lz4(ONE) + lz4(TWO), "a.jsonl.lz4"), [A, B]),
    Kind("one JSON array on a line", content(ARRAY.encode(), "a.jsonl"), refused(*ONE_ARRAY)),
    Kind("one JSON array on a line, longer than what is looked at", content(LONG_ARRAY, "a.jsonl"), refused(*ONE_ARRAY)),
    Kind("one JSON array over several lines, CRLF, a byte order mark", content(b"\xef\xbb\xbf \r\n" + json.dumps(json.loads(ARRAY), indent=2).replace("\n", "\r\n").encode(), "a.jsonl"), refused(*ONE_ARRAY)),
    Kind("one JSON array, an object a line", content(b"[\n" + b",\n".join([ONE.strip()] * 9000) + b"\n]\n", "a.jsonl"), refused(*ONE_ARRAY)),
    Kind("one JSON array, compressed", gz(gzip.compress(ARRAY.encode())), refused("a.jsonl.gz: it holds one JSON array", "gzip -dc FILE | jq -c '.[]' > FILE.jsonl")),
    Kind("one JSON array in a .json beside others", lambda folder: (content(ARRAY.encode(), "b.json")(folder), content(ONE, "a.json")(folder))[0], refused("1 of 2 shards", "b.json: it holds one JSON array")),
    Kind("a JSON object over several lines", content(json.dumps({"text": "one", "n": [1, 2]}, indent=1).encode(), "a.jsonl"), refused(*ONE_OBJECT)),
    Kind("a JSON object around a list of rows", content(json.dumps({"data": [{"text": "one"}]}, indent=1).encode(), "a.json"), refused("a.json: it holds a JSON object over several lines", "jq -c '.data[]' FILE > FILE.jsonl")),
    Kind("a JSON object around a list of rows, on one line", content(b'{"data": [{"text": "one"}]}', "a.json"), refused("a.json", "no field 'text' in its first records", "there are: data")),
    Kind("JSON objects over several lines, many", content(json.dumps({"text": "one", "n": [1, 2]}, indent=1).encode() * 9000, "a.jsonl"), refused(*ONE_OBJECT)),
]  # fmt: skip


def text(name: str, value: str, says: str = "") -> Kind:
    """A kind of text, in a shard of its own."""
    return Kind(name, lines(json.dumps({"text": value}).encode()), [Doc(value)], says)


TEXT = [
    text("empty", "", "scored: a row without tokens"),
    text("white space only", " \t\n \u3000\xa0"),
    text("one token", "a"),
    text("200,000 tokens", "the of " * 100_000),
    text("only emoji", "🙂🙃😀👩‍👩‍👧‍👦🏳️‍🌈"),
    text("combining marks", "e\u0301" + "a" + "\u0300\u0301\u0302" * 50, "scored; nothing is normalised"),
    text("right to left, with marks of direction", "\u202eשלום\u202c مرحبا \u200f"),
    text("control characters", "".join(map(chr, range(32))) + "\x7f\x85\u2028\ufeff"),
    text("NUL inside", "before\x00after"),
    text("spelt special tokens", "a <|im_end|> b </s> c <s>", "scored as the characters it is made of, never as the special token"),
    text("a word of 200,000 letters", "x" * 200_000),
    text("characters beyond Unicode's first plane, and unassigned ones", "𝔘𝔫𝔦 \U0010ffff \ufffe \ue000"),
]  # fmt: skip
