"""TRL's SFTTrainer with live excess loss, from the reference losses that an export carries.

rho-score export scores/ref train --format labels --block-size 512 --columns ref-loss
python examples/trl_sft.py models/base train trained --ratio 0.6 --steps 100
"""

import argparse
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

import rho_score as rho

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="the model to train")
parser.add_argument("export", help="the export")
parser.add_argument("output", help="where the trained model is written")
parser.add_argument("--ratio", type=float, default=0.6)
parser.add_argument("--steps", type=int, default=100)
args = parser.parse_args()


class LiveTrainer(SFTTrainer):
    """Trains on the tokens with the highest excess loss of each batch."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ref_loss = inputs.pop("ref_loss")[:, 1:]
        # TRL's fused head gives the log-probability of each label, (rows, length - 1), without the logits.
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        loss = selective(-outputs.log_probs, ref_loss, valid=inputs["labels"][:, 1:] != -100)
        loss = loss / self.current_gradient_accumulation_steps  # the Trainer divides only its own losses
        return (loss, outputs) if return_outputs else loss


selective = rho.SelectiveLoss(ratio=args.ratio)
rows = load_dataset(args.export, split="train").select_columns(["input_ids", "labels", "position_ids", "ref_loss"])
trainer = LiveTrainer(
    model=args.model,
    args=SFTConfig(
        args.output, max_steps=args.steps, per_device_train_batch_size=4, learning_rate=1e-4, logging_steps=1,
        save_strategy="no", report_to=[], remove_unused_columns=False, max_length=None, bf16=torch.cuda.is_available(),
        dataset_kwargs={"skip_prepare_dataset": True},
    ),
    train_dataset=rows,
    data_collator=rho.collate_blocks,
    processing_class=AutoTokenizer.from_pretrained(args.model),
)  # fmt: skip
trainer.train()
trainer.save_model()
