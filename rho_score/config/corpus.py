"""The options that say what a corpus is."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from rho_score.config.option import Group, metavar

_CORPUS = Group("Corpus")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Where the documents are, and which columns hold what."""

    input: Annotated[Positional[str], metavar("INPUT")]
    """The corpus: a folder that is searched recursively, a file or a glob, given as a path or as
    any fsspec URL such as s3://bucket/corpus. Shards are .parquet files and JSON lines (.json,
    .jsonl or .ndjson), which may be compressed (.gz, .zst, .bz2 or .xz)."""
    text_column: Annotated[str, _CORPUS, metavar("COLUMN")] = "text"
    """The string column that holds a document's text. A dotted name reaches into structs and JSON
    objects (body.text)."""
    id_column: Annotated[str | None, _CORPUS, metavar("COLUMN")] = None
    """The column that holds a document's id, of any scalar type. A dotted name (meta.id) and the
    KEY of folders named KEY=VALUE work too, and several names are joined with / (lang,id). By
    default, the id is SHARD#ROW in Parquet and SHARD@BYTE in JSON lines."""
    group_column: Annotated[str | None, _CORPUS, metavar("COLUMN")] = None
    """The column that holds a document's group, such as its source or domain. Selections report
    each group and can keep a share of each. A dotted name (meta.source) and the KEY of folders
    named KEY=VALUE work too."""
    unit_bytes: Annotated[int, _CORPUS, metavar("BYTES")] = 16_000_000
    """The bytes of text in one unit. A unit is the piece of work that is retried, published and
    resumed as a whole. The default is about 4 million tokens; on a CPU, 500000 finishes a unit
    every few minutes."""
