"""Begins a store, and decides which run gets an output when several start at the same time."""

import time
from collections.abc import Mapping

from rho_score.cluster import metrics
from rho_score.corpus.plan import Plan, changed_shards, read_plan
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.stores.card import CARD, card
from rho_score.stores.layout import MANIFEST, PLAN
from rho_score.stores.manifest import difference, read_manifest

CLAIM, WAIT_S, YIELD_S, POLL_S = "claim-", 15.0, 1.0, 0.2


def claim(folder: Folder, manifest: JsonObject, files: Mapping[str, bytes]) -> None:
    """Begins a store with this manifest, or resumes the store that is already there.

    A store of rows also gets a dataset card (`card`).

    If two runs start at the same time, one of them is refused, unless their manifests are the same.

    files: what else the store begins with, by file name.

    Raises:
        InputError: the folder holds something else, or a store that was begun with other settings.
            The message shows the difference.
    """
    command = metrics.COMMANDS[manifest["kind"]]
    if command == "score" and "model" not in manifest:
        command = "derive"
    metrics.begin(folder.url, manifest["fingerprint"], command)
    if not folder.exists(MANIFEST):
        there = list(folder.listing())
        strangers = [name for name in there if name not in files and not name.startswith(CLAIM)]
        if strangers and MANIFEST not in strangers:
            raise InputError(
                f"{folder.url} is not empty and is not a rho-score store (it holds {strangers[0]}). Choose another output."
            )
        _begin(folder, manifest)
    found = read_manifest(folder)
    if found.get("kind") != manifest["kind"]:
        raise InputError(
            f"{folder.url} holds another kind of store ({found.get('kind')}, not {manifest['kind']}). Choose another output."
        )
    if found["fingerprint"] != manifest["fingerprint"]:
        raise InputError(
            f"{folder.url} was begun with other settings, and mixing the two would make its numbers meaningless.\n"
            f"{difference(found['parts'], manifest['parts'], 'there', 'now')}\n"
            "Resume with the settings it was begun with, or choose another output."
        )
    about = card(manifest)
    for name, content in (files if about is None else {**files, CARD: about}).items():
        folder.create(name, content)


def _begin(folder: Folder, manifest: JsonObject) -> None:
    """Writes the manifest, unless another run does.

    A run first writes a claim that is named after its fingerprint. It then looks for the claims of
    other runs, then for a manifest, and only then writes its own manifest. Of two runs, the one
    that looks last sees the other's claim. So they cannot both write a manifest, even on storage
    without conditional writes. If two runs see each other, the one with the greater fingerprint
    withdraws its claim for a while.
    """
    mine, content = f"{CLAIM}{manifest['fingerprint']}.json", dump_json(manifest)
    give_up = time.monotonic() + WAIT_S
    folder.publish(mine, content)
    try:
        while others := {name for name in folder.names("") if name.startswith(CLAIM)} - {mine}:
            if folder.exists(MANIFEST):
                return
            if time.monotonic() > give_up:
                raise InputError(
                    f"another run with other settings is beginning {folder.url}: its claim is the file {min(others)} there. "
                    "Choose another output. If no such run is alive, remove that file and run the command again."
                )
            if min(others) < mine:
                folder.remove(mine)
                time.sleep(YIELD_S)
                folder.publish(mine, content)
            time.sleep(POLL_S)
        folder.create(MANIFEST, content)
    finally:
        folder.remove(mine)


def refuse_output_in_input(output: Folder, place: str) -> None:
    """Raises InputError for an output inside the corpus; the next run would read it as input.

    place: the corpus as it was given, a folder, a file or a glob.
    """
    corpus = Folder(place.partition("**")[0].rstrip("/") or ".")
    if output.fs == corpus.fs and f"{output.path}/".startswith(f"{corpus.path}/"):
        raise InputError(f"the output {output.url} lies inside the corpus {corpus.url}. Write it beside the corpus.")


def refuse_changed_input(output: Folder, found: JsonObject | None, plan: Plan) -> None:
    """Refuses a corpus that is not the one that the score set was begun with.

    A different plan of the same shards passes here, and `claim` refuses it.

    found: the manifest that is already in the output, if any.

    Raises:
        InputError: shards were added, removed or changed; the message names them.
    """
    if found is None or found["kind"] != "score set" or found["parts"].get("plan_sha256") == plan.digest:
        return
    if not output.exists(PLAN):
        return
    if changed := changed_shards(read_plan(output.read(PLAN)), plan.units):
        shown = "\n".join(f"  {line}" for line in changed[:10]) + (
            f"\n  and {len(changed) - 10} more" * (len(changed) > 10)
        )
        raise InputError(
            f"the corpus is not the one that {output.url} was begun with:\n{shown}\n"
            "Restore these shards, or score into another output."
        )
