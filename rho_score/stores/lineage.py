"""Finds what a store was made from: score sets, and the training run of a model."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.urls import without_credentials
from rho_score.safe_text import visible
from rho_score.stores.layout import MANIFEST
from rho_score.stores.manifest import read_manifest, relative_url, resolve_relative
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection

THIS = "this"


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


def score_sets_behind(
    selection: Selection, names: Iterable[str], given: Mapping[str, str | None]
) -> dict[str, ScoreSet]:
    """The score sets of these names that a selection was made from and that have its tokens row by row.

    A set is left out, even if it is given, if it is not found, is cut into other units or has
    another vocabulary.

    given: where sets are, by name, if not where the selection's manifest says.

    Raises:
        InputError: the store at a given place is not the one that the selection was made from.
    """
    found = {}
    parts = selection.manifest["parts"]
    for name in names:
        scores = noted_score_set(selection, name, given=given.get(name))
        if scores is None:
            continue
        held = parts.get("held", {}).get(name)  # if the score sets were finished
        same = scores.manifest["fingerprint"] == parts["scores"].get(name)
        same = same and (held is None or (scores.finished and held == scores.held))
        if given.get(name) and not same:
            raise InputError(
                f"{given[name]} is not the score set that {selection.folder.url} was made from (--{name})."
            )
        if same and covers(scores, selection):
            found[name] = scores
    return found


def open_score_set(selection: Selection, given: str | None) -> ScoreSet | None:
    """The score set with the selection's units and tokenizer, or None if it is not found.

    given: where it is, if not where the selection's manifest says.

    Raises:
        InputError: there is no score set at `given`, or its units or its tokenizer differ.
    """
    for name in selection.manifest["scores"]:
        scores = noted_score_set(selection, name, given=given)
        if scores is not None and covers(scores, selection):
            return scores
        if given:
            raise InputError(
                f"{given} is not the score set that {selection.folder.url} was made from: its units or its tokenizer differ."
            )
    return None


def noted_run(model: str, start: str) -> JsonObject:
    """The field of a manifest that names the training run of a model; empty if it is from none.

    start: the store whose manifest it is. A model is from a run if it is in the folder of one.
    """
    if not Path(model).is_dir():
        return {}
    folder = Folder(str(Path(model).resolve().parent))
    if not folder.exists(MANIFEST):
        return {}
    found = read_manifest(folder)
    if found["kind"] != "training run":
        return {}
    return {"training_run": {"fingerprint": found["fingerprint"], "run": relative_url(folder.url, start)}}


def ancestry(folder: Folder) -> list[str]:
    """What the store in a folder was made from, one line each, from the nearest to the farthest.

    Lines are in words, as a page shows them. Stores that are not where they were end their branch.
    """
    lines: list[str] = []
    seen: set[str] = set()

    def visit(at: Folder, name: str) -> None:
        try:
            manifest = read_manifest(at)
        except (InputError, OSError):
            lines.append(f"{name}: not found at {at.url}")
            return
        if manifest["fingerprint"] in seen:
            return
        seen.add(manifest["fingerprint"])
        model = f", model {manifest['model']}" if "model" in manifest else ""
        lines.append(
            f"{name}: {manifest['kind']} {manifest['fingerprint'][:12]} at {without_credentials(at.url)}{model}"
        )
        for label, place in _sources(manifest):
            visit(Folder(resolve_relative(at, place)), f"{label} of {name}" if name != THIS else label)

    visit(folder, THIS)
    return [visible(line) for line in lines]


def _sources(manifest: JsonObject) -> list[tuple[str, str]]:
    """The stores that a manifest notes, with what each was to it."""
    found: list[tuple[str, str | None]] = [
        (f"score set {name}", place) for name, place in manifest.get("scores", {}).items()
    ]
    data = manifest.get("data", {})
    found += [(f"score set {name}", place) for name, place in data.get("scores", {}).items()]
    found += [(name, data.get(name)) for name in ("selection", "within")]
    found += [("selection within", manifest.get("within")), ("source", manifest.get("source"))]
    found.append(("score set that losses are from", manifest.get("reused_from")))
    found.append(("score set of the same tokens", manifest.get("like")))
    found.append(("training run of the model", manifest.get("training_run", {}).get("run")))
    return [(label, place) for label, place in found if place is not None]
