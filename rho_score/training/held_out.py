"""The loss of a model on held-out documents, as a whole and by group."""

import math
from typing import Any

import numpy as np
import torch

from rho_score.stores.framing import IGNORED
from rho_score.training.blocks import ScoredBlocks, collate_blocks
from rho_score.training.ranks import Ranks


class HeldOut:
    """A held-out set, cut into blocks that the ranks share.

    Every token counts once. It sees the tokens before it in its document that are in the same
    block, so documents that are longer than a block are cut.
    """

    def __init__(self, name: str, blocks: ScoredBlocks, *, batch: int) -> None:
        self.name, self._blocks, self._batch = name, blocks, batch

    @torch.no_grad()
    def rows(self, model: torch.nn.Module, ranks: Ranks, device: torch.device) -> list[dict[str, Any]]:
        """Rows of `stores.training_run.EVAL_SCHEMA` without the step: the whole set, then its groups by name."""
        counts = self._blocks.files.counts
        nats, tokens = np.zeros((2, len(counts.groups)), np.float64)
        was_training = model.training
        model.eval()
        n_blocks = len(self._blocks)
        stride = ranks.size * self._batch
        for first in range(0, n_blocks, stride):  # as many passes on each rank, since sharded models need them
            mine = range(first + ranks.rank * self._batch, first + (ranks.rank + 1) * self._batch)
            wanted = [index for index in mine if index < n_blocks] or [0]
            batch = collate_blocks([self._blocks[index] for index in wanted])
            del batch["seq_lengths"]
            losses = model(**{name: values.to(device) for name, values in batch.items()})["token_loss"].cpu()
            if mine[0] >= n_blocks:
                continue
            groups = np.stack([self._blocks.groups_of(index) for index in wanted])
            targets = batch["labels"].numpy() != IGNORED
            of = groups[targets]
            nats += np.bincount(of, losses.numpy()[targets].astype(np.float64), len(counts.groups))
            tokens += np.bincount(of, minlength=len(counts.groups))
        model.train(was_training)
        both = ranks.sum(torch.from_numpy(np.stack([nats, tokens])).to(device)).cpu().numpy()
        return self._rows(both[0], both[1])

    def _rows(self, nats: np.ndarray, tokens: np.ndarray) -> list[dict[str, Any]]:
        counts = self._blocks.files.counts
        n_bytes = counts.group_bytes

        def row(group: str | None, places: list[int]) -> dict[str, Any]:
            total, n_tokens = float(nats[places].sum()), int(tokens[places].sum())
            size = sum(n_bytes[place] for place in places) if n_bytes is not None else 0
            return {
                "name": self.name,
                "group": group,
                "tokens": n_tokens,
                "loss": total / n_tokens if n_tokens else None,
                "bits_per_byte": total / math.log(2) / size if size else None,
            }

        whole = row(None, list(range(len(counts.groups))))
        named = [(group, place) for place, group in enumerate(counts.groups) if group is not None]
        return [whole, *(row(group, [place]) for group, place in sorted(named))]
