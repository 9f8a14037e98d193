"""Files of token ids: kind, how it is made, answer."""

import io
import struct
from typing import Any

import numpy as np

from tests.inputs.kinds import Doc, Kind, Make, lost, refused
from tests.inputs.parquet_kinds import both, content
from tests.inputs.path_kinds import files

END = 1
OPTIONS: dict[str, Any] = {"token_files": "uint16", "split_at": str(END)}
TOLD = OPTIONS | {"token_files": "auto"}
IDS = [5, 6, END, 7, END]
AB = [Doc("[5,6,1]", id="a.bin@0"), Doc("[7,1]", id="a.bin@3")]
AB_NPY = [doc._replace(id=str(doc.id).replace("bin", "npy")) for doc in AB]


def ids(values: list[int], name: str = "a.bin", dtype: str = "<u2", head: bytes = b"") -> Make:
    """A flat file of these ids behind a head."""
    return content(head + np.array(values).astype(dtype).tobytes(), name)


def npy(values: Any, dtype: Any = np.int32, cut: int = 0) -> Make:
    """A file that numpy saves, without its last bytes."""
    sink = io.BytesIO()
    np.save(sink, np.array(values, dtype), allow_pickle=True)
    data = sink.getvalue()
    return content(data[: len(data) - cut], "a.npy")


def llm_c(n: int, magic: int = 20240520, version: int = 1) -> bytes:
    """llm.c's header: 256 numbers."""
    return struct.pack("<256i", magic, version, n, *[0] * 253)


def index(lengths: list[int], name: str = "a.idx", code: int = 8) -> Make:
    """Megatron-LM's index of documents of one sequence each."""
    n = len(lengths)
    places = np.cumsum([0, *lengths])[:-1] * 2
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, n, n + 1)
    arrays = (np.array(lengths, "<i4"), places.astype("<i8"), np.arange(n + 1).astype("<i8"))
    return content(head + b"".join(array.tobytes() for array in arrays), name)


MEGATRON = [Doc("[5,6,1]", id="a.bin#0"), Doc("[7,1]", id="a.bin#1")]

