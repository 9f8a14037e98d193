"""The log of a run as TensorBoard's events."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rho_score.files.folder import Folder

TENSORBOARD = "tensorboard"
_UNPLOTTED = ("step", "seconds")


class Events:
    """Writes one file of events for each start of a run; TensorBoard puts the files together.

    begun: the step that the run goes on from. Events behind it, of an earlier start, are dropped by
    TensorBoard.
    """

    def __init__(self, directory: Path, begun: int) -> None:
        from tensorboardX import SummaryWriter

        self._directory, self._begun = directory, begun
        self._writer = SummaryWriter(str(directory), purge_step=begun or None)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Adds a row of the log."""
        for name, value in row.items():
            if value is not None and name not in _UNPLOTTED:
                self._writer.add_scalar(f"train/{name}", value, row["step"])

    def add_held_out(self, row: Mapping[str, Any]) -> None:
        """Adds a row of held-out losses."""
        about = row["name"] if row["group"] is None else f"{row['name']}/{row['group']}"
        for name in ("loss", "bits_per_byte"):
            if row[name] is not None:
                self._writer.add_scalar(f"held-out_{name}/{about}", row[name], row["step"])

    def write(self, run: Folder) -> None:
        """Writes the events so far to the run."""
        self._writer.flush()
        for path in self._directory.glob("events.out.tfevents.*"):
            run.publish_file(f"{TENSORBOARD}/events.out.tfevents.{self._begun:08}", path)

    def close(self) -> None:
        """Ends the thread that writes."""
        self._writer.close()
