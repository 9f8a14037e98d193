"""Beginning a store: which run has an output, where several begin at once."""

import time
from collections.abc import Mapping

from rho_score.corpus.plan import Plan, changed_shards, read_plan
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.stores.layout import MANIFEST, PLAN
from rho_score.stores.manifest import difference, read_manifest

CLAIM, WAIT_S, YIELD_S, POLL_S = "claim-", 15.0, 1.0, 0.2


def claim(folder: Folder, manifest: JsonObject, files: Mapping[str, bytes]) -> None:
    """Begin a store with this manifest, or go on with the one that is there. Of two runs that begin at once one is refused,
    unless they are the same.

    Raises:
        InputError: the store holds something else, or the same kind made from other inputs; the difference is shown.
    """
    if not folder.exists(MANIFEST):
        there = list(folder.listing())
        strangers = [name for name in there if name not in files and not name.startswith(CLAIM)]
        if strangers and MANIFEST not in strangers:
            raise InputError(
                f"{folder.url} is neither empty nor one of ours (it holds {strangers[0]}). Choose another output."
            )
        _begin(folder, manifest)
    found = read_manifest(folder)
    if found.get("kind") != manifest["kind"]:
        raise InputError(f"{folder.url} holds a {found.get('kind')}, not a {manifest['kind']}. Choose another output.")
    if found["fingerprint"] != manifest["fingerprint"]:
        raise InputError(
            f"{folder.url} was begun with other settings; to mix them would make its numbers mean nothing.\n"
            f"{difference(found['parts'], manifest['parts'], 'there', 'now')}\n"
            "Resume with the settings it was begun with, or choose another output."
        )
    for name, content in files.items():
        folder.create(name, content)


def _begin(folder: Folder, manifest: JsonObject) -> None:
    """Write the manifest, unless another run does.

    A run first leaves a claim under its fingerprint, then looks for others' claims, then for a manifest, and only then
    writes its own. Of two, the one that looks last sees the other: they cannot both write, on a store without conditional
    writes either. Of two that see each other, the greater fingerprint steps back.
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
                    f"another run, with other settings, begins {folder.url} at this moment: its claim is {min(others)} there. "
                    "Choose another output; or, if no such run is alive, remove that file and run again."
                )
            if min(others) < mine:
                folder.remove(mine)
                time.sleep(YIELD_S)
                folder.publish(mine, content)
            time.sleep(POLL_S)
        folder.create(MANIFEST, content)
    finally:
        folder.remove(mine)


def refuse_changed_input(output: Folder, found: JsonObject | None, plan: Plan) -> None:
    """Refuse a corpus that is not the one that the score set was begun with. Another plan of the same shards is told by `claim`.

    found: the manifest that is there, if any.

    Raises:
        InputError: names the shards that are others now.
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
