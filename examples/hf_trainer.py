"""Hugging Face's Trainer on an export with packed rows: the mask is in the labels.

rho-score export selection train --format labels --block-size 512
python examples/hf_trainer.py models/base train trained --steps 100
"""

import argparse

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import rho_score as rho

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="the model to train")
parser.add_argument("export", help="the export")
parser.add_argument("output", help="where the trained model is written")
parser.add_argument("--steps", type=int, default=100)
args = parser.parse_args()

model = AutoModelForCausalLM.from_pretrained(args.model, dtype="float32")
model.config.use_cache = False  # with a cache, the documents of a packed row would see each other
rows = load_dataset(args.export, split="train").select_columns(["input_ids", "labels", "position_ids"])
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        args.output, max_steps=args.steps, per_device_train_batch_size=4, learning_rate=1e-4, logging_steps=1,
        save_strategy="no", report_to=[],
    ),
    train_dataset=rows,
    data_collator=rho.collate_blocks,  # refuses rows that are not packed, and adds no attention mask
    processing_class=AutoTokenizer.from_pretrained(args.model),
)  # fmt: skip
trainer.train()
trainer.save_model()
