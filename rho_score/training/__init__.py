"""Training on scores: blocks of stores, the selective loss, and the job around Hugging Face's Trainer."""
