"""The input formats.

To add one, write a module with the functions of `Format`, and add it to `FORMATS`.
"""

from collections.abc import Iterator
from typing import Protocol

from rho_score.config import CorpusConfig
from rho_score.corpus import jsonl_shards, parquet_shards
from rho_score.corpus.columns import Columns, Document
from rho_score.corpus.units import Unit
from rho_score.files.folder import FileInfo, Folder


class Format(Protocol):
    """What the module of a format offers."""

    @property
    def NAMES(self) -> str:
        """The endings of the format's file names, as text to show."""

    def is_name(self, name: str) -> bool:
        """True if a file with this name is read as a shard of the format."""

    def may_be_empty(self, name: str) -> bool:
        """True if a file of 0 bytes with this name is a shard without documents, not broken."""

    def holds(self, unit: Unit) -> bool:
        """True if the unit belongs to a shard of the format."""

    def cut(self, root: Folder, name: str, info: FileInfo, corpus: CorpusConfig) -> list[Unit]:
        """The units of a shard; raises InputError if it cannot be read or lacks a column."""

    def read(self, root: Folder, unit: Unit, columns: Columns) -> Iterator[Document]:
        """Yields the documents of a unit in input order.

        Those that cannot be scored have an error.
        """


FORMATS: tuple[Format, ...] = (parquet_shards, jsonl_shards)


def format_named(name: str) -> Format | None:
    """The format of a file with this name; None if it is not a shard."""
    return next((known for known in FORMATS if known.is_name(name)), None)


def format_of(unit: Unit) -> Format:
    """The format of a unit's shard."""
    return next(known for known in FORMATS if known.holds(unit))
