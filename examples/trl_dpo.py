"""TRL's DPOTrainer with the log-probabilities of a reference that was scored beforehand.

rho-score score pairs/ scores/pairs --model models/ref --prompt-column prompt --chosen-column chosen --rejected-column rejected
rho-score export scores/pairs dpo --format dpo
python examples/trl_dpo.py models/base dpo trained --steps 100
"""

import argparse

import torch
from datasets import Dataset, load_dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="the model to train")
parser.add_argument("export", help="the export")
parser.add_argument("output", help="where the trained model is written")
parser.add_argument("--beta", type=float, default=0.1)
parser.add_argument("--steps", type=int, default=100)
args = parser.parse_args()


class StoredReference(DPOTrainer):
    """Takes the reference's log-probabilities from the data set; no reference model is loaded or run."""

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset


pairs = load_dataset("json", data_files=f"{args.export}/data/*.jsonl", split="train")
trainer = StoredReference(
    model=args.model,
    args=DPOConfig(
        args.output, max_steps=args.steps, per_device_train_batch_size=4, learning_rate=1e-5, logging_steps=1, beta=args.beta,
        save_strategy="no", report_to=[], max_length=None, precompute_ref_log_probs=True, bf16=torch.cuda.is_available(),
    ),
    train_dataset=pairs,
    processing_class=AutoTokenizer.from_pretrained(args.model),
)  # fmt: skip
trainer.train()
trainer.save_model()
