"""`make demo`: the method of Rho-1 on real text with a real model, by the commands that a user types."""

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import transformers

from demo.command import rho_score
from demo.corpus import CURATED_GROUP, build, write_curated, write_evaluation
from demo.model import base_model
from rho_score.cli.output import QUARANTINED
from rho_score.cluster.ray_cluster import cluster
from rho_score.stores.counts import group_counts_in
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from rho_score.stores.training_run import TrainingRun


class Size(NamedTuple):
    """How much the demo does."""

    out: Path
    share: float
    """Of the corpus, see `corpus.build`."""
    steps: int
    """Of the reference's training, each on 512 tokens."""
    trained: int
    """Steps of each of the two models that are trained at the end, each on 512 tokens."""


SHORT = Size(Path("out/demo"), share=0.15, steps=10, trained=6)
FULL = Size(Path("out/demo-full"), share=1.0, steps=20, trained=80)
COLUMNS = "--id-column id --group-column source"
TRAINING = "--block-size 512 --batch-tokens 512 --schedule constant --warmup 0.3 --weight-decay 0"
SETTINGS = "--context 1024 --overlap 128 --unit-bytes 40000"


def demo(size: Size) -> int:
    """Train a reference, score twice, select, export, report, train; 0 if the curated group has the highest share kept."""
    started, out = time.monotonic(), size.out
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(out, ignore_errors=True)
    print(f"1. a real model and real text, under {out}/")
    base = base_model()
    corpus = build(out / "corpus", size.share)
    evaluation = write_evaluation(out / "held-out")
    print(f"2. the reference: trained on a curated slice of {CURATED_GROUP}, which is not in the corpus")
    curated = write_curated(out / "curated")
    rho_score(f"train {base} {out}/reference --text {curated} --steps {size.steps} --learning-rate 2e-4 {TRAINING}")
    reference = out / "reference/model"
    with cluster(local_cpus=(os.cpu_count() or 1) + 2):
        print("3. score the corpus with both models")
        rho_score(f"plan {corpus} --model {base} {COLUMNS}")
        rates = [
            rho_score(f"score {corpus} {out}/scores/{name} --model {model} {COLUMNS} {SETTINGS}", done=QUARANTINED)
            for name, model in (("base", base), ("ref", reference))
        ]
        print("4. keep the 30 % of tokens with the highest excess loss, over the whole corpus")
        rho_score(f"select --ref {out}/scores/ref --base {out}/scores/base {out}/selection --ratio 0.3")
        rho_score(f"curve {out}/selection --ratio 0.3 0.6 0.9 --threshold 0 --plot {out}/curve.svg")
        rho_score(f"export {out}/selection {out}/train --format labels --block-size 1024")
    rho_score(f"report {out}/selection {out}/report.html")
    print("5. train the base model, on the 60 % of tokens with the highest live excess loss, and on all of them")
    for name, rule in (("selected", "--ratio 0.6"), ("all", "")):
        rho_score(
            f"train {base} {out}/trained/{name} --scores {out}/scores/ref {rule} --steps {size.trained} "
            f"--learning-rate 1e-4 {TRAINING} --eval held-out={evaluation} --eval-every {size.trained}"
        )
    rho_score(f"report {out}/trained/selected {out}/trained.html --compare {out}/trained/all")
    return _table(out, rates, time.monotonic() - started)


def _table(out: Path, seconds: list[float], wall_s: float) -> int:
    scores, selection = ScoreSet.open(f"{out}/scores/ref"), Selection.open(f"{out}/selection")
    groups = group_counts_in(selection.summary)
    total = scores.summary
    threshold = selection.summary["thresholds"][0]["threshold"]
    rates = " and ".join(f"{total['tokens'] / s:,.0f}" for s in seconds)
    print(
        f"\n{'documents':<22}{total['documents']:>10,}  scored {total['scored']:,}, quarantined {total['quarantined']:,}"
    )
    print(f"{'tokens':<22}{total['tokens']:>10,}")
    print(f"{'tokens/s':<22}{rates:>10}  (base and reference; loading the model included)")
    print(f"{'threshold':<22}{threshold:>10.4f}  nats of excess loss")
    ranked = sorted(groups.items(), key=lambda item: -item[1].share_kept)
    for group, accounts in ranked:
        print(f"{'share kept, ' + str(group):<27}{accounts.share_kept:>5.1%}  of {accounts.tokens:,} tokens")
    for name in ("selected", "all"):
        run = TrainingRun.open(f"{out}/trained/{name}")
        first, *_, last = run.evaluations().to_pylist()
        print(
            f"{'held-out loss, ' + name:<27}{first['loss']:.4f} before and {last['loss']:.4f} after "
            f"{last['tokens_trained']:,} of {last['tokens_seen']:,} tokens"
        )
    print(f"{'report':<22}{(out / 'report.html').resolve()}")
    print(f"{'time':<22}{wall_s:>10.0f}  s")
    if ranked[0][0] != CURATED_GROUP:
        print(f"The curated group {CURATED_GROUP} should have the highest share kept; {ranked[0][0]} has.")
        return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="five times the text, and a longer fine-tuning")
    raise SystemExit(demo(FULL if parser.parse_args().full else SHORT))
