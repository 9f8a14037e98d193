"""The files of a Delta table in its newest version, by the package deltalake."""

from urllib.parse import unquote

import pyarrow as pa

from rho_score.errors import InputError
from rho_score.files.urls import without_credentials


def current_files(url: str) -> set[str]:
    """The names of the files that hold the rows of a table's newest version.

    Raises:
        InputError: the package is missing or cannot read the table, or the table has other rows or
            other columns than its files.
    """
    shown = without_credentials(url)
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ModuleNotFoundError as error:
        raise InputError(
            f"{shown} is a Delta table, which needs the package deltalake: pip install 'rho-score[delta]'."
        ) from error
    try:
        table = DeltaTable(url)
        paths = pa.table(table.get_add_actions())["path"].to_pylist()
        features = table.protocol().reader_features or ()
        deleted = "deletionVectors" in features and pa.table(table.deletion_vectors()).num_rows > 0
        mapped = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    except (DeltaError, OSError, ValueError) as error:
        raise InputError(
            f"the Delta table {shown} cannot be read: {str(error).partition(chr(10))[0]} Mend it, or write it as Parquet."
        ) from error
    if deleted:
        raise InputError(
            f"the Delta table {shown} has deletion vectors: rows that are deleted, but still in its files. Write these anew, with "
            "REORG TABLE … APPLY (PURGE)."
        )
    if mapped != "none":
        raise InputError(
            f"the Delta table {shown} maps the names of its columns (delta.columnMapping.mode={mapped}), so its files have others. "
            "Write it as Parquet first."
        )
    return {unquote(path) for path in paths}
