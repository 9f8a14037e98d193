"""Bounded attempts: finds the documents that kill their worker again and again; leaves them out.

Before the model runs, a worker notes on storage which documents it has in hand: an empty file
`attempts/<unit>~<start>-<stop>~…` for the documents [start, stop) of a unit. It removes the note
when they are scored, so a note that is left is an attempt that died. A unit that died often is
scored in halves, and a half that dies again is halved too, until a document that dies alone is
found. No other state is kept: whoever takes the unit next, on any node and in any run, reads the
notes and continues.
"""

import faulthandler
import logging
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from rho_score.errors import RhoScoreError
from rho_score.files.folder import Folder
from rho_score.inference.scored import Scored

log = logging.getLogger(__name__)

FOLDER = "attempts"
# An attempt weighs 4 if the worker certainly died of what it had in hand: the attempt was made in
# this run, on a node that is alive. It weighs 1 if the worker may have died of something else: its
# node is gone, or the attempt was made in another run.
CERTAIN, PERHAPS = 4, 1
WHOLE, PART, SINGLE = 3 * CERTAIN, CERTAIN, 2 * CERTAIN
MOST_POISONED = 16  # documents of a unit; if there are more, documents are not the cause
GOOD = (0, 0)  # the range in a note for all documents but the poisoned ones

Score = Callable[[Sequence[np.ndarray]], Scored]


class Note(NamedTuple):
    """An attempt at the documents `range`, (start, stop), of a unit, and who made it."""

    unit: str
    range: tuple[int, int]
    node: str
    run: str
    name: str

    @classmethod
    def parse(cls, name: str) -> "Note | None":
        """Returns the note with this file name; None if it is not the name of a note."""
        parts = name.rsplit("~", 4)
        start, dash, stop = parts[1].partition("-") if len(parts) == 5 else ("", "", "")
        if not (dash and start.isdecimal() and stop.isdecimal()):
            return None
        return cls(parts[0], (int(start), int(stop)), parts[2], parts[3], name)


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """The attempts of a run. The object is cheap to send to a worker.

    run, node: names of this run and of this worker's node. alive: returns the names of the nodes
    that are alive. limit_s: seconds that a worker may have a unit, or a part of it, in hand; after
    that the worker is ended, which counts as a death.
    """

    output: Folder
    run: str
    node: str
    alive: Callable[[], set[str]]
    limit_s: float

    def score(
        self, unit: str, ids: Sequence[np.ndarray], score: Score, *, n_known: int = 0
    ) -> tuple[Scored, dict[int, str]]:
        """Returns the scores of a unit's documents, and by document number why a document has none.

        In the end, the documents that have losses are scored together, whatever happened before.
        Their losses are therefore the same whenever the same documents are left out. Only if that
        fails, too, are the scores of the parts used.

        n_known: how many documents of the unit have scores already and are not among `ids`.

        Raises:
            RhoScoreError: so many documents fail that something else must be wrong.
        """
        if not ids:
            return score(ids), {}
        whole = (0, len(ids))
        notes = self._notes(unit)
        weights = self._weights(notes)
        failed: dict[tuple[int, int], str] = {}
        if weights[whole] < WHOLE:
            scored = self._try(unit, whole, partial(score, ids), failed)
            if scored:
                self._forget(notes)
                return scored, {}
        log.warning("unit %s failed or killed its workers: looking for the document that causes it", unit)
        poisoned, parts = self._search(unit, ids, score, notes, weights, failed)
        if 1 < len(ids) + n_known == len(poisoned):
            raise self._other_cause(unit, poisoned)
        good = [i for i in range(len(ids)) if i not in poisoned]
        scored = None
        if weights[GOOD] < WHOLE:
            scored = self._try(unit, GOOD, partial(score, [ids[i] for i in good]), failed)
        self._forget(notes)
        return _spread(scored, good, ids) if scored else _joined(parts, ids), poisoned

    def _search(
        self,
        unit: str,
        ids: Sequence[np.ndarray],
        score: Score,
        notes: Sequence[Note],
        weights: Mapping[tuple[int, int], int],
        failed: dict[tuple[int, int], str],
    ) -> tuple[dict[int, str], dict[tuple[int, int], Scored]]:
        """Returns the documents that fail, with reasons, and the scores of the others, in parts.

        Smaller parts are tried first.
        """
        poisoned: dict[int, str] = {}
        parts: dict[tuple[int, int], Scored] = {}
        left = [(0, len(ids))]
        failed.setdefault((0, len(ids)), "")
        while left:
            part = min(left, key=lambda part: (part[1] - part[0], part))
            left.remove(part)
            start, stop = part
            scored = None
            if part not in failed and weights[part] < (SINGLE if stop - start == 1 else PART):
                scored = self._try(unit, part, partial(score, ids[start:stop]), failed)
            if scored:
                parts[part] = scored
            elif stop - start > 1:
                middle = (start + stop) // 2
                left += [(start, middle), (middle, stop)]
            else:
                poisoned[start] = failed.get(part) or self._reason(notes, part)
                if len(poisoned) > MOST_POISONED:
                    raise self._other_cause(unit, poisoned)
        return poisoned, parts

    def _other_cause(self, unit: str, poisoned: Mapping[int, str]) -> RhoScoreError:
        """The error for so many documents that fail that they are not the cause."""
        return RhoScoreError(
            f"unit {unit}: {len(poisoned)} documents fail, each by itself, the last with: {list(poisoned.values())[-1]}. "
            "The documents are not the cause: check the workers' logs, memory and GPU driver. Then remove "
            f"{self.output.url}/{FOLDER} and run the same command again."
        )

    def _try(
        self, unit: str, part: tuple[int, int], call: Callable[[], Scored], failed: dict[tuple[int, int], str]
    ) -> Scored | None:
        """Returns what `call` returns, with a note while it runs.

        If it raises an error, returns None and puts the reason into `failed`.
        """
        with self._in_hand(unit, part) as note:
            try:
                return call()
            except RhoScoreError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"[:500]
                log.warning("unit %s, documents %d to %d: %s", unit, *part, reason)
                if isinstance(error, torch.AcceleratorError):  # the GPU would fail from now on
                    _end(self.output, note, reason)
                failed[part] = reason
                return None

    @contextmanager
    def _in_hand(self, unit: str, part: tuple[int, int]) -> Iterator[str]:
        """Notes that documents are in hand, and ends this process if they are so for too long."""
        note = f"{FOLDER}/{unit}~{part[0]}-{part[1]}~{self.node}~{self.run}~{uuid.uuid4().hex[:8]}"
        self.output.publish(note, b"")
        reason = f"not done after {self.limit_s:g} s (--unit-timeout)"
        timer = threading.Timer(self.limit_s, _end, (self.output, note, reason))
        timer.daemon = True
        timer.start()
        # in case no Python thread can run
        faulthandler.dump_traceback_later(self.limit_s * 1.1 + 60, exit=True, file=2)
        try:
            yield note
        finally:
            faulthandler.cancel_dump_traceback_later()
            timer.cancel()
        self.output.remove(note)

    def _notes(self, unit: str) -> list[Note]:
        notes = map(Note.parse, sorted(self.output.names(FOLDER)))
        return [note for note in notes if note and note.unit == unit]

    def _weights(self, notes: Sequence[Note]) -> Counter[tuple[int, int]]:
        """Returns the total weight of the attempts at each range of documents."""
        alive = self.alive() if notes else set()
        weights: Counter[tuple[int, int]] = Counter()
        for note in notes:
            weights[note.range] += CERTAIN if note.run == self.run and note.node in alive else PERHAPS
        return weights

    def _reason(self, notes: Sequence[Note], part: tuple[int, int]) -> str:
        """Returns why a document is left out, with what its workers wrote before they ended."""
        names = [note.name for note in notes if note.range == part]
        last = next((text for name in names if (text := self.output.read(f"{FOLDER}/{name}").decode())), "")
        return f"it killed its worker {len(names)} times when scored alone" + (f": {last}" if last else "")

    def _forget(self, notes: Sequence[Note]) -> None:
        for note in notes:
            self.output.remove(f"{FOLDER}/{note.name}")


