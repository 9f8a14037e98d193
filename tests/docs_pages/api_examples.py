"""Examples of every public name, in the order in which they can be run one behind the other.

`docs/reference/api.md` shows each under the first of its names, and `test_api_examples.py` runs them.
"""

from typing import NamedTuple


class Example(NamedTuple):
    """Code that uses these public names."""

    names: tuple[str, ...]
    code: str


EXAMPLES = (
    Example(
        ("dedup", "DedupConfig", "DedupSummary"),
        """
unique = rho.dedup(rho.DedupConfig(input="corpus", output="deduplicated", group_column="source"))
print(unique.counts.kept, "kept,", unique.counts.dropped, "dropped; the largest cluster:", unique.clusters[:1])
""",
    ),
    Example(
        ("score", "ScoreConfig", "ScoreSummary"),
        """
rho.score(rho.ScoreConfig(input="corpus", output="scores/ref", model="models/ref", group_column="source"))
summary = rho.score(
    rho.ScoreConfig(input="corpus", output="scores/base", model="models/base", group_column="source")
)
print(summary.counts.tokens, "tokens,", summary.counts.quarantined, "documents quarantined")
""",
    ),
    Example(
        ("select", "SelectConfig", "SelectSummary"),
        """
rule = rho.SelectConfig(output="selection", ref=("scores/ref",), base="scores/base", ratio=0.6)
kept = rho.select(rule)
print(kept.total.share_kept, "of the tokens, from", kept.threshold_of(None), "nats of excess loss on")
for group, counts in kept.groups.items():
    print(group, counts.share_kept)
""",
    ),
    Example(
        ("export", "ExportConfig", "ExportSummary"),
        """
written = rho.export(
    rho.ExportConfig(selection="selection", output="train", format="labels", block_size=128)
)
print(written.files, "files,", written.counts.tokens_trained, "tokens to train on")
""",
    ),
    Example(
        ("report", "ReportConfig"),
        """
page = rho.report(rho.ReportConfig(store="selection", output="report.html"))
""",
    ),
    Example(
        ("status", "StatusConfig", "StatusSummary"),
        """
run = rho.status(rho.StatusConfig(output="scores/ref", price_per_hour=2.0))  # also while it runs, from any machine
print(run.state, run.contents.done, "of", run.contents.of, run.contents.unit, "money so far:", run.money.total)
""",
    ),
    Example(
        ("dynamics", "DynamicsConfig", "DynamicsSummary"),
        """
learnt = rho.dynamics(
    rho.DynamicsConfig(scores=("scores/base", "scores/ref"), output="dynamics", keep=("H-L",))
)
print(learnt.shares)  # tokens by group and category
""",
    ),
    Example(
        ("losses", "LossesConfig", "LossesSummary", "KeptLoss"),
        """
found = rho.losses(
    rho.LossesConfig(selection=("kept=selection",), scores=("base=scores/base", "ref=scores/ref"))
)
for row in found.rows:
    print(row.scores, row.loss_kept, row.loss_dropped)
""",
    ),
    Example(
        ("compare", "CompareConfig", "CompareSummary", "Comparison", "PartStats"),
        """
groups = rho.compare(rho.CompareConfig(scores=("scores/ref",), per_group=True))
for part in groups.groups:
    print(part.label, part.documents, "documents,", part.bits_per_byte, "bits per byte")
for found in groups.comparisons:
    print(found.label, found.difference.value, found.superiority, found.verdict)
""",
    ),
    Example(
        ("import_scores", "ImportConfig", "ImportSummary"),
        """
import json, pathlib

reference = rho.ScoreSet.open("scores/ref")
tables = [reference.unit_table(unit.unit, ["doc_id"]) for unit in reference.units]
names = [name for table in tables for name in table["doc_id"].to_pylist()]
rows = [{"doc_id": name, "score": i / 10} for i, name in enumerate(names)]  # of a classifier
pathlib.Path("quality.jsonl").write_text("\\n".join(map(json.dumps, rows)))
imported = rho.import_scores(
    rho.ImportConfig(
        values="quality.jsonl", output="scores/quality", like="scores/ref",
        unit="other", level="document", values_column="score",
    )
)
print(imported.counts.losses, "tokens have a value;", imported.documents_without_values, "documents have none")
""",
    ),
    Example(
        ("prior", "PriorConfig", "PriorSummary"),
        """
frequencies = rho.prior(rho.PriorConfig(scores="scores/base", output="scores/prior"))
print(frequencies.words_seen, "of", frequencies.words, "words occur")
""",
    ),
    Example(
        ("kl", "KLConfig", "KLSummary"),
        """
for name in ("base", "ref"):
    rho.score(
        rho.ScoreConfig(
            input="corpus", output=f"candidates/{name}", model=f"models/{name}", signals=("top-k",), top_k=16
        )
    )
apart = rho.kl(rho.KLConfig(base="candidates/base", ref="candidates/ref", output="scores/kl"))
print(apart.counts.total_nats / apart.counts.losses, "nats a token, at least")
""",
    ),
    Example(
        ("kl_lower_bound",),
        """
import numpy as np

p_ids, p_log = np.array([[7, 3]]), np.log([[0.6, 0.3]])  # the likeliest words of one model and of another
q_ids, q_log = np.array([[3, 7]]), np.log([[0.5, 0.4]])
print(rho.kl_lower_bound(p_ids, p_log, q_ids, q_log))  # nats, one a row
""",
    ),
    Example(
        ("open_store",),
        """
store = rho.open_store("selection")
for unit in store.units:
    table = store.unit_table(unit.unit)  # pyarrow: doc_id, group, input_ids, excess, mask
""",
    ),
    Example(
        ("ScoreSet",),
        """
scores = rho.ScoreSet.open("scores/ref")
print(scores.summary["total_nats"] / scores.summary["losses"], "nats a token")
""",
    ),
    Example(
        ("Selection",),
        """
selection = rho.Selection.open("selection")
print(selection.histogram().num_rows, "different scores")
""",
    ),
    Example(
        ("load_curves", "Curves"),
        """
curves = rho.load_curves(selection)
print(curves.at_ratio(0.3).threshold, curves.at_threshold(0.0).tokens)
""",
    ),
    Example(
        ("sample_tokens",),
        """
sample = rho.sample_tokens(selection, n_tokens=1000)
print(sample.score[sample.mask].mean())
""",
    ),
    Example(
        ("Scorer",),
        """
import numpy as np

scorer = rho.Scorer("models/ref", dtype="float32", context=512, overlap=128, prefix_id=0)
losses = scorer.score_documents([np.array([5, 6, 7])])  # nats, one array a document
""",
    ),
    Example(
        ("train", "TrainConfig", "TrainSummary"),
        """
trained = rho.train(
    rho.TrainConfig(
        model="models/base", output="runs/slm", scores=("scores/ref",), ratio=0.6, steps=4,
        block_size=64, batch_tokens=256, eval=("held-out=corpus",)
    )
)
print(trained.tokens_trained, "of", trained.tokens_seen, "tokens, now", trained.evaluations[-1]["loss"], "nats")
""",
    ),
    Example(
        ("tune", "TuneConfig", "TuneSummary"),
        """
tuning = rho.tune(
    rho.TuneConfig(
        model="models/base", output="tuning", scores=("scores/ref",), eval=("held-out=corpus",), ratio=(0.3, 0.6),
        block_size=64, batch_tokens=256, dry_run=True
    )
)
print([candidate.rule for candidate in tuning.candidates])  # without dry_run: tuning.best, tuning.gains, tuning.commands
""",
    ),
    Example(
        ("ScoredBlocks", "collate_blocks"),
        """
import torch

blocks = rho.ScoredBlocks("scores/ref", block_size=64)
loader = torch.utils.data.DataLoader(blocks, batch_size=4, collate_fn=rho.collate_blocks)
batch = next(iter(loader))  # input_ids, labels, ref_loss, position_ids: tensors of shape (4, 64)
""",
    ),
    Example(
        ("SelectiveLoss",),
        """
token_loss = torch.rand(4, 63, requires_grad=True)  # of your model, for labels[:, 1:]
valid = batch["labels"][:, 1:] != -100
loss = rho.SelectiveLoss(ratio=0.6)(token_loss, batch["ref_loss"][:, 1:], valid)
loss.backward()
""",
    ),
    Example(
        ("InputError", "RhoScoreError", "ServerError", "StorageError"),
        """
try:
    rho.select(rho.SelectConfig(output="other", ref=("scores/ref",), ratio=2.0))
except rho.InputError as error:  # nothing was run
    print(error)
except rho.StorageError as error:  # the storage refused, or failed for too long
    print(error)
except rho.ServerError as error:  # a model's server refused, or failed for too long
    print(error)
except rho.RhoScoreError as error:  # the run failed: what it published stays, and the same call resumes it
    print(error)
""",
    ),
    Example(
        ("PlanConfig", "CurveConfig"),
        """
plan = rho.PlanConfig(input="corpus", model="models/ref")  # options of the commands plan and curve
curve = rho.CurveConfig(selection="selection", ratio=(0.3, 0.6))
""",
    ),
)
