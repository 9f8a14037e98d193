"""Checkpoints on any storage: written as they come, found again when a run goes on.

OUT/checkpoints/step-00000100/…              the files of a checkpoint of Hugging Face's Trainer
OUT/checkpoints/step-00000100/complete.json  their names and sizes; written last
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from rho_score.files.folder import Folder
from rho_score.files.json import dump_json

CHECKPOINTS, COMPLETE = "checkpoints", "complete.json"
_PREFIX = "step-"


class Checkpoint(NamedTuple):
    """A complete checkpoint."""

    step: int
    name: str
    """The name of its folder, relative to the run."""
    files: dict[str, int]
    """Names and sizes of its files, relative to that folder."""


def checkpoints(run: Folder) -> list[Checkpoint]:
    """The complete checkpoints of a run, the oldest first."""
    found = []
    for name in sorted(run.listing(CHECKPOINTS)):
        folder, _, file = name.partition("/")
        if file == COMPLETE and folder.startswith(_PREFIX):
            place = f"{CHECKPOINTS}/{folder}"
            files = orjson.loads(run.read(f"{place}/{COMPLETE}"))["files"]
            found.append(Checkpoint(int(folder.removeprefix(_PREFIX)), place, files))
    return found


def checkpoint_name(step: int) -> str:
    """The name of the folder of the checkpoint after so many steps."""
    return f"{CHECKPOINTS}/{_PREFIX}{step:08}"


def upload(run: Folder, step: int, directory: Path) -> dict[str, int]:
    """Writes this machine's files of a checkpoint to storage; returns their names and sizes."""
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            name = path.relative_to(directory).as_posix()
            files[name] = path.stat().st_size
            run.publish_file(f"{checkpoint_name(step)}/{name}", path)
    return files


def complete(run: Folder, step: int, files: dict[str, int], *, keep: int) -> None:
    """Says that a checkpoint is complete, and removes all but the last `keep`; 0 removes none."""
    run.publish(f"{checkpoint_name(step)}/{COMPLETE}", dump_json({"step": step, "files": files}))
    if keep:
        remove(run, checkpoints(run)[:-keep])


def remove(run: Folder, unwanted: Sequence[Checkpoint]) -> None:
    """Removes checkpoints."""
    for checkpoint in unwanted:
        run.remove(f"{checkpoint.name}/{COMPLETE}")
        for name in checkpoint.files:
            run.remove(f"{checkpoint.name}/{name}")


def remove_all(run: Folder) -> None:
    """Removes all checkpoints, those that are not complete among them."""
    names = list(run.listing(CHECKPOINTS))
    for name in sorted(names, key=lambda name: not name.endswith(COMPLETE)):  # so that none looks complete
        run.remove(f"{CHECKPOINTS}/{name}")


def download(run: Folder, checkpoint: Checkpoint, directory: Path) -> Path:
    """Copies a checkpoint to an empty local directory; returns the directory."""
    for name in checkpoint.files:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        run.fetch_file(f"{checkpoint.name}/{name}", target)
    return directory