def clear(output: Folder) -> None:
    """Removes the notes that are left when a run is done: those of units that others published."""
    for name in output.names(FOLDER):
        output.remove(f"{FOLDER}/{name}")


def _end(output: Folder, note: str, reason: str) -> None:
    """Ends this process, and leaves the reason in its note."""
    try:
        log.error("ending this worker: %s", reason)
        output.publish(note, reason.encode())
    finally:
        os._exit(1)


def _spread(scored: Scored, good: Sequence[int], ids: Sequence[np.ndarray]) -> Scored:
    """Returns the scores of the documents `good` at their places among all; NaN for the others."""

    def all_of(found: list[np.ndarray]) -> list[np.ndarray]:
        shape = found[0].shape[1:] if found else ()
        values = [np.full((len(document), *shape), np.nan, np.float32) for document in ids]
        for i, value in zip(good, found, strict=True):
            values[i] = value
        return values

    signals = {name: all_of(values) for name, values in scored.signals.items()}
    refused = {good[i]: reason for i, reason in scored.refused.items()}
    return replace(scored, loss=all_of(scored.loss), signals=signals, refused=refused)


def _joined(parts: dict[tuple[int, int], Scored], ids: Sequence[np.ndarray]) -> Scored:
    """Returns the scores of a unit from those of its parts."""
    ordered = [parts[part] for part in sorted(parts)]
    good = [i for start, stop in sorted(parts) for i in range(start, stop)]
    names = ordered[0].signals if ordered else {}
    starts = np.cumsum([0, *(len(part.loss) for part in ordered)]).tolist()
    together = Scored(
        loss=[loss for part in ordered for loss in part.loss],
        signals={name: [value for part in ordered for value in part.signals[name]] for name in names},
        rescored=sum(part.rescored for part in ordered),
        positions=sum(part.positions for part in ordered),
        padding=sum(part.padding for part in ordered),
        refused={
            start + i: reason
            for start, part in zip(starts, ordered, strict=False)
            for i, reason in part.refused.items()
        },
    )
    return _spread(together, good, ids)
