"""Unfinished score sets: the units that all of them have published make a smaller plan.

No Ray here.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from rho_score.corpus.plan import Plan
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.stores.layout import MANIFEST, PLAN, published_units
from rho_score.stores.manifest import read_manifest
from rho_score.stores.score_set import ScoreSet


def published_of_all(main: ScoreSet, sets: Iterable[ScoreSet], output: Folder) -> tuple[ScoreSet, JsonObject | None]:
    """`main` with the units that all `sets` have published, and what the manifest says of them.

    If all sets are finished, these are `main` itself and None. output: the selection's folder. A
    selection that has begun keeps the units that it began with, whatever was published since.

    Raises:
        InputError: no unit is published in all sets.
    """
    if (plan := _begun_with(output)) is None:
        behind = [scores for scores in sets if not scores.finished]
        if not behind:
            return main, None
        there = set.intersection(*(published_units(scores.folder) for scores in behind))
        units = tuple(unit for unit in main.units if unit.unit in there)
        if not units:
            raise InputError(
                f"no unit is published in all score sets yet. Not finished: {', '.join(s.folder.url for s in behind)}."
            )
        plan = Plan(root="", units=units).to_parquet()
    some = replace(main, plan_override=plan)
    names = "\n".join(some.plan_names()["unit"].to_pylist())
    return some, {"units": some.n_units, "of": main.n_units, "sha256": hashlib.sha256(names.encode()).hexdigest()}


def _begun_with(output: Folder) -> bytes | None:
    """The plan of a selection that began with some of the units; None if there is none."""
    if not output.exists(MANIFEST) or not read_manifest(output)["parts"].get("unfinished"):
        return None
    return output.read(PLAN) if output.exists(PLAN) else None
