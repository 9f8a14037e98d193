"""The main job with what is installed: `python main_job.py FOLDER`, on a machine that has nothing but the wheel.

It makes a tiny model and sixty documents in FOLDER, scores them twice through the command line, selects, exports and writes a
report, and compares the losses with a plain forward. It imports nothing of this repository.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dogs",
    "while",
    "seven",
    "wizards",
    "mix",
    "potions",
    "near",
    "quiet",
    "rivers",
    "at",
    "night",
]
LARGEST = 2e-3
"""Nats between a stored loss, which is rounded to half precision, and a plain forward in float32."""


def main(folder: Path) -> None:
    """Run every step, and print what each took."""
    texts = make_corpus(folder / "corpus.jsonl")
    for name, seed in (("ref", 1), ("base", 2)):
        make_model(folder / name, texts, seed=seed)
        run("score", str(folder / "corpus.jsonl"), str(folder / f"scores-{name}"),
            "--model", str(folder / name), "--id-column", "id")  # fmt: skip
    compare(folder, texts)
    scores = ["--ref", str(folder / "scores-ref"), "--base", str(folder / "scores-base")]
    run("select", str(folder / "selection"), *scores, "--ratio", "0.6")
    run("export", str(folder / "selection"), str(folder / "labels"), "--format", "labels")
    run("report", str(folder / "selection"), str(folder / "report.html"))
    kernel = subprocess.run([sys.executable, "-c", "import rho_score.ranking._kernel"], check=False)
    if kernel.returncode:
        raise SystemExit("The wheel has no compiled kernel.")
    print("The main job runs with what is installed here.")


def make_corpus(path: Path) -> list[str]:
    """Sixty documents of random words, one JSON object a line; returns their texts."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, size=int(n))) for n in random.integers(5, 120, size=60)]
    path.write_text("".join(json.dumps({"id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return texts


def make_model(folder: Path, texts: list[str], *, seed: int) -> None:
    """A Llama of two layers with a byte-level tokenizer that was trained on the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"]))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(wrapped), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def run(command: str, *options: str) -> None:
    """One command, whose failure ends this program with its output."""
    began = time.monotonic()
    program = Path(sys.executable).parent / "rho-score"
    ended = subprocess.run([str(program), command, *options], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"rho-score {command} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
    print(f"{command:8} {time.monotonic() - began:5.1f} s", flush=True)


def compare(folder: Path, texts: list[str]) -> None:
    """Every stored loss of the reference with that of a plain forward over its document."""
    rows = pq.read_table(folder / "scores-ref" / "data").to_pylist()
    if sorted(row["doc_id"] for row in rows) != sorted(f"d{i}" for i in range(len(texts))):
        raise SystemExit(f"{len(texts)} documents went in, and {len(rows)} rows came out.")
    model = LlamaForCausalLM.from_pretrained(folder / "ref").eval()
    worst = 0.0
    for row in rows:
        ids = torch.tensor([[0, *row["input_ids"]]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].float()
        expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").numpy()
        worst = max(worst, float(np.abs(np.asarray(row["loss"], dtype=np.float32) - expected).max()))
    if worst > LARGEST:
        raise SystemExit(f"A stored loss differs from a plain forward by {worst:.1e} nats.")
    print(f"{sum(len(row['loss']) for row in rows):,} losses differ from a plain forward by {worst:.1e} nats at most.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
