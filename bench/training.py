"""Live selection beside plain training, interleaved in one process: `python -m bench.training`.

Each contender makes the same steps (forward, backward, AdamW) on the same packed rows, one after another, so that a noisy
machine is noisy for all. A ratio is the median over the rounds. `python -m bench.training head` measures the peak memory of
the head alone, in a process of its own; `python -m bench.training steps` leaves it out.
"""

import argparse
import copy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.machine import memory_gib, processor, versions
from bench.memory import Watch
from bench.rows import Row, rate_row, write_rows
from demo.model import base_model
from rho_score.inference.loss import Head
from rho_score.training.head_loss import losses_of, weighted_loss
from rho_score.training.model import select_in_forward
from rho_score.training.selection import SelectionRule, TokenSelection

Batch = dict[str, torch.Tensor]
Step = Callable[[Batch], None]


def batch_of(vocabulary: int, n_rows: int, block_size: int, seed: int, device: torch.device) -> Batch:
    """Random packed rows of documents of about 200 tokens, with reference losses."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (n_rows, block_size), generator=random)
    places = torch.arange(block_size) % 200
    batch = {
        "input_ids": ids,
        "labels": ids.clone(),
        "ref_loss": torch.rand(n_rows, block_size, generator=random) * 12,
        "position_ids": places.repeat(n_rows, 1),
    }
    return {name: values.to(device) for name, values in batch.items()}


def contender(model: Any, rule: SelectionRule | None, dtype: torch.dtype) -> Step:
    """A training step: with the model's own loss, or with the selective one."""
    model = copy.deepcopy(model).train()
    if rule is not None:
        select_in_forward(model, TokenSelection(rule))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    device = next(model.parameters()).device

    def step(batch: Batch) -> None:
        given = (
            batch
            if rule is not None
            else {n: batch[n] for n in ("input_ids", "labels", "position_ids")} | {"use_cache": False}
        )
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(**given).loss
        (loss / batch["labels"].numel() if rule is not None else loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def throughput(rounds: int, n_rows: int, block_size: int) -> list[Row]:
    """Tokens/s of every contender, and its ratio to plain training."""
    gpu = torch.cuda.is_available()
    device, dtype = torch.device("cuda" if gpu else "cpu"), torch.bfloat16 if gpu else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(base_model(), dtype=torch.float32)
    model.to(device)
    rules = {
        "plain training, the model's own loss": None,
        "every token, fused head": SelectionRule(),
        "live selection, ratio 0.6": SelectionRule(ratio=0.6),
        "live selection, ratio 0.3": SelectionRule(ratio=0.3),
    }
    steps = {name: contender(model, rule, dtype) for name, rule in rules.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for n in range(rounds + 1):
        batch = batch_of(model.config.vocab_size, n_rows, block_size, n, device)
        for name in list(steps)[n % len(steps) :] + list(steps)[: n % len(steps)]:
            started = time.perf_counter()
            steps[name](batch)
            if n:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    plain = next(iter(seconds.values()))
    rows = [
        Row(f"**training** SmolLM2-135M, {dtype}, {rounds} steps of {n_rows} rows of {block_size} tokens, tokens/s", "")
    ]
    for name, took in seconds.items():
        ratios = [one / other for one, other in zip(plain, took, strict=True)]
        rows.append(rate_row(name, [n_rows * block_size / one for one in took], ratios, "it ÷ plain training"))
    return rows


def head_memory(kind: str, vocabulary: int = 150_000, width: int = 256, n_tokens: int = 8192) -> None:
    """Prints the peak memory of a head's forward and backward pass above its inputs, in MB."""
    hidden = torch.randn(n_tokens, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    weight.grad, hidden.grad = torch.zeros_like(weight), torch.zeros_like(hidden)
    targets = torch.randint(0, vocabulary, (n_tokens,))
    with Watch() as watch:
        if kind == "plain":
            torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, weight), targets).backward()
        else:
            losses = losses_of(hidden, targets, Head(weight))
            kept = losses > losses.median()
            weighted_loss(hidden[kept], targets[kept], torch.ones(int(kept.sum())), Head(weight))[0].backward()
    print(f"{(watch.peak - watch.before) / 1e6:,.0f}")


def main() -> None:
    """Runs both parts; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=["head", "steps", "all"], default="all")
    parser.add_argument("kind", nargs="?", choices=["plain", "ours"], default="ours")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--block-size", type=int, default=512)
    parser.add_argument("--json", type=Path, default=None, help="a file for the rows of the steps")
    args = parser.parse_args()
    if args.part == "head":
        head_memory(args.kind)
        return
    rows = throughput(args.rounds, args.rows, args.block_size)
    if args.json is not None:
        write_rows(args.json, rows)
    if args.part == "all":
        command = [sys.executable, "-m", "bench.training", "head"]
        rows.append(Row("**head** of 150,000 words, 8,192 tokens, width 256: peak above its inputs", ""))
        for kind in ("plain", "ours"):
            took = subprocess.run([*command, kind], capture_output=True, text=True, check=True).stdout.strip()
            rows.append(Row(kind, f"{took} MB"))
    named = ", ".join(f"{name} {version}" for name, version in versions(("torch", "transformers")).items())
    print(f"{processor()}, {memory_gib():.0f} GiB; {named}\n\n| | |\n|---|---|")
    print("\n".join(f"| {row.what} | {row.shown} |" for row in rows))


if __name__ == "__main__":
    main()
