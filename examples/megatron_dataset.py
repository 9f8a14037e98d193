"""A dataset for Megatron-core that reads the mask beside the tokens.

    rho-score export selection train --format megatron

`MaskedGPTSamples` gives what Megatron's GPTDataset gives for a sample of `length` tokens, with the
loss mask of the selection. Documents are concatenated as Megatron does; each ends with EOS.
"""

import sys

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset


class MaskedGPTSamples(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Samples of `length` tokens of one part, one after another."""

    def __init__(self, prefix: str, length: int) -> None:
        self.tokens, self.mask = IndexedDataset(prefix), IndexedDataset(f"{prefix}_mask")
        assert np.array_equal(self.tokens.sequence_lengths, self.mask.sequence_lengths)
        self.ends, self.length = np.cumsum(self.tokens.sequence_lengths), length

    def __len__(self) -> int:
        return (int(self.ends[-1]) - 1) // self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        first, stop = index * self.length, (index + 1) * self.length + 1
        low, high = np.searchsorted(self.ends, [first, stop - 1], side="right")
        documents = range(low, high + 1)
        begin = first - (int(self.ends[documents[0] - 1]) if documents[0] else 0)
        cut = slice(begin, begin + self.length + 1)
        ids, mask = (
            torch.from_numpy(np.concatenate([data[i] for i in documents])[cut].astype(np.int64))
            for data in (self.tokens, self.mask)
        )
        return {
            "tokens": ids[:-1],
            "labels": ids[1:],
            "loss_mask": mask[1:].float(),  # mask[i] belongs to token i, which is the label of token i - 1
            "position_ids": torch.arange(self.length),
        }


if __name__ == "__main__":
    samples = MaskedGPTSamples(sys.argv[1], int(sys.argv[2]))
    kept = sum(float(samples[i]["loss_mask"].sum()) for i in range(len(samples)))
    print(f"{len(samples)} samples, {kept:.0f} tokens to train on")
