"""The tokens of a run as flat files on a local disk, which blocks are cut from without copying.

    DIR/input_ids.bin    int32 per token: documents one after the other, each with prefix and EOS
    DIR/targets.bin      a byte per token: 1 if it may be trained on
    DIR/ref_loss.bin     float32 per token, nats; NaN where a token has none. Only with references
    DIR/weight.bin       float32 per token: what it weighs in the loss. Only with weights
    DIR/starts.bin       int64: the place of each document's first token, and the number of tokens
    DIR/ends.bin         int64: the place of each EOS that was put behind a document
    DIR/groups.bin       int32 per document: its place in the list of groups
    DIR/about.json       the list of groups, and counts; written last

The files depend on the data and the frame alone. They are made once on each machine and are used
again by every run that needs the same ones.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from rho_score.errors import InputError
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.scores import run_sums
from rho_score.stores.framing import REF_LOSS, Frame
from rho_score.stores.schema import WEIGHT
from rho_score.training.sources import Source, UnitDocuments

LAYOUT_VERSION = 3
"""Version 2 put a second EOS behind documents that end with one, and version 1 kept documents without a
token to train on."""
ABOUT = "about.json"


@dataclass(kw_only=True)
class BlockCounts:
    """What the files hold."""

    documents: int = 0
    tokens: int = 0
    """Tokens in the files, with prefixes and EOS."""
    targets: int = 0
    """Tokens that may be trained on. A document's first token is none if no prefix precedes it."""
    referenced: int = 0
    """Targets that have a reference loss."""
    unusable: int = 0
    """Documents that cannot be read, which are left out."""
    other: int = 0
    """Documents that `--within` leaves out."""
    untrained: int = 0
    """Documents without a token to train on, which are left out. Empty texts are among them."""
    groups: list[str | None] = field(default_factory=list)
    group_bytes: list[int] | None = field(default_factory=list)
    """UTF-8 bytes of the targets of each group; None if the tokenizer does not tell them."""

    def numbers(self) -> dict[str, int]:
        """The counts without the groups, as a run's `_SUCCESS.json` holds them."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}


@dataclass(frozen=True)
class BlockFiles:
    """The files, opened by memory mapping."""

    directory: Path
    counts: BlockCounts
    input_ids: np.ndarray
    targets: np.ndarray
    ref_loss: np.ndarray | None
    starts: np.ndarray
    groups: np.ndarray
    ends: np.ndarray
    weight: np.ndarray | None = None

    @classmethod
    def open(cls, directory: Path) -> "BlockFiles":
        """Opens files that `write_block_files` wrote."""
        counts = BlockCounts(**orjson.loads((directory / ABOUT).read_bytes()))

        def mapped(name: str, kind: str, n: int) -> np.ndarray:
            path = directory / f"{name}.bin"
            if not n:
                return np.zeros(0, kind)
            found: np.ndarray = np.memmap(path, kind, "r", shape=(n,))
            return found

        def maybe(name: str) -> np.ndarray | None:
            return mapped(name, "<f4", counts.tokens) if (directory / f"{name}.bin").exists() else None

        return cls(
            directory,
            counts,
            mapped("input_ids", "<i4", counts.tokens),
            mapped("targets", "?", counts.tokens),
            maybe(REF_LOSS),
            mapped("starts", "<i8", counts.documents + 1),
            mapped("groups", "<i4", counts.documents),
            mapped("ends", "<i8", (directory / "ends.bin").stat().st_size // 8),
            maybe(WEIGHT),
        )


def block_files(source: Source, frame: Frame, cache: Path, *, vocabulary: Vocabulary | None = None) -> BlockFiles:
    """The files of a source's documents, from the cache or written there.

    Several processes may ask for the same files at the same time: each writes its own, and the
    first one to finish wins.

    frame: the tokens around each document. vocabulary: counts the bytes of targets; None for a
    tokenizer that does not keep them.

    Raises:
        InputError: there is no token to train on.
        RhoScoreError: a unit is damaged or has changed.
    """
    key = {"layout": LAYOUT_VERSION, "source": source.key, "frame": asdict(frame), "bytes": vocabulary is not None}
    name = sha256(orjson.dumps(key, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    directory = cache / name
    if not (directory / ABOUT).exists():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=cache))
        try:
            write_block_files(source, frame, temporary, vocabulary)
            try:
                temporary.rename(directory)
            except OSError:
                if not (directory / ABOUT).exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return BlockFiles.open(directory)


def write_block_files(source: Source, frame: Frame, directory: Path, vocabulary: Vocabulary | None) -> None:
    """Writes the files of a source into an empty directory; see `block_files`."""
    counts = BlockCounts(group_bytes=[])
    places: dict[str | None, int] = {}
    files: dict[str, BinaryIO] = {}
    try:
        for unit in _in_order(source):
            _append(files, directory, frame, unit, counts, places, vocabulary)
        _file(files, directory, "starts").write(np.array([counts.tokens], "<i8").tobytes())
    finally:
        for opened in files.values():
            opened.close()
    if not counts.targets:
        raise InputError(f"{source.url} holds no token to train on.")
    counts.groups = list(places)
    (directory / ABOUT).write_text(json.dumps(asdict(counts)))


def _in_order(source: Source) -> Iterator[UnitDocuments]:
    """The units in corpus order, of which a few are read ahead in threads."""
    n_threads = max(1, min(4, os.cpu_count() or 1))
    n_units = len(source.unit_names)
    with ThreadPoolExecutor(n_threads) as pool:
        ahead = [pool.submit(source.read, index) for index in range(min(n_threads, n_units))]
        for following in range(len(ahead), n_units + len(ahead)):
            yield ahead.pop(0).result()
            if following < n_units:
                ahead.append(pool.submit(source.read, following))


def _append(
    files: dict[str, BinaryIO],
    directory: Path,
    frame: Frame,
    unit: UnitDocuments,
    counts: BlockCounts,
    places: dict[str | None, int],
    vocabulary: Vocabulary | None,
) -> None:
    documents, keep = unit.documents.trainable(unit.documents.mask)
    groups = [group for group, kept in zip(unit.groups, keep.tolist(), strict=True) if kept]
    unit = unit._replace(documents=documents, groups=groups, n_bytes=unit.n_bytes[keep])
    n_bytes = _target_bytes(unit, frame, vocabulary)
    framed = frame.around(documents)
    ends = (framed.starts + framed.lengths - 1)[frame.adds_eos(documents)]
    targets = framed.mask.copy()
    if frame.prefix_id is None:
        targets[framed.starts[framed.lengths > 0]] = False
    codes = np.array([places.setdefault(group, len(places)) for group in unit.groups], "<i4")
    columns = {
        "input_ids": framed.input_ids.astype("<i4", copy=False),
        "targets": targets,
        "starts": (framed.starts + counts.tokens).astype("<i8"),
        "ends": (ends + counts.tokens).astype("<i8"),
        "groups": codes,
    }
    if (ref_loss := framed.values.get(REF_LOSS)) is not None:
        columns[REF_LOSS] = ref_loss.astype("<f4", copy=False)
        counts.referenced += int((targets & ~np.isnan(ref_loss)).sum())
    if (weight := framed.values.get(WEIGHT)) is not None:
        columns[WEIGHT] = np.where(targets, weight, 0).astype("<f4")
    for name, values in columns.items():
        _file(files, directory, name).write(values.tobytes())
    if counts.group_bytes is not None:
        if n_bytes is None:
            counts.group_bytes = None
        else:
            counts.group_bytes += [0] * (len(places) - len(counts.group_bytes))
            for code, more in zip(codes.tolist(), n_bytes.tolist(), strict=True):
                counts.group_bytes[code] += more
    counts.documents += len(framed.lengths)
    counts.untrained += int((~keep).sum())
    counts.tokens += len(framed.input_ids)
    counts.targets += int(targets.sum())
    counts.unusable += unit.n_unusable
    counts.other += unit.n_other


def _file(files: dict[str, BinaryIO], directory: Path, name: str) -> BinaryIO:
    """The open file of a column, created on first use."""
    if name not in files:
        files[name] = (directory / f"{name}.bin").open("wb", buffering=1 << 20)
    return files[name]


def _target_bytes(unit: UnitDocuments, frame: Frame, vocabulary: Vocabulary | None) -> np.ndarray | None:
    """UTF-8 bytes of each document's targets, int64[n_docs]; None if they are not known."""
    documents = unit.documents
    if vocabulary is None:
        return unit.n_bytes if frame.prefix_id is not None and unit.n_bytes.any() else None
    sizes = vocabulary.byte_lengths(documents.input_ids, documents.lengths)
    sizes = np.where(documents.mask, sizes, 0)
    if frame.prefix_id is None:
        sizes[documents.starts[documents.lengths > 0]] = 0
    return run_sums(sizes, documents.lengths).astype(np.int64)


def cache_folder(given: str | None) -> Path:
    """Where block files are kept: the given folder, or `rho-score/blocks` in the user's cache."""
    if given is not None:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "rho-score" / "blocks"
