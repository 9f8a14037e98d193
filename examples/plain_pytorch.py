"""The loop of Rho-1 in plain PyTorch: train on the tokens with the highest live excess loss.

python examples/plain_pytorch.py models/base scores/ref trained --ratio 0.6 --steps 100
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import rho_score as rho

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="the model to train")
parser.add_argument("scores", help="the score set of the reference model")
parser.add_argument("output", help="where the trained model is written")
parser.add_argument("--ratio", type=float, default=0.6)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--block-size", type=int, default=512)
args = parser.parse_args()

model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
blocks = rho.ScoredBlocks(args.scores, block_size=args.block_size)
shuffled = torch.utils.data.RandomSampler(blocks, num_samples=4 * args.steps)
loader = torch.utils.data.DataLoader(blocks, batch_size=4, sampler=shuffled, collate_fn=rho.collate_blocks)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
selective = rho.SelectiveLoss(ratio=args.ratio)
model.train()
for step, batch in enumerate(loader):
    # use_cache=False and no attention mask: position_ids then keep the documents of a row apart
    logits = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[:, :-1]
    targets, ref_loss = batch["labels"][:, 1:], batch["ref_loss"][:, 1:]
    token_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    loss = selective(token_loss.view_as(targets), ref_loss, valid=targets != -100)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step + 1}: loss of the selected tokens {loss.item():.4f}")
model.save_pretrained(args.output)
AutoTokenizer.from_pretrained(args.model).save_pretrained(args.output)
