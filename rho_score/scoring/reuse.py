"""`rho-score score --reuse SCORES`: takes losses from another score set of the same model.

A document is found by a hash of its token ids and of which of them have a loss, so it may be anywhere in
the other corpus. The index of all documents is made once, in tasks, and every node holds it in the
memory of Ray's object store: 24 bytes for each document of the other set.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rho_score.cluster.tasks import in_tasks, result
from rho_score.errors import InputError
from rho_score.files.arrow import as_numpy, flat_values, list_column, list_lengths
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.stores.manifest import difference
from rho_score.stores.score_set import ScoreSet

KNOWN = "known"
"""The column that is true for a document whose values are known. They are in columns named known_NAME."""
# Parts of a manifest that do not determine the losses of given tokens.
_FREE = {
    "plan_sha256", "unit_bytes", "text_column", "id_column", "group_column", "content_kind", "context_column",
    "rejected_column", "roles", "chat_template_sha256", "chat_date", "split_at", "signals", "top_k", "reuse",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Known:
    """Where the documents of a score set are, ordered by `keys`.

    keys, checks: the two halves of the documents' hashes, uint64[n]. units: indices into `names`,
    int32[n]. rows: the rows in the units, int32[n].
    """

    url: str
    names: tuple[str, ...]
    keys: np.ndarray
    checks: np.ndarray
    units: np.ndarray
    rows: np.ndarray

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """The index of each document, int64[n]; -1 if it is not there. hashes: uint64[n, 2]."""
        if not len(self.keys):
            return np.full(len(hashes), -1)
        at = np.minimum(np.searchsorted(self.keys, hashes[:, 0]), len(self.keys) - 1)
        there = (self.keys[at] == hashes[:, 0]) & (self.checks[at] == hashes[:, 1])
        return np.where(there, at, -1)


def open_reusable(url: str, parts: JsonObject) -> ScoreSet:
    """The score set at `url`, if its losses are those that a run with these parts of a manifest computes.

    Raises:
        InputError: there is no finished score set, or it was made in another way. The message names
            what differs.
    """
    if "top-k" in parts["signals"]:
        raise InputError("--reuse takes losses, entropies and ranks, but not --signals top-k. Leave out one of them.")
    scores = ScoreSet.open(url)
    there = scores.manifest["parts"]
    keys = sorted({*there, *parts} - _FREE)
    if differs := difference(there, parts, "there", "now", keys):
        raise InputError(f"--reuse {url}: its losses were computed in another way.\n{differs}\nLeave out --reuse.")
    if missing := sorted(set(parts["signals"]) - set(there["signals"])):
        raise InputError(
            f"--reuse {url}: it has no {', '.join(missing)} (--signals). Leave out --reuse or the signals."
        )
    return scores


def noted_reuse(begun: JsonObject | None, place: str | None) -> str | None:
    """The fingerprint of the score set at `place` that a run took losses from; None if it took none there.

    begun: the manifest of the run. place: as the manifest notes it.
    """
    if begun is None or begun.get("reused_from") != place:
        return None
    found: str | None = begun["parts"].get("reuse")
    return found


def find_known(scores: ScoreSet) -> Known:
    """The index of a score set. Of documents with the same tokens, it has the first."""
    names = tuple(unit.unit for unit in scores.units)
    found: dict[int, np.ndarray] = {}
    for index, reference in in_tasks(_UnitHashes(scores.folder.url), names):
        found[index] = result(reference)
    hashes = np.concatenate([np.zeros((0, 2), np.uint64), *(found[i] for i in range(len(names)))])
    sizes = [len(found[i]) for i in range(len(names))]
    units = np.repeat(np.arange(len(names), dtype=np.int32), sizes)
    rows = np.concatenate([np.zeros(0, np.int32), *(np.arange(size, dtype=np.int32) for size in sizes)])
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable
    ordered = hashes[order]
    first = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(order)]
    order = order[first]
    return Known(
        url=scores.folder.url,
        names=names,
        keys=hashes[order, 0].copy(),
        checks=hashes[order, 1].copy(),
        units=units[order],
        rows=rows[order],
    )


@dataclass(frozen=True)
class _UnitHashes:
    url: str

    def __call__(self, unit: str) -> np.ndarray:
        table = ScoreSet(Folder(self.url)).unit_table(unit, ["input_ids", "loss"])
        has_loss = flat_values(table["loss"]).is_valid()
        return document_hashes(
            as_numpy(flat_values(table["input_ids"])), list_lengths(table["input_ids"]), as_numpy(has_loss)
        )


def document_hashes(ids: np.ndarray, lengths: np.ndarray, has_loss: np.ndarray) -> np.ndarray:
    """A hash of each document, uint64[n_docs, 2]. ids: int32[n_tokens]. has_loss: bool[n_tokens]."""
    ends = np.cumsum(lengths)
    digests = [
        hashlib.blake2b(
            ids[start:end].astype("<i4").tobytes() + np.packbits(has_loss[start:end]).tobytes(), digest_size=16
        ).digest()
        for start, end in zip(ends - lengths, ends, strict=True)
    ]
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2).astype(np.uint64)


def add_known(unit: pa.Table, *, known: Any, signals: tuple[str, ...], prefix: bool, hidden: bool) -> pa.Table:
    """Returns a tokenized unit with the column `KNOWN`, and one for the loss and for each signal.

    known: a reference to a `Known`. prefix: True if a prefix comes before what the model reads of
    each document. hidden: True if it reads only the tokens that count.
    """
    index: Known = result(known)
    lengths, ids = list_lengths(unit["input_ids"]), as_numpy(flat_values(unit["input_ids"]))
    if "counts" in unit.column_names:
        has_loss = as_numpy(flat_values(unit["counts"])).copy()
    else:
        has_loss = np.ones(len(ids), bool)
    starts = np.cumsum(lengths) - lengths
    if not prefix:
        has_loss[_first_read(has_loss if hidden else np.ones(len(ids), bool), lengths)] = False
    at = index.find(document_hashes(ids, lengths, has_loss))
    at[lengths == 0] = -1
    places: dict[int, list[int]] = defaultdict(list)
    for i in np.flatnonzero(at >= 0).tolist():
        places[int(index.units[at[i]])].append(i)
    names = ("loss", *signals)
    values = {name: np.full(len(ids), np.nan, np.float32) for name in names}
    found, scores = np.zeros(len(lengths), bool), ScoreSet(Folder(index.url))
    for of, documents in sorted(places.items()):
        table = scores.unit_table(index.names[of], ["input_ids", *names])
        table = table.take(pa.array(index.rows[at[documents]]))
        tokens = np.concatenate([np.arange(starts[i], starts[i] + lengths[i]) for i in documents])
        if not np.array_equal(as_numpy(flat_values(table["input_ids"])), ids[tokens]):
            continue  # the file was replaced since the index was made; its documents are scored
        for name in names:
            values[name][tokens] = as_numpy(flat_values(table[name])).astype(np.float32)
        found[documents] = True
    for name in names:
        unit = unit.append_column(f"{KNOWN}_{name}", list_column(values[name], lengths))
    return unit.append_column(KNOWN, pa.array(found))


def _first_read(read: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The place of the first token of each document that the model reads. read: bool[n_tokens]."""
    places = np.flatnonzero(read)
    _, first = np.unique(np.repeat(np.arange(len(lengths)), lengths)[places], return_index=True)
    return places[first]
