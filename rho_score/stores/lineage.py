"""The score sets that a selection was made from, found again."""

from rho_score.errors import InputError
from rho_score.stores.manifest import resolve_relative
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection


def noted_score_set(selection: Selection, name: str, *, given: str | None = None) -> ScoreSet | None:
    """The score set that the selection's manifest notes under `name`, where it is now; None if it is not there.

    given: where it is, in place of what the manifest notes. The set may be unfinished: the selection has what it needs.

    Raises:
        InputError: there is no score set at `given`.
    """
    if given is not None:
        return ScoreSet.open(given, finished=False)
    place = selection.manifest.get("scores", {}).get(name)
    if place is None:
        return None
    try:
        return ScoreSet.open(resolve_relative(selection.folder, place), finished=False)
    except InputError:
        return None


def covers(scores: ScoreSet, selection: Selection) -> bool:
    """True if a score set has all units of a selection with the same tokens, row by row."""
    same = scores.tokenizer_sha256 == selection.tokenizer_sha256
    return same and set(scores.units).issuperset(selection.units)
