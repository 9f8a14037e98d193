"""The first stage: the signatures of a part's documents, cut into partitions by the keys of their bands.

signatures/<part>.parquet            a row for each band of each document, a row group for each partition
signatures/<part>.documents.parquet  a row for each document, in corpus order
signatures/<part>.json               the number of documents of each unit; written last
"""

import hashlib
import io
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.corpus.columns import Document
from rho_score.corpus.documents import read_unchanged
from rho_score.deduplicating.bands import band_keys, mixed, packed
from rho_score.deduplicating.settings import DedupSettings, PartTask
from rho_score.deduplicating.shingles import plain_text, signatures, words_of
from rho_score.files.arrow import as_arrow
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.parquet import parquet_bytes

SIGNATURES = "signatures"
PART_BITS = 32  # a document is numbered by its part, and by its place in the part in so many bits
AT_ONCE = 4_000_000  # characters whose words are in memory at a time

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("error", pa.string()),
    ]
)


def bands_schema(permutations: int) -> pa.Schema:
    """The columns of a file of bands: key, the document's number, the digest of its text, its packed signature."""
    return pa.schema(
        [
            pa.field("key", pa.uint64(), nullable=False),
            pa.field("document", pa.int64(), nullable=False),
            pa.field("digest", pa.uint64(), nullable=False),
            pa.field("signature", pa.binary((permutations + 1) // 2), nullable=False),
        ]
    )


def sign_part(task: PartTask) -> JsonObject:
    """Writes the signatures of a part; returns the content of its JSON file."""
    settings, part = task.settings, task.part
    root, folder = Folder(settings.root), Folder(settings.output)
    read = [read_unchanged(root, unit, settings.columns) for unit in part.units]
    documents = [document for of in read for document in of]
    folder.publish(f"{SIGNATURES}/{part.name}.documents.parquet", _documents_file(documents))
    folder.publish(f"{SIGNATURES}/{part.name}.parquet", _bands_file(documents, part.number, settings))
    content = {"documents": [len(of) for of in read]}
    folder.publish(f"{SIGNATURES}/{part.name}.json", dump_json(content))
    return content


def _documents_file(documents: list[Document]) -> bytes:
    sizes = [0 if document.text is None else len(document.text.encode()) for document in documents]
    columns = [
        pa.array([document.doc_id for document in documents], pa.string()),
        pa.array([document.group for document in documents], pa.string()),
        pa.array(sizes, pa.int64()),
        pa.array([document.error for document in documents], pa.string()),
    ]
    return parquet_bytes(pa.Table.from_arrays(columns, schema=DOCUMENTS), DOCUMENTS)


def _bands_file(documents: list[Document], part: int, settings: DedupSettings) -> bytes:
    schema = bands_schema(settings.permutations)
    rows = [_bands_of(some, settings) for some in _in_pieces(documents)]
    places, keys, digests, signed = (np.concatenate(column) for column in zip(*rows, strict=True))
    numbers = (part << PART_BITS) + places
    partition = (keys % np.uint64(settings.partitions)).astype(np.int64)
    order = np.argsort(partition, kind="stable")
    edges = np.searchsorted(partition[order], np.arange(settings.partitions + 1))
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, schema, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
    ) as writer:
        for start, stop in pairwise(edges):
            of = order[start:stop]
            columns = [as_arrow(column[of]) for column in (keys, numbers, digests)]
            content = pa.py_buffer(np.ascontiguousarray(signed[of]))
            columns.append(pa.Array.from_buffers(schema.field("signature").type, len(of), [None, content]))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(1, len(of)))
    return sink.getvalue()


def _in_pieces(documents: list[Document]) -> list[list[tuple[int, str]]]:
    """The readable documents with their places, some millions of characters at a time; at least one piece."""
    pieces: list[list[tuple[int, str]]] = [[]]
    size = 0
    for place, document in enumerate(documents):
        if document.text is None:
            continue
        if size > AT_ONCE:
            pieces.append([])
            size = 0
        pieces[-1].append((place, document.text))
        size += len(document.text)
    return pieces


def _bands_of(
    documents: list[tuple[int, str]], settings: DedupSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows of some documents: place, key, digest and packed signature, a row for each band.

    A document without words has a single row, by which only documents with the same text are found.
    """
    places = np.array([place for place, _ in documents], np.int64)
    digests = np.array([_digest(text) for _, text in documents], np.uint64)
    words = [words_of(plain_text(text, settings.columns.kind)) for _, text in documents]
    signed = signatures(words, settings.shingle, settings.permutations)
    keys, short = band_keys(signed, settings.bands), packed(signed)
    wordless = np.array([not of for of in words], bool)
    short[wordless], keys[wordless, 0] = 0, mixed(digests[wordless])
    counts = np.where(wordless, 1, settings.bands.bands)
    chosen = np.arange(settings.bands.bands) < counts[:, None]
    return np.repeat(places, counts), keys[chosen], np.repeat(digests, counts), np.repeat(short, counts, axis=0)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
