"""Reads the documents of a unit, and checks that its shard did not change after planning."""

from collections.abc import Iterator

from rho_score.corpus.columns import Columns, Document
from rho_score.corpus.content import documents_of
from rho_score.corpus.formats import format_of
from rho_score.corpus.units import Unit
from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.urls import without_credentials


def documents(root: Folder, unit: Unit, columns: Columns) -> Iterator[Document]:
    """Yields the documents of a unit in input order. Those that cannot be scored have an error."""
    for row in format_of(unit).read(root, unit, columns):
        yield from documents_of(row.document, columns)


def read_unchanged(root: Folder, unit: Unit, columns: Columns) -> list[Document]:
    """The documents of a unit in input order.

    Raises:
        RhoScoreError: the shard is not the one that was planned, before or after it is read.
        StorageError: it cannot be read.
    """
    check_unchanged(root, unit)
    try:
        read = list(documents(root, unit, columns))
    except OSError as error:
        raise root.error("read", unit.shard, error) from error
    check_unchanged(root, unit)
    return read


def check_unchanged(root: Folder, unit: Unit) -> None:
    """Checks that the unit's shard is the one that was planned.

    Raises:
        RhoScoreError: the shard is gone, or has another size, ETag or time of change.
    """
    try:
        found = format_of(unit).info(root, unit.shard)
    except FileNotFoundError:
        raise RhoScoreError(
            f"{unit.shard} is gone since the run was planned: it is not in {without_credentials(root.url)}. "
            "Restore it, or score into another output."
        ) from None
    if (found.size, found.version) != (unit.size, unit.version):
        raise RhoScoreError(
            f"{unit.shard} changed since the run was planned: {unit.size} bytes, version {unit.version} then; "
            f"{found.size} bytes, version {found.version} now. Restore it, or score into another output."
        )
