"""Signs of life: a small file in the output that says how far a run is, and that it lives.

`.runs/<id>.json` is written when a run begins, every `INTERVAL_S` by a thread of its own, and at
the end, with the outcome. A run that was killed, stopped or cut off from the storage leaves an old
file without an outcome. Failing to write it never ends or slows a run. Listings leave out names
that begin with a dot, so the folder is no part of a store's data.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from rho_score.cluster.progress import Progress, Snapshot, shown_here
from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.files.retries import tried_once
from rho_score.safe_text import visible, without_secrets
from rho_score.stores.shapes import Outcome, SignFile, check_shape
from rho_score.version import __version__

log = logging.getLogger(__name__)

RUNS = ".runs"
INTERVAL_S = 30.0
"""Seconds between two signs of a run."""
TICK_S = 1.0
"""Seconds between two looks at what moves."""
LAST_S = 10.0
"""How long the end of a run waits for its last sign, at most."""
KEPT = 20
"""Signs that are kept. When a run begins, it removes older ones and takes over their worker-hours."""
MOST_READ = 100
"""Signs of a store that are read: the latest. There are more only if their removal failed."""
MESSAGE = 300
"""Characters of an error's message that are kept."""
_TIMES = ("started", "written", "moved")


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What a run last said of itself. Times are seconds since the epoch, by the clock of the run."""

    run: str
    command: str
    version: str
    host: str
    pid: int
    started: float
    written: float
    interval_s: float
    """Seconds until the next sign."""
    moved: float
    """When its phase, units or tokens last changed."""
    outcome: Outcome | None
    """None while it runs."""
    message: str
    """The first line of the error that ended it."""
    progress: Snapshot
    most_workers: int
    worker_s: float
    """Seconds of workers that were in use, all workers together."""
    removed_worker_s: float
    """Those of earlier runs, whose signs this run removed."""

    @property
    def idle_s(self) -> float:
        """Seconds without movement, when it was written."""
        return max(0.0, self.written - self.moved)

    def to_json(self) -> bytes:
        """The content of the sign's file. Times are in UTC."""
        content = asdict(self)
        return dump_json(content | {name: _utc(content[name]) for name in _TIMES})

    @classmethod
    def of(cls, content: bytes) -> "Sign":
        """The sign in a file.

        Raises:
            ValueError: it is none.
        """
        found = orjson.loads(content)
        check_shape(found, SignFile, "a sign of life")
        found = {name: found[name] for name in cls.__dataclass_fields__}
        times = {name: datetime.fromisoformat(found[name]).timestamp() for name in _TIMES}
        shown: JsonObject = {name: found["progress"][name] for name in Snapshot.__dataclass_fields__}
        return cls(**found | times | {"progress": Snapshot(**shown)})


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


class Seen(NamedTuple):
    """A sign as it lies on the storage."""

    name: str
    sign: Sign
    modified: float | None
    """When it was written by the clock of the storage, if the storage tells."""


def read_signs(output: Folder) -> list[Seen]:
    """The signs in a store, in the order in which their runs began. Damaged ones are left out."""
    files = sorted(output.listing(RUNS).items(), key=lambda item: -(item[1].modified or 0))
    found = []
    for name, info in files[:MOST_READ]:
        try:
            sign = Sign.of(output.read(f"{RUNS}/{name}"))
        except (ValueError, FileNotFoundError) as error:  # it may have been removed by now
            log.debug("%s/%s/%s is no sign of life: %s", output.url, RUNS, name, error)
            continue
        found.append(Seen(name, sign, info.modified))
    return sorted(found, key=lambda seen: seen.sign.started)


@contextmanager
def signs_of_life(output: Folder, command: str) -> Iterator[None]:
    """Leaves signs of life in `output` while the block runs, and its outcome at the end.

    The progress is that of the `Progress` that this thread has open at the time. command: its name
    in the command line.
    """
    signs = _Signs(output, command, shown_here())
    signs.start()
    try:
        yield
    except Exception as error:
        signs.end("failed", _told(error))
        raise
    except BaseException as error:  # Ctrl-C, or the end of the process
        signs.end("interrupted", type(error).__name__)
        raise
    signs.end("finished")


