"""Tars of samples, as webdataset writes them: kind, how it is made, answer."""

import gzip
import io
import tarfile
from typing import Any

from tests.inputs.jsonl_kinds import lz4, zstd
from tests.inputs.kinds import Doc, Kind, lost, refused
from tests.inputs.parquet_kinds import both, content

A, B = Doc("one", id="a.tar#s/1"), Doc("two", id="a.tar#s/2")
TXT: dict[str, Any] = {"text_column": "txt"}
IMAGE = bytes(range(256)) * 8
TWO = [("s/1.jpg", IMAGE), ("s/1.txt", b"one"), ("s/2.jpg", IMAGE), ("s/2.txt", b"two")]


def tar(*files: tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as written:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            written.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def _links() -> bytes:
    """Names of texts that are links, a folder and a pipe."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as written:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("s/9.txt")
            member.type, member.linkname = kind, "/etc/passwd"
            written.addfile(member)
    return sink.getvalue()


WHOLE = tar(*TWO)
THREE = tar(*TWO, ("s/3.txt", b"x" * 2000))
BROKEN = THREE[:7268] + b"x" * 48 + THREE[7316:]  # inside the header of s/3.txt, which begins at byte 7168
JSON = [("1.json", b'{"text": "one", "meta": {"id": 7}}'), ("1.cls", b"3\n"), ("2.json", b'{"text": null, "meta": {"id": 8}}'), ("2.cls", b"4"), ("3.json", b'{"text'), ("3.cls", b"5")]  # fmt: skip

TARS = [
    Kind("a tar of texts beside images", content(WHOLE, "a.tar"), [A, B], "all 2 scored; images are passed over unread", options=TXT),
    Kind("a tar of texts, compressed", both(content(gzip.compress(WHOLE), "a.tar.gz"), content(zstd(WHOLE), "b.tar.zst"), content(lz4(WHOLE), "c.tar")), [Doc("one"), Doc("two")] * 3, options=TXT),
    Kind("objects in a tar, with ids and groups", content(tar(*JSON), "a.tar"), [Doc("one", id="7", group="3"), lost("sample at byte 2048: column 'json.text' is null", "8")._replace(group="4"), lost("sample at byte 4096: its file .json is not valid JSON: …", "a.tar#3")], options={"text_column": "json.text", "id_column": "json.meta.id", "group_column": "cls"}),
    Kind("long names in a tar", content(tar(("d" * 300 + "/1.txt", b"one"), form=tarfile.GNU_FORMAT), "a.tar"), [Doc("one", id=f"a.tar#{'d' * 300}/1")], options=TXT),
    Kind("names that lead out of a folder", content(tar(("../../1.txt", b"one"), ("/etc/2.txt", b"two")), "a.tar"), [Doc("one", id="a.tar#../../1"), Doc("two", id="a.tar#/etc/2")], "all 2 scored; nothing is extracted", options=TXT),
    Kind("links, folders and devices in a tar", content(_links(), "a.tar"), [], "left out: they hold no text", options=TXT),
    Kind("a sample without the column", content(tar(*TWO, ("s/3.jpg", IMAGE)), "a.tar"), [A, B, lost("sample at byte 7168: no field 'txt'", "a.tar#s/3")], options=TXT),
    Kind("bytes that are not UTF-8 in a tar", content(tar(("1.txt", b"\xff"), ("2.txt", b"two")), "a.tar"), [lost("sample at byte 0: its file .txt is not valid UTF-8", "a.tar#1"), Doc("two")], options=TXT),
    Kind("two files of a name in a sample", content(tar(("1.txt", b"one"), ("1.txt", b"two")), "a.tar"), [lost("sample at byte 0: it has two files .txt", "a.tar#1")], options=TXT),
    Kind("a sample whose files are apart", content(tar(("1.txt", b"one"), ("2.txt", b"two"), ("1.jpg", IMAGE)), "a.tar"), [Doc("one"), Doc("two"), lost("sample at byte 2048: the key '1' is that of an earlier sample. Put its files one after the other.", "a.tar@2048")], options=TXT),
    Kind("a text in a tar that is too long", content(tar(("1.txt", b"x" * 40), ("2.txt", b"two")), "a.tar"), [lost("sample at byte 0: its file .txt is longer than 20 bytes. Split the document"), Doc("two")], "1 scored; quarantined: `sample at byte 0: its file .txt is longer than 67,108,864 bytes. Split the document`", options=TXT, limits={"LONGEST_LINE": 20}),
    Kind("a tar with more text than is read", content(tar(("1.txt", b"x" * 4), ("2.txt", b"two")), "a.tar"), [Doc("xxxx"), lost("sample at byte 1024: the tar has more than 5 bytes of text, the rest is not read. Cut it into smaller ones.")], "1 scored; quarantined: `sample at byte 1024: the tar has more than 2,147,483,648 bytes of text, the rest is not read. Cut it into smaller ones.`", options=TXT, limits={"LARGEST_SHARD": 5}),
    Kind("a tar that breaks off inside a file", content(THREE[:8000], "a.tar"), [A, B, lost("byte 6659: the tar is damaged here, the rest is lost: …")], "the samples that are whole are scored; quarantined: `byte …: the tar is damaged here, the rest is lost: …`", options=TXT),
    Kind("a tar without the mark of its end", content(WHOLE[: 512 * 14], "a.tar"), [A, lost("byte 3075: the tar is damaged here, the rest is lost: no header where one is expected: …")], options=TXT),
    Kind("a broken header inside a tar", content(BROKEN, "a.tar"), [A, lost("byte 3075: the tar is damaged here, the rest is lost: no header where one is expected: …")], options=TXT),
    Kind("a tar.gz that breaks off before its second sample", content(gzip.compress(WHOLE)[:-30], "a.tar.gz"), refused("a.tar.gz", "not readable", "Replace it"), options=TXT),
    Kind("no file of that name in a tar", content(WHOLE, "a.tar"), refused("a.tar", "no field 'text' in its first records", "there are: jpg, txt", "--text-column")),
    Kind("other bytes named .tar", content(b"not a tar" * 100, "a.tar"), refused("a.tar", "not readable (no header where one is expected", "Replace it"), options=TXT),
]  # fmt: skip