TOKENS = [
    Kind("nanoGPT's .bin of uint16", ids(IDS), AB, "all 2 scored; the id that ends a document stays its last token", options=OPTIONS),
    Kind("a .bin of uint32", ids(IDS, dtype="<u4"), AB, options=OPTIONS | {"token_files": "uint32"}),
    Kind("a file whose last document has no end", ids([5, END, 6]), [Doc("[5,1]"), Doc("[6]", id="a.bin@2")], options=OPTIONS),
    Kind("ends that follow one another", ids([END, END, 6]), [Doc("[1]"), Doc("[1]"), Doc("[6]", id="a.bin@2")], options=OPTIONS),
    Kind("OLMo's .npy without a header", ids(IDS, "a.npy"), AB_NPY, options=OPTIONS),
    Kind("numpy's .npy with its header", npy(IDS), AB_NPY, "all 2 scored, with the type that the header tells", options=TOLD),
    Kind("llm.c's .bin with its header", ids(IDS, head=llm_c(5)), AB, options=TOLD),
    Kind("llm.c's .bin of uint32", ids(IDS, dtype="<u4", head=llm_c(5, 20240801, 7)), AB, options=TOLD),
    Kind("Megatron-LM's .bin and .idx", both(ids(IDS), index([3, 2])), MEGATRON, "all 2 scored; documents are those of the index", options=TOLD),
    Kind("empty documents in a .idx", both(ids(IDS), index([0, 3, 0, 2])), [Doc("[]", id="a.bin#0"), Doc("[5,6,1]"), Doc("[]"), Doc("[7,1]")], options=TOLD),
    Kind("masks beside token ids", both(ids(IDS), index([3, 2]), content(bytes(5), "a_mask.bin"), index([3, 2], "a_mask.idx", 1), content(bytes(5), "b.label_mask.npy"), ids([5], "b.token_ids.npy")), [*MEGATRON, Doc("[5]")], "all 3 scored; the masks are left out and named", options=OPTIONS),
    Kind("other files beside token ids", both(ids(IDS), files("b.jsonl")), AB, "all 2 scored; the others are left out and named", options=OPTIONS),
    Kind("folders named KEY=VALUE over token ids", lambda folder: (folder / "lang=en").mkdir() or ids([5])(folder / "lang=en"), [Doc("[5]", id="lang=en/a.bin@0", group="en")], options=OPTIONS | {"group_column": "lang"}),
    Kind("an empty .bin", both(content(b"", "a.bin"), ids([5], "b.bin")), [Doc("[5]")], options=OPTIONS),
    Kind("token ids that the model does not have", ids([5, 400, END, 6]), [Doc("[5,400,1]", "token 1 is 400, but the model has ids from 0 to 399 alone"), Doc("[6]")], "1 scored; quarantined: `token 1 is 400, but the model has ids from 0 to 399 alone`", options=OPTIONS),
    Kind("numbers that are no ids", npy([5, -1, END, 1 << 31, END, 6], np.int64), [lost("token 1 is -1, not an id", "a.npy@0"), lost("token 0 is 2147483648, not an id"), Doc("[6]")], options=TOLD),
    Kind("more tokens than a document may have", ids([5] * 9 + [END, 6, END]), [lost("longer than 8 tokens. Is --split-at the right id?", "a.bin@0"), Doc("[6,1]", id="a.bin@10")], "1 scored; quarantined: `longer than 8,388,608 tokens. Is --split-at the right id?`", options=OPTIONS, limits={"LONGEST_IDS": 8}),
    Kind("a long document in a .idx", both(ids([5] * 9 + [6]), index([9, 1])), [lost("longer than 8 tokens. Cut the document into shorter ones.", "a.bin#0"), Doc("[6]")], "1 scored; quarantined: `longer than 8,388,608 tokens. Cut the document into shorter ones.`", options=TOLD, limits={"LONGEST_IDS": 8}),
    Kind("a .bin without --token-files", ids(IDS), refused("no shards in", "files of token ids named .bin or .npy are read with --token-files")),
    Kind("no header, and no type given", ids(IDS), refused("a.bin", "no header that tells the type of its ids", "--token-files uint16"), options=TOLD),
    Kind("a size that the type does not divide", content(bytes(7), "a.bin"), refused("a.bin", "7 bytes are no whole number of ids of 2 bytes (uint16)", "--token-files"), options=OPTIONS),
    Kind("llm.c's .bin, cut off", ids(IDS[:4], head=llm_c(5)), refused("a.bin", "its header says 5 ids of 2 bytes, but 8 bytes follow", "Replace it"), options=OPTIONS),
    Kind("numpy's .npy, cut off", npy(IDS, cut=4), refused("a.npy", "its header says 5 ids of 4 bytes, but 16 bytes follow", "Replace it"), options=OPTIONS),
    Kind("numpy's .npy with a broken header", content(b"\x93NUMPY\x01\x00\x04\x00{'a'", "a.npy"), refused("a.npy", "not readable (its header: ", "Replace it"), options=OPTIONS),
    Kind("a table of numpy", npy([[5, 6]]), refused("a.npy", "it holds int32 of shape (1, 2), not a list of ids", "Save a flat array"), options=OPTIONS),
    Kind("floats of numpy", npy([5.0], np.float32), refused("a.npy", "it holds float32 of shape (1,), not a list of ids"), options=OPTIONS),
    Kind("objects of numpy, which are never unpickled", npy([{}], object), refused("a.npy", "it holds object of shape (1,), not a list of ids"), options=OPTIONS),
    Kind("a .idx without a .bin", both(index([3, 2]), ids(IDS, "b.bin")), refused("a.idx", "whose .bin is not there", "Restore it"), options=TOLD),
    Kind("a .idx that is cut off", both(ids(IDS), content(b"MMIDIDX\x00\x00", "a.idx")), refused("a.bin", "a.idx beside it is no index of Megatron-LM", "Replace it"), options=TOLD),
    Kind("a .bin that is cut off before its .idx", both(ids(IDS[:4]), index([3, 2])), refused("a.bin", "a.idx beside it counts 5 ids of 2 bytes, but the file has 8 bytes", "Replace it"), options=TOLD),
    Kind("floats in a .idx", both(ids(IDS), index([3, 2], code=7)), refused("a.idx has version 1 and the type 7", "a type of integers"), options=TOLD),
    Kind("a split that is no id", ids(IDS), refused("--split-at must be eos or the id of a token, got '</s>'"), options=OPTIONS | {"split_at": "</s>"}),
    Kind("--ids-column with --token-files", ids(IDS), refused("--ids-column does not go with --token-files"), options=OPTIONS | {"ids_column": "ids"}),
]  # fmt: skip
