"""Blocks of a score set or a selection as a map-style dataset, for any PyTorch training loop."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.urls import absolute
from rho_score.stores.framing import IGNORED, Frame
from rho_score.stores.manifest import read_manifest
from rho_score.stores.schema import WEIGHT
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from rho_score.stores.tokenizer import load_store_tokenizer, scored_prefix
from rho_score.training.block_files import BlockFiles, block_files, cache_folder
from rho_score.training.sources import ScoreSource, SelectionSource, Source, check_within

Block = dict[str, Any]


class ScoredBlocks(torch.utils.data.Dataset[Block]):
    """The tokens of a score set or a selection, cut into blocks of equal length.

    Documents follow each other, each after its prefix and with one EOS at its end. A block begins
    with the last token of the block before it, as context, so that every token is a target exactly
    once. The last block is padded.

    A block is a dictionary: `input_ids`, `labels` and `position_ids`, int64[block_size], `ref_loss`,
    float32[block_size], and `seq_lengths`, a list. labels[i] is token i itself, or -100 if it is
    not to be trained on; models of transformers shift labels inside. ref_loss[i] is the reference's
    loss of token i in nats, or NaN. position_ids begin again with each document, so that attention
    does not cross documents; give them to the model with `use_cache=False` and without an attention
    mask. seq_lengths are the lengths of the documents' parts in the block, as TRL wants them.

    The i-th block depends on i alone. To resume, go on with the next index. The tokens are mapped
    from files in a local cache, and are not loaded into memory.

        blocks = ScoredBlocks("scores/ref", block_size=1024)
        loader = torch.utils.data.DataLoader(blocks, batch_size=8, collate_fn=collate_blocks)
    """

    def __init__(
        self,
        store: str | Mapping[str, str],
        *,
        block_size: int,
        within: str | None = None,
        eos_id: int | None = None,
        train_eos: bool = False,
        weighted: bool = False,
        cache: str | None = None,
    ) -> None:
        """Opens a store; the first time on this machine, its tokens are written into the cache.

        store: a score set, a selection, or several score sets by the names of their references. In
        blocks of score sets every token is a target. within: a selection; only documents of which
        it keeps a token are taken. eos_id: the token that ends each document; the tokenizer's EOS
        by default. weighted: for a selection with weights, which blocks then hold as `weight`,
        float32[block_size]; every token with a weight above 0 is a target. cache: a local folder.

        Raises:
            InputError: the store is not finished, or the options do not fit it.
        """
        urls = {"": store} if isinstance(store, str) else dict(store)
        urls = {name: absolute(url) for name, url in urls.items()}
        opened = next(iter(urls.values()))
        source: Source
        kept = None if within is None else absolute(within)
        if len(urls) == 1 and read_manifest(Folder(opened))["kind"] == "selection":
            source = SelectionSource(opened, kept, weighted)
            source.check()
            first: Selection | ScoreSet = source.store
        elif weighted:
            raise InputError(f"{opened} is no selection, so it has no weights. Leave weighted out.")
        else:
            source = ScoreSource(urls, within=kept)
            first = next(iter(source.sets.values()))
        if kept is not None:
            check_within(kept, first.tokenizer_sha256, source.unit_names)
        frame = frame_of(first, eos_id=eos_id, train_eos=train_eos)
        self._set_up(block_files(source, frame, cache_folder(cache)), frame, block_size)

    @classmethod
    def of_files(cls, files: BlockFiles, frame: Frame, block_size: int) -> "ScoredBlocks":
        """The blocks of files that are there already."""
        blocks = cls.__new__(cls)
        blocks._set_up(files, frame, block_size)
        return blocks

    def _set_up(self, files: BlockFiles, frame: Frame, block_size: int) -> None:
        if block_size < 2:
            raise InputError(f"the block size must be at least 2, got {block_size}.")
        self.files, self.block_size, self._frame = files, block_size, frame
        self._pad_id = next((i for i in (frame.eos_id, frame.prefix_id) if i is not None), 0)

    def __len__(self) -> int:
        """The number of blocks."""
        return max(0, -(-(self.files.counts.tokens - 1) // (self.block_size - 1)))

    def __getitem__(self, index: int) -> Block:
        """The block with this index, from 0 to len - 1."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} blocks, but block {index} was asked for")
        files, size = self.files, self.block_size
        first = index * (size - 1)
        stop = min(first + size, files.counts.tokens)
        n_real = stop - first
        ids = np.full(size, self._pad_id, np.int64)
        ids[:n_real] = files.input_ids[first:stop]
        labels = np.full(size, IGNORED, np.int64)
        labels[:n_real] = np.where(files.targets[first:stop], ids[:n_real], IGNORED)
        labels[0] = IGNORED
        ref_loss = np.full(size, np.nan, np.float32)
        if files.ref_loss is not None:
            ref_loss[:n_real] = files.ref_loss[first:stop]
        lengths = self._lengths(first, stop)
        if n_real < size:
            lengths.append(size - n_real)
        starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
        block = {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "ref_loss": torch.from_numpy(ref_loss),
            "position_ids": torch.from_numpy(np.arange(size) - starts),
            "seq_lengths": lengths,
        }
        if files.weight is not None:
            weight = np.zeros(size, np.float32)
            weight[:n_real] = files.weight[first:stop]
            block["weight"] = torch.from_numpy(np.where(labels == IGNORED, np.float32(0), weight))
        return block

    def groups_of(self, index: int) -> np.ndarray:
        """The place of each token's group in `files.counts.groups`, int64[block_size]; -1 in padding."""
        first = index * (self.block_size - 1)
        places = np.arange(first, first + self.block_size)
        document = np.searchsorted(self.files.starts[:-1], places, side="right") - 1
        found = self.files.groups[document].astype(np.int64)
        found[places >= self.files.counts.tokens] = -1
        return found

    def n_read(self, index: int) -> int:
        """The tokens of a block that a model is asked for, whether they are trained on or not.

        These are the tokens of documents, and the EOS that was put behind them if it is trained on.
        The first token of a block is context, and so is a document's first one, its prefix if it
        has one.
        """
        first = index * (self.block_size - 1)
        stop = min(first + self.block_size, self.files.counts.tokens)

        def n_there(places: np.ndarray) -> int:
            return int(np.searchsorted(places, stop) - np.searchsorted(places, first + 1))

        ends = 0 if self._frame.train_eos else n_there(self.files.ends)
        return stop - first - 1 - n_there(self.files.starts) - ends

    def _lengths(self, first: int, stop: int) -> list[int]:
        """Tokens of each document's part in [first, stop)."""
        starts = self.files.starts
        low, high = np.searchsorted(starts, [first, stop], side="right")
        inside = [int(start) for start in starts[low:high] if first < start < stop]
        edges = [first, *dict.fromkeys(inside), stop]
        return np.diff(edges).tolist()


