"""Batches in the style of nanoGPT, from a .bin of tokens and the .mask beside it.

rho-score export selection train --format bin
python examples/nanogpt.py models/base train --steps 10
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="a model of transformers; nanoGPT's own takes the same batches")
parser.add_argument("export", type=Path, help="the export")
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--block-size", type=int, default=256)
args = parser.parse_args()

dtype = json.loads((args.export / "manifest.json").read_bytes())["dtype"]
parts = [
    (np.memmap(path, dtype), np.memmap(path.with_suffix(".mask"), np.uint8))
    for path in sorted(args.export.glob("data/*.bin"))
]
sizes = np.array([len(tokens) for tokens, _ in parts])


def get_batch(random: np.random.Generator, n_rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, int64[n_rows, block_size]; -1 is a target that is not trained on."""
    inputs, targets = [], []
    while len(inputs) < n_rows:
        tokens, mask = parts[random.choice(len(parts), p=sizes / sizes.sum())]
        at = random.integers(max(1, len(tokens) - args.block_size))
        ids = torch.from_numpy(tokens[at : at + args.block_size + 1].astype(np.int64))
        kept = torch.from_numpy(mask[at : at + args.block_size + 1].astype(bool))
        if kept[1:].any() and len(ids) == args.block_size + 1:
            inputs.append(ids[:-1])
            targets.append(torch.where(kept, ids, -1)[1:])  # mask[i] belongs to the target token i
    return torch.stack(inputs), torch.stack(targets)


model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
random = np.random.default_rng(0)
for step in range(args.steps):
    x, y = get_batch(random)
    loss = torch.nn.functional.cross_entropy(model(x).logits.flatten(0, 1), y.flatten(), ignore_index=-1)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step + 1}: loss {loss.item():.4f}")
