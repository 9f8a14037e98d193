"""The names of the files in a store, and the units whose files exist."""

from rho_score.files.folder import Folder

MANIFEST, PLAN, SUCCESS = "manifest.json", "plan.parquet", "_SUCCESS.json"
SUMMARY, HISTOGRAM, SPENT = "summary.json", "histogram.parquet", "spent.json"


def data_name(unit: str) -> str:
    """The name of the file with a unit's table."""
    return f"data/{unit}.parquet"


def quarantine_name(unit: str) -> str:
    """The name of the file with a unit's quarantined documents; it exists only if there are any."""
    return f"quarantine/{unit}.parquet"


def without_values_name(unit: str) -> str:
    """The name of the file with a unit's documents that have no imported value, if there are any."""
    return f"without-values/{unit}.parquet"


def published_units(folder: Folder) -> set[str]:
    """The units whose table exists, found with one listing."""
    return _units_in(folder, "data")


def quarantined_units(folder: Folder) -> set[str]:
    """The units with quarantined documents, found with one listing."""
    return _units_in(folder, "quarantine")


def units_without_values(folder: Folder) -> set[str]:
    """The units with documents that have no imported value, found with one listing."""
    return _units_in(folder, "without-values")


def _units_in(folder: Folder, under: str) -> set[str]:
    return {name.removesuffix(".parquet") for name in folder.names(under) if name.endswith(".parquet")}
