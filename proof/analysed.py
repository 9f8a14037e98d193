"""The sections of the proof's page on what is known before training, what happens during it, and learning rates."""

from proof.figures import ratios_of
from proof.published import Published
from proof.sizes import LIVE
from proof.words import in_words, table
from rho_score.ranking.trends import CATEGORIES


def before_training(proof: Published) -> str:
    """How well scores tell noise, and what the selection of documents keeps."""
    aucs: dict[str, dict[str, float]] = {}
    kept: dict[str, dict[str, float]] = {}
    for row in proof.analyses:
        for analysis, into in (("auc", aucs), ("documents", kept)):
            if row["analysis"] == analysis:
                into.setdefault(row["condition"], {})[row["series"]] = row["value"]
    text = "## Before any training\n\n"
    if aucs:
        rows = [(f"`{n}`", *(f"{v[s]:.3f}" for s in ("excess", "reference", "base"))) for n, v in aucs.items()]
        text += (
            "How well a score tells clean tokens from noise (area under the ROC curve; 0.5 is chance):\n\n"
            + table(("condition", "excess loss", "low reference loss", "high loss of the base model"), rows)
            + "\n"
        )
    rows = [
        (f"`{c.name}`", f"{c.documents:.0%}", *(f"{kept[c.name][g]:.0%}" if g in kept[c.name] else "" for g in ("target", "languages", "code")))
        for c in proof.conditions if c.name in kept
    ]  # fmt: skip
    return text + (
        "The tokens that the selection of documents keeps, of each kind of text:\n\n"
        + table(("condition", "kept in all", "of the target", "of other languages", "of source code"), rows)
    )


def paper(proof: Published) -> str:
    """Token dynamics, kept and dropped tokens, and the ratio; empty if none of these was looked at."""
    parts = ["## The paper's own analyses\n"]
    shares = proof.dynamics()
    if shares:
        rows = [(name, *(f"{of[c]:.0%}" for c in CATEGORIES)) for name, of in shares]
        parts.append(
            "**Token dynamics.** Losses of a held-out sample at the checkpoints of a run, sorted by `rho-score dynamics` "
            "(H-L: learnt; L-H: rises; the others stay).\n\n![Token dynamics](proof/dynamics.svg)\n\n"
            + table(("run", *CATEGORIES), rows)
        )
    for c in proof.main:
        if not proof.lines("kept", c.name):
            continue
        parts.append(
            f"**{in_words(c)}.** Left: the loss of held-out tokens that an early checkpoint's excess loss keeps (30 %), and "
            f"of those that it drops, during training on all tokens and during `{LIVE}` (`rho-score losses`; figure 6 of the "
            "paper). Right: the perplexity of the tokens that one checkpoint of the live run would choose, at all "
            f"checkpoints (figure 8).\n\n![Kept and dropped tokens](proof/kept-{c.name}.svg)\n"
            f"![Tokens chosen at each checkpoint](proof/perplexity-{c.name}.svg)\n"
        )
    if proof.size.ratios:
        rows = []
        for c in proof.main:
            rows += [(f"`{c.name}`", f"{ratio:g}", f"{loss:.3f}") for ratio, loss in ratios_of(proof.outcome, c.name)]
        parts.append(
            "**The ratio** (figure 9). The end loss of live selection at the longest budget, mean of three seeds; learning "
            "rates are those of the ratio 0.3 up to 0.45, and above it those of 0.6 and of all tokens.\n\n"
            "![Ratio and loss](proof/ratios.svg)\n\n" + table(("condition", "ratio", "loss"), rows)
        )
    return "\n".join(parts) if len(parts) > 1 else ""


def learning_rates(proof: Published) -> str:
    """Every learning rate that was tried; empty if none was."""
    if not proof.tuning:
        return ""
    rates = sorted({row["rate"] for row in proof.tuning})
    by: dict[tuple[str, str, int], dict[float, float]] = {}
    for row in proof.tuning:
        by.setdefault((row["condition"], row["arm"], row["budget"]), {})[row["rate"]] = row["validation"]
    rows = []
    for (condition, arm, budget), losses in by.items():
        best = min(losses, key=lambda rate: losses[rate])
        cells = [f"**{losses[r]:.3f}**" if r == best else f"{losses[r]:.3f}" for r in rates]
        rows.append((f"`{condition}`", f"{budget:,}", f"`{arm}`", *cells))
    return f"""## Learning rates

Chosen for each arm, at the budgets of the table, by the loss of a validation set on a seed of its own. A budget
in between takes the rate of the next longer one, and other conditions of a regime take those of its main condition.

{table(("condition", "tokens seen", "arm", *(f"{rate:g}" for rate in rates)), rows)}
"""
