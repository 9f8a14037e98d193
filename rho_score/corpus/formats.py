"""The input formats.

To add one, write a module with the functions of `Format`, and add it to `FORMATS`.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa

from rho_score.config import CorpusConfig
from rho_score.corpus import arrow_shards, jsonl_shards, parquet_shards, tar_shards, token_shards
from rho_score.corpus.columns import Columns, Row
from rho_score.corpus.units import Unit
from rho_score.files.folder import FileInfo, Folder


class Format(Protocol):
    """What the module of a format offers."""

    @property
    def NAMES(self) -> str:
        """The endings of the format's file names, as text to show."""

    @property
    def ROWS(self) -> Literal["tables", "lines"] | None:
        """What `rows` yields: tables if columns have declared types, else lines of JSON.

        None if the rows cannot be written again.
        """

    def is_name(self, name: str) -> bool:
        """True if a file with this name is read as a shard of the format."""

    def may_be_empty(self, name: str) -> bool:
        """True if a file of 0 bytes with this name is a shard without documents, not broken."""

    def holds(self, unit: Unit) -> bool:
        """True if the unit belongs to a shard of the format."""

    def info(self, root: Folder, name: str) -> FileInfo:
        """The size of a shard, and its version, which changes when what is read of it does."""

    def cut(self, root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
        """The units of a shard; raises InputError if it cannot be read or lacks a column."""

    def read(self, root: Folder, unit: Unit, columns: Columns) -> Iterator[Row]:
        """Yields the rows of a unit in input order. Those that cannot be scored have an error."""

    def rows(self, root: Folder, unit: Unit, keep: np.ndarray) -> Iterator[pa.Table | bytes]:
        """The kept rows of a unit with all their columns, see `ROWS`.

        keep: bool[n_rows]; True for a row to keep.
        """


FORMATS: tuple[Format, ...] = (parquet_shards, jsonl_shards, arrow_shards, tar_shards)
"""The formats of documents."""
TOKEN_FORMATS: tuple[Format, ...] = (token_shards,)
"""The formats of bare token ids. They are read if they are asked for, and then nothing else is."""


def formats_for(corpus: CorpusConfig) -> tuple[Format, ...]:
    """The formats that the shards of a corpus may have."""
    return FORMATS if corpus.token_files is None else TOKEN_FORMATS


def format_of(unit: Unit) -> Format:
    """The format of a unit's shard."""
    return next(known for known in FORMATS + TOKEN_FORMATS if known.holds(unit))
