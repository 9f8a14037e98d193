"""Opens a store whose kind is not known beforehand."""

from rho_score.files.folder import Folder
from rho_score.stores.manifest import read_manifest
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection


def open_store(url: str) -> ScoreSet | Selection:
    """The finished score set or selection at `url`; raises InputError if there is none."""
    kind = read_manifest(Folder(url))["kind"]
    return Selection.open(url) if kind == "selection" else ScoreSet.open(url)
