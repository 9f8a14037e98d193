"""The names of the files in a store, and which units have theirs."""

from rho_score.files.folder import Folder

MANIFEST, PLAN, SUCCESS = "manifest.json", "plan.parquet", "_SUCCESS.json"
SUMMARY, HISTOGRAM = "summary.json", "histogram.parquet"


def data_name(unit: str) -> str:
    """Where a unit's table is."""
    return f"data/{unit}.parquet"


def quarantine_name(unit: str) -> str:
    """Where a unit's quarantined documents are, if there are any."""
    return f"quarantine/{unit}.parquet"


def published_units(folder: Folder) -> set[str]:
    """Units whose file is there: one listing."""
    return _units_in(folder, "data")


def quarantined_units(folder: Folder) -> set[str]:
    """Units with quarantined documents: one listing."""
    return _units_in(folder, "quarantine")


def _units_in(folder: Folder, under: str) -> set[str]:
    return {name.removesuffix(".parquet") for name in folder.names(under) if name.endswith(".parquet")}