def _told(error: Exception) -> str:
    """The first line of an error, fit for a terminal."""
    text = str(error) if isinstance(error, RhoScoreError) else f"{type(error).__name__}: {error}"
    line = visible(without_secrets(text).strip().partition("\n")[0])
    return line if len(line) <= MESSAGE else f"{line[:MESSAGE]}…"


class _Signs:
    """The thread that writes a run's signs."""

    def __init__(self, output: Folder, command: str, shown: Sequence[Progress]) -> None:
        self._output, self._shown = output, shown
        self._about: dict[str, Any] = {
            "run": uuid.uuid4().hex[:12], "command": command, "version": __version__, "host": socket.gethostname(),
            "pid": os.getpid(), "started": time.time(), "interval_s": INTERVAL_S,
        }  # fmt: skip
        self._snapshot, self._moved, self._ticked = Snapshot(), time.time(), time.monotonic()
        self._worker_s, self._removed_worker_s, self._most_workers = 0.0, 0.0, 0
        self._end: tuple[Outcome, str] | None = None
        self._stop, self._failed = threading.Event(), False
        self._thread = threading.Thread(target=self._live, name="signs-of-life", daemon=True)

    def start(self) -> None:
        """Begins to write."""
        self._look()
        self._thread.start()

    def end(self, outcome: Outcome, message: str = "") -> None:
        """Writes the outcome, unless the storage takes too long."""
        self._end = outcome, message
        self._stop.set()
        self._thread.join(LAST_S)

    def _live(self) -> None:
        with tried_once():
            self._write_all()

    def _write_all(self) -> None:
        self._write()
        try:
            self._remove_old()
        except Exception as error:
            self._tell(error)
        last = time.monotonic()
        while not self._stop.wait(min(TICK_S, INTERVAL_S)):
            self._look()
            if time.monotonic() - last >= INTERVAL_S:
                last = time.monotonic()
                self._write()
        self._look()
        self._write()

    def _look(self) -> None:
        """Notes what moved, and adds up the time of workers."""
        shown = self._shown[-1:]
        now = shown[0].snapshot() if shown else replace(self._snapshot, seconds_left=None, workers=1)
        if _position(now) != _position(self._snapshot):
            self._moved = time.time()
        at = time.monotonic()
        self._worker_s += self._snapshot.workers * (at - self._ticked)
        self._most_workers = max(self._most_workers, now.workers)
        self._snapshot, self._ticked = now, at

    def _write(self) -> None:
        outcome, message = self._end or (None, "")
        sign = Sign(
            **self._about, written=time.time(), moved=self._moved, outcome=outcome, message=message,
            progress=self._snapshot, most_workers=self._most_workers, worker_s=round(self._worker_s, 3),
            removed_worker_s=round(self._removed_worker_s, 3),
        )  # fmt: skip
        try:
            self._output.publish(f"{RUNS}/{sign.run}.json", sign.to_json())
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            log.warning("signs of life cannot be written, so `status` will not know this run: %s", error)

    def _remove_old(self) -> None:
        """Removes the oldest signs. Their worker-hours go into this one first."""
        others = [seen for seen in read_signs(self._output) if seen.sign.run != self._about["run"]]
        old = others[: max(0, len(others) - (KEPT - 1))]
        if not old:
            return
        self._removed_worker_s = sum(seen.sign.worker_s + seen.sign.removed_worker_s for seen in old)
        self._write()
        for seen in old:
            self._output.remove(f"{RUNS}/{seen.name}")


def _position(shown: Snapshot) -> tuple[Any, ...]:
    """What changes when a run moves."""
    return shown.what, shown.phase, shown.units, shown.n_units, shown.share, shown.tokens
