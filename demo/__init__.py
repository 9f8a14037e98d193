"""The method of the paper on real text with a real model: `make demo`.

model.py (a real model from a package) → corpus.py (real text in shards) → reference.py (fine-tune on a curated
slice) → run.py (plan, score twice, select, report, and the table).
"""
