"""A dataset for torchtitan from an export with packed rows.

    rho-score export selection train --format labels --block-size 2049
    python examples/torchtitan_dataset.py train

torchtitan takes pairs of `{"input", "positions"}` and labels that are shifted already, and resumes by
the state of the dataset. Rows of N + 1 tokens give sequences of N. Positions begin again with each
document, which is how torchtitan keeps documents apart.
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from datasets import load_dataset


class SelectedTokens(torch.utils.data.IterableDataset[Any]):
    """The rows of an export for one data-parallel rank, again and again."""

    def __init__(self, export: str, dp_rank: int = 0, dp_world_size: int = 1, infinite: bool = True) -> None:
        columns = ["input_ids", "labels", "position_ids"]
        rows = load_dataset(export, split="train").select_columns(columns).with_format("torch")
        self.rows, self.infinite = rows.shard(dp_world_size, dp_rank), infinite
        self.at = 0

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        while True:
            while self.at < len(self.rows):
                row = self.rows[self.at]
                self.at += 1
                # labels[i] is token i or -100, so shifting is all that is left to do
                yield {"input": row["input_ids"][:-1], "positions": row["position_ids"][:-1]}, row["labels"][1:]
            if not self.infinite:
                return
            self.at = 0

    def state_dict(self) -> dict[str, int]:
        """Where to go on."""
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there."""
        self.at = state["at"]


if __name__ == "__main__":
    labels = [labels for _, labels in SelectedTokens(sys.argv[1], infinite=False)]
    print(f"{len(labels)} rows, {sum(int((row != -100).sum()) for row in labels)} tokens to train on")