def frame_of(store: ScoreSet | Selection, *, eos_id: int | None, train_eos: bool) -> Frame:
    """The tokens around each document of a store: the prefix that it was scored with, and an EOS."""
    tokenizer = load_store_tokenizer(store)
    eos = tokenizer.eos_token_id if eos_id is None else eos_id
    return Frame(prefix_id=scored_prefix(store, tokenizer), eos_id=eos, train_eos=train_eos)


_FLOATS = ("ref_loss", WEIGHT, "excess", "loss", "delta")
_TENSORS = ("input_ids", "labels", "position_ids", "attention_mask", *_FLOATS)


def collate_blocks(rows: Sequence[Mapping[str, Any]]) -> Block:
    """Stacks packed rows of equal length into a batch that keeps their documents apart.

    rows: blocks of `ScoredBlocks`, or rows of an export with `--format labels --block-size`, as
    `datasets` returns them.

    Returns tensors of shape (n_rows, row length): int64 of ids, labels and positions, float32 of
    losses, with NaN for null. `seq_lengths` stays a list for each row. There is no attention mask,
    because models of transformers look at position_ids only without one.

    Raises:
        InputError: the rows have no position_ids, or have an attention mask, or are of different
            lengths, so that documents would see each other or rows would have to be padded.
    """
    first = rows[0]
    if "position_ids" not in first or "attention_mask" in first:
        raise InputError(
            "these rows are not packed: they have no position_ids, or an attention_mask. Rows of one document are padded, for "
            "example by DataCollatorForSeq2Seq. Packed rows are exported with --block-size."
        )
    if len(lengths := {len(row["input_ids"]) for row in rows}) > 1:
        raise InputError(f"packed rows have one length, but these have {sorted(lengths)}. Do not mix exports.")
    found: Block = {}
    for name in _TENSORS:
        if name in first:
            kind = torch.float32 if name in _FLOATS else torch.int64
            found[name] = torch.stack([_tensor(row[name], kind) for row in rows])
    if "seq_lengths" in first:
        found["seq_lengths"] = [list(row["seq_lengths"]) for row in rows]
    return found


def _tensor(values: Any, kind: torch.dtype) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values.to(kind)
    return torch.tensor([math.nan if value is None else value for value in values], dtype=kind)
