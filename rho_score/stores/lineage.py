"""Finds the score sets that a selection was made from."""

from rho_score.errors import InputError
from rho_score.stores.manifest import resolve_relative
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection


def noted_score_set(selection: Selection, name: str, *, given: str | None = None) -> ScoreSet | None:
    """The score set that the selection's manifest notes under `name`; None if it is not there.

    The score set may be unfinished, because a selection can be made from one that is.

    given: the URL of the score set, in place of the one in the manifest.

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
    """True if the score set has the tokens of the selection, row by row.

    It has them if it has all units of the selection, and the same tokenizer.
    """
    same = scores.tokenizer_sha256 == selection.tokenizer_sha256
    return same and set(scores.units).issuperset(selection.units)
