"""Writes the proof's page from its results: `python -m proof.page`. `make proof` ends with it."""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from proof.figures import crossover_figure, ratios_figure, ratios_of, runs_figure, steps_figure
from proof.sizes import (
    ARMS,
    BOTH,
    BYTES,
    DOCUMENTS,
    LIVE,
    LIVE_60,
    ORACLE,
    SIZES,
    STORED,
    WEAK,
    Condition,
    Size,
)  # fmt: skip
from proof.statistics import Interval, Outcome
from rho_score.charts import image, shares_figure
from rho_score.ranking.trends import CATEGORIES

PUBLISHED = Path("docs/proof")
PAPER = {"H-H": 0.11, "L-H": 0.12, "H-L": 0.26, "L-L": 0.51}
"""Shares of the token categories in the paper (Lin et al. 2024, arXiv 2404.07965, figure 1)."""

ABOUT_ARMS = {
    "all": "every token, in documents as they come",
    LIVE: "the 30 % of each batch with the highest live excess loss",
    LIVE_60: "the same with 60 %",
    STORED: "the 30 % of all tokens with the highest excess under an early checkpoint, chosen beforehand",
    DOCUMENTS: "whole documents with the highest mean excess, repeated; [a table below](#before-any-training) says how many tokens",
    BOTH: "these documents, and in each batch of them the 30 % with the highest live excess",
    "random-30": "control: 30 % of each batch at random",
    "high-loss-30": "control: the 30 % with the highest loss, without a reference",
    "low-reference-30": "control: the 30 % that the reference predicts best",
    ORACLE: "the ceiling in regime A: exactly the tokens that are no noise",
    WEAK: "live 30 % with a reference of a quarter of the size",
    BYTES: "stored 30 % with a reference of another vocabulary, compared over bytes",
}
COMMANDS = {
    "all": "rho-score train MODEL RUN --text CORPUS",
    LIVE: "rho-score train MODEL RUN --scores REF --ratio 0.3",
    LIVE_60: "rho-score train MODEL RUN --scores REF --ratio 0.6",
    STORED: "rho-score select SEL --ref REF --base BASE --ratio 0.3; rho-score train MODEL RUN --selection SEL",
    DOCUMENTS: "rho-score select SEL --ref REF --base BASE --level document --tokens 300000; rho-score train MODEL RUN --selection SEL",
    BOTH: "rho-score select SEL --ref REF --base BASE --level document --tokens 300000; "
    "rho-score train MODEL RUN --scores REF --within SEL --ratio 0.3",
}


class Page:
    """The page of a proof."""

    def __init__(self, folder: Path) -> None:
        """folder: that of `results.parquet`, `analyses.parquet` and `about.json`."""
        results = pq.read_table(folder / "results.parquet")
        self.tuning = [row for row in results.to_pylist() if row["tuning"]]
        self.outcome = Outcome(results)
        self.analyses: list[dict[str, Any]] = pq.read_table(folder / "analyses.parquet").to_pylist()
        self.about: dict[str, Any] = json.loads((folder / "about.json").read_text())
        self.size: Size = SIZES[self.about["size"]]
        names = self.outcome.conditions()
        self.conditions = [c for c in (*self.size.main, *self.size.others) if c.name in names]
        self.main = [c for c in self.size.main if c.name in names]
        self.arms = (*ARMS, ORACLE)

    def figures(self) -> dict[str, Figure]:
        """Every figure by the name of its file."""
        found = {f"{c.name}.svg": runs_figure(self.outcome, c.name) for c in self.main}
        if len(self.conditions) > len(self.main):
            found["crossover.svg"] = crossover_figure(self.outcome, self.conditions)
        if self.size.ratios:
            found["ratios.svg"] = ratios_figure(self.outcome, [c.name for c in self.main])
        for condition in self.main:
            if kept := self._lines("kept", condition.name, by_arm=True):
                found[f"kept-{condition.name}.svg"] = steps_figure(kept, label="mean loss of held-out tokens (nats)")
            if perplexity := self._lines("perplexity", condition.name):
                named = {f"chosen at step {step}": points for step, points in perplexity.items()}
                found[f"perplexity-{condition.name}.svg"] = steps_figure(named, label="perplexity of the chosen tokens")
        if shares := self._dynamics():
            found["dynamics.svg"] = shares_figure(shares)
        return found

    def _lines(self, analysis: str, condition: str, *, by_arm: bool = False) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.analyses:
            if row["analysis"] == analysis and row["condition"] == condition:
                name = f"{row['arm']}, {row['series']}" if by_arm else row["series"]
                found.setdefault(name, []).append((row["step"], row["value"]))
        return found

    def _dynamics(self) -> list[tuple[str, dict[str, float]]]:
        found: dict[str, dict[str, float]] = {}
        for row in self.analyses:
            if row["analysis"] == "dynamics":
                found.setdefault(f"{row['condition']}, {row['arm']}", {})[row["series"]] = row["value"]
        return [("the paper, 1.1B", PAPER), *found.items()] if found else []

    def text(self) -> str:
        """The page in Markdown."""
        parts = [
            "# The proof\n", self._first(), self._setup(), self._main_results(), self._decisions(), self._crossover(),
            self._price(), self._before(), self._paper(), self._rates(), self._limits(), self._again(),
        ]  # fmt: skip
        return "\n".join(part for part in parts if part)

    def _first(self) -> str:
        """What came out, in a paragraph that also says where selection loses."""
        said, helps = [], True
        for c in self.main:
            budget = self.outcome.longest(c.name)
            best = self.outcome.best(c.name, budget, without=self._not_offered(c))
            gain = self.outcome.gain(c.name, best, budget)
            helps &= gain.low > 0
            said.append(f"{_words(c)}, `{best}` ends {_amount(gain)} training on all tokens")
        losing = []
        for c in self.conditions:
            budget = self.outcome.longest(c.name)
            for arm in (LIVE, LIVE_60, STORED, DOCUMENTS, BOTH):
                if arm in self.outcome.arms(c.name) and (gain := self.outcome.gain(c.name, arm, budget)).high < 0:
                    losing.append(f"`{arm}` loses {-gain.mean:.2f} nats {_words(c, start=False)}")
        begin = (
            "Selection made better models where much of the text is not what one wants"
            if helps
            else "Selection did not make better models in every condition"
        )
        text = begin + ". " + ". ".join(said) + ". "
        if losing:
            text += "**Where it loses, compared with training on all tokens for as long:** " + "; ".join(losing) + ". "
        else:
            text += "No selecting arm that was tried loses to training on all tokens at the longest budget. "
        return (
            text + self._form() + f"All figures are of {self._scale()}; "
            "[what was not tried](#what-was-not-tried) says what that leaves open.\n"
        )

    def _form(self) -> str:
        """A sentence if these are not the results of the whole proof."""
        if self.about["size"] == "full":
            return ""
        return "**These are the results of the short form**, with fewer arms, lengths and seeds, and without tuned learning rates. "

    def _scale(self) -> str:
        if self.size.pretrained:
            return "SmolLM2-135M, fine-tuned on a million tokens at most"
        return f"tiny models, trained from nothing on {self.size.corpus:,} tokens at most"

    def _not_offered(self, condition: Condition) -> set[str]:
        """Arms that are no offer to a user: ceilings, controls, and those that vary another arm."""
        return set(self.outcome.arms(condition.name)) - set(COMMANDS)

    def _setup(self) -> str:
        size, about = self.size, self.about
        arms = [arm for arm in ABOUT_ARMS if any(arm in self.outcome.arms(c.name) for c in self.conditions)]
        rows = [(f"`{arm}`", ABOUT_ARMS[arm]) for arm in arms]
        budgets = " and ".join(", ".join(f"{round(share * size.corpus):,}" for share in size.budgets).rsplit(", ", 1))
        n_runs = len(self.outcome.rows) + len(self.tuning)
        models = "copies of SmolLM2-135M" if size.pretrained else "small Llamas from random weights"
        return f"""## What was done

`{_command(about)}` trains {n_runs} {models} with the commands `train`, `score` and `select`.
The target is mathematics in English: documentation strings of SymPy, NetworkX and mpmath.

- **Regime A** puts noise into each document: spans of 6 to 31 tokens are replaced by text in other
  languages, by their own words in another order, or by random tokens. `A-noise-50` means half of
  the tokens.
- **Regime B** mixes documents of the target with Django's interface texts in other languages and
  with its source. `B-target-10` means that one token in ten is of the target.

The model has {about["parameters"]:,} parameters in matrix products ({size.layers} layers, {size.width} wide, a vocabulary of {size.words:,}). Rows have
{size.block} tokens, steps {size.batch:,}. The reference has the same shape and was trained on {size.reference:,} tokens of other, clean
documents of the target. Runs read {budgets} tokens; each length is a run of its own, whose learning
rate falls along a cosine to its end. Every arm has {size.seeds} seeds, and the same seed gives the same first weights and, from
the same corpus, the same order. The loss is that of held-out documents of the target, from other source files, in nats a token.

{_table(("arm", "trains on"), rows)}
"""

    def _main_results(self) -> str:
        parts = ["## Results\n"]
        for c in self.main:
            parts += [f"### {_words(c)}\n", f"![Loss of every arm](proof/{c.name}.svg)\n", self._table_of(c)]
            parts += [self._reached(c)]
        return "\n".join(parts)

    def _table_of(self, c: Condition) -> str:
        outcome, budgets = self.outcome, self.outcome.budgets(c.name)
        longest = budgets[-1]
        head = ("arm", "tokens trained on", *(f"loss at {b:,}" for b in budgets), "gain over all", "over random")
        oracle = ORACLE in outcome.arms(c.name)
        rows = []
        for arm in [a for a in (*self.arms, WEAK, BYTES) if a in outcome.arms(c.name)]:
            mine = outcome.budgets(c.name, arm)
            losses = [f"{outcome.mean(c.name, arm, b):.3f}" if b in mine else "" for b in budgets]
            gains = [
                str(outcome.gain(c.name, arm, longest, over=over)) if arm not in ("all", over) else ""
                for over in ("all", "random-30")
            ]
            share = f"{outcome.oracle_share(c.name, arm, longest).mean:.0%}" if oracle and arm != "all" else ""
            trained = f"{outcome.mean(c.name, arm, longest, 'tokens_trained'):,.0f}"
            rows.append((f"`{arm}`", trained, *losses, *gains, *((share,) if oracle else ())))
        return (
            _table((*head, *(("of the oracle's gain",) if oracle else ())), rows)
            + "\nTokens trained on and gains are those at the longest budget. A gain is the mean of the paired differences "
            "in nats, with its bootstrap interval of 95 % over seeds; above zero, the arm is better.\n"
        )

    def _reached(self, c: Condition) -> str:
        rows = []
        for arm in [a for a in self.arms if a in self.outcome.arms(c.name) and a != "all"]:
            found = self.outcome.reached(c.name, arm)
            rows.append(
                (f"`{arm}`", *((f"{found.seen:.0%}", f"{found.trained:.1%}") if found else ("not reached", "")))
            )
        beaten = self._beats(c)
        return (
            "The shortest budget by which an arm is at the end loss of all tokens, or below it, **in every seed**:\n\n"
            + _table(("arm", "tokens seen", "tokens trained on"), rows)
            + f"\n{beaten}\n"
        )

    def _beats(self, c: Condition) -> str:
        """Whether live selection beats its control and whole documents at every budget."""
        outcome, said = self.outcome, []
        for over in ("random-30", DOCUMENTS):
            if over not in outcome.arms(c.name):
                continue
            gains = [outcome.gain(c.name, LIVE, b, over=over) for b in outcome.budgets(c.name)]
            verdict = (
                "is better than" if all(g.low > 0 for g in gains)
                else "is worse than" if all(g.high < 0 for g in gains)
                else "is not everywhere apart from"
            )  # fmt: skip
            said.append(f"`{LIVE}` {verdict} `{over}`, by budget: {', '.join(map(str, gains))}.")
        return " ".join(said)

    def _decisions(self) -> str:
        rows = []
        for c in self.conditions:
            where = "within documents" if c.noise else "between documents" if c.target < 100 else "nowhere"
            share = f"{c.noise} % of tokens" if c.noise else f"{100 - c.target} % of tokens"
            for budget in self.outcome.budgets(c.name):
                best = self.outcome.best(c.name, budget, without=self._not_offered(c))
                gain = self.outcome.gain(c.name, best, budget)
                if best != "all" and gain.low <= 0:
                    best, gain = "all", self.outcome.gain(c.name, "all", budget)
                rows.append((where, share, f"{budget:,}", f"`{best}`", "" if best == "all" else str(gain)))
        used = [arm for arm in COMMANDS if any(row[3] == f"`{arm}`" for row in rows)]
        commands = "\n".join(f"# {arm}\n" + COMMANDS[arm].replace("; ", "\n") for arm in used)
        return f"""## Which command to use

The best arm of each condition and length of training, if its gain over all tokens is above zero with its interval:

{_table(("unwanted text lies", "how much", "tokens you train for", "use", "gain"), rows)}

```
{commands}
```

`rho-score tune` makes this choice on your own data.
"""

    def _crossover(self) -> str:
        if len(self.conditions) == len(self.main):
            return ""
        rows = []
        for c in self.conditions:
            budget = self.outcome.longest(c.name)
            arms = [LIVE, LIVE_60, DOCUMENTS, BOTH]
            gains = [str(self.outcome.gain(c.name, a, budget)) if a in self.outcome.arms(c.name) else "" for a in arms]
            rows.append((f"`{c.name}`", f"{self.outcome.mean(c.name, 'all', budget):.3f}", *gains))
        return f"""## Where selection stops paying

![Gain by the share of noise and of the target](proof/crossover.svg)

Gain over all tokens at the longest budget. Left, documents of the target with noise inside; right, mixtures; clean
text of the target alone stands at the left end of the one and at the right end of the other.

{_table(("condition", "loss of `all`", *(f"`{a}`" for a in (LIVE, LIVE_60, DOCUMENTS, BOTH))), rows)}
"""

    def _price(self) -> str:
        rows = []
        for c in self.main:
            budget = self.outcome.longest(c.name)
            for arm in [a for a in self.arms if a in self.outcome.arms(c.name)]:
                training = self.outcome.mean(c.name, arm, budget, "flops_training")
                before = self.outcome.mean(c.name, arm, budget, "flops_before")
                price = self.outcome.gain(c.name, arm, budget, column="others")
                rows.append(
                    (f"`{c.name}`", f"`{arm}`", f"{self.outcome.mean(c.name, arm, budget, 'others'):.3f}",
                     "" if arm == "all" else str(price), f"{training:.2e}", f"{before:.2e}")
                )  # fmt: skip
        return f"""## The price

What is not wanted gets worse: the loss of held-out interface texts and source. And a reference has to be trained and run.
Operations are 6 a parameter and token for training and 2 for scoring; a reference that serves many runs is paid once.

{_table(("condition", "arm", "loss of other text", "gain over all", "operations of training", "before it"), rows)}
"""

    def _before(self) -> str:
        aucs: dict[str, dict[str, float]] = {}
        kept: dict[str, dict[str, float]] = {}
        for row in self.analyses:
            for analysis, into in (("auc", aucs), ("documents", kept)):
                if row["analysis"] == analysis:
                    into.setdefault(row["condition"], {})[row["series"]] = row["value"]
        text = "## Before any training\n\n"
        if aucs:
            rows = [(f"`{n}`", *(f"{v[s]:.3f}" for s in ("excess", "reference", "base"))) for n, v in aucs.items()]
            text += (
                "How well a score tells clean tokens from noise (area under the ROC curve; 0.5 is chance):\n\n"
                + _table(("condition", "excess loss", "low reference loss", "high loss of the base model"), rows)
                + "\n"
            )
        rows = [
            (f"`{c.name}`", f"{c.documents:.0%}", *(f"{kept[c.name][g]:.0%}" if g in kept[c.name] else "" for g in ("target", "languages", "code")))
            for c in self.conditions if c.name in kept
        ]  # fmt: skip
        return text + (
            "The tokens that the selection of documents keeps, of each kind of text:\n\n"
            + _table(("condition", "kept in all", "of the target", "of other languages", "of source code"), rows)
        )

    def _paper(self) -> str:
        parts = ["## The paper's own analyses\n"]
        shares = self._dynamics()
        if shares:
            rows = [(name, *(f"{of[c]:.0%}" for c in CATEGORIES)) for name, of in shares]
            parts.append(
                "**Token dynamics.** Losses of a held-out sample at the checkpoints of a run, sorted by `rho-score dynamics` "
                "(H-L: learnt; L-H: rises; the others stay).\n\n![Token dynamics](proof/dynamics.svg)\n\n"
                + _table(("run", *CATEGORIES), rows)
            )
        for c in self.main:
            if not self._lines("kept", c.name):
                continue
            parts.append(
                f"**{_words(c)}.** Left: the loss of held-out tokens that an early checkpoint's excess loss keeps (30 %), and "
                f"of those that it drops, during training on all tokens and during `{LIVE}` (`rho-score losses`; figure 6 of the "
                "paper). Right: the perplexity of the tokens that one checkpoint of the live run would choose, at all "
                f"checkpoints (figure 8).\n\n![Kept and dropped tokens](proof/kept-{c.name}.svg)\n"
                f"![Tokens chosen at each checkpoint](proof/perplexity-{c.name}.svg)\n"
            )
        if self.size.ratios:
            rows = []
            for c in self.main:
                rows += [
                    (f"`{c.name}`", f"{ratio:g}", f"{loss:.3f}") for ratio, loss in ratios_of(self.outcome, c.name)
                ]
            parts.append(
                "**The ratio** (figure 9). The end loss of live selection at the longest budget, mean of three seeds; learning "
                "rates are those of the ratio 0.3 up to 0.45, and above it those of 0.6 and of all tokens.\n\n"
                "![Ratio and loss](proof/ratios.svg)\n\n" + _table(("condition", "ratio", "loss"), rows)
            )
        return "\n".join(parts) if len(parts) > 1 else ""

    def _rates(self) -> str:
        if not self.tuning:
            return ""
        rates = sorted({row["rate"] for row in self.tuning})
        by: dict[tuple[str, str, int], dict[float, float]] = {}
        for row in self.tuning:
            by.setdefault((row["condition"], row["arm"], row["budget"]), {})[row["rate"]] = row["validation"]
        rows = []
        for (condition, arm, budget), losses in by.items():
            best = min(losses, key=lambda rate: losses[rate])
            cells = [f"**{losses[r]:.3f}**" if r == best else f"{losses[r]:.3f}" for r in rates]
            rows.append((f"`{condition}`", f"{budget:,}", f"`{arm}`", *cells))
        return f"""## Learning rates

Chosen for each arm and budget by the loss of a validation set, on a seed of its own. Other conditions
of a regime take those of its main condition.

{_table(("condition", "tokens seen", "arm", *(f"{rate:g}" for rate in rates)), rows)}
"""

    def _limits(self) -> str:
        return f"""## What was not tried

- **Scale.** Models of {self.about["parameters"] / 1e6:.1f} million parameters and runs of a few minutes. *A Bitter Lesson for Data
  Filtering* argues that with enough compute no filter wins; nothing here contradicts it.
- **Weights that know the text already.** All models begin at random. Others report that fine-tuning with
  the tokens of highest excess lost to random ones (a LoRA study, cs512-slm), and *No Train No Gain*
  (arXiv 2307.06440) that selecting by loss saved nothing in their setting.
- **Other data.** One target, two kinds of unwanted text; each corpus and its reference were made once, so that
  intervals are over first weights and order alone. Near-duplicates between source files were not removed.
- **Downstream tasks.** Held-out loss only.
- **Hyperparameters.** One batch size, one schedule; the ratio, the early checkpoint ({self.size.base} steps) and the share of documents
  (30 % in regime A, half as much again as the target in regime B) were fixed beforehand.
"""

    def _again(self) -> str:
        about = self.about
        return f"""## Run it again

```
make setup
make proof         # the whole one; stop it at any moment, the same command goes on
make proof-short   # fewer arms, seeds and tokens
```

The numbers of this page were made by `{_command(self.about)}` in {about["hours"] * 60:.0f} minutes on {about["date"]}, on {about["machine"]}
({about["workers"]} processes of one thread), with {about["versions"]}. `docs/proof/` holds every number as
Parquet: `results.parquet` a row for each run, `analyses.parquet` the rest. `make proof` compares its own
numbers with these. On one machine they are the same; on another processor sums are rounded otherwise.
"""

    def write(self, page: Path, images: Path) -> None:
        """Writes the page and its figures."""
        images.mkdir(parents=True, exist_ok=True)
        for name, figure in self.figures().items():
            (images / name).write_bytes(image(figure, "svg"))
        page.write_text(self.text(), encoding="utf-8")


def _command(about: Mapping[str, Any]) -> str:
    return "make proof" if about["size"] == "full" else f"make proof-{about['size']}"


def _words(c: Condition, *, start: bool = True) -> str:
    if c.noise:
        text = f"with noise in {c.noise} % of the tokens (regime A)"
    elif c.target < 100:
        text = f"with {c.target} % of the tokens from the target (regime B)"
    else:
        text = "with clean text of the target alone"
    return text[0].upper() + text[1:] if start else text


def _amount(gain: Interval) -> str:
    return f"{abs(gain.mean):.2f} nats {'below' if gain.mean > 0 else 'above'}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


def compare(mine: pa.Table, published: pa.Table) -> str:
    """How far the losses of the same runs are apart."""
    keys = ("condition", "arm", "budget", "seed", "rate", "tuning")
    by = {tuple(row[k] for k in keys): row["test"] for row in published.to_pylist()}
    apart = [abs(row["test"] - by[at]) for row in mine.to_pylist() if (at := tuple(row[k] for k in keys)) in by]
    if not apart:
        return "none of these runs is published"
    return f"{len(apart)} of {len(mine)} runs are published, too: the losses are at most {max(apart):.2g} nats apart"


def main() -> None:
    """Write the page of published results, or publish those of another folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=PUBLISHED, help="the folder of the results")
    parser.add_argument("--publish", action="store_true", help=f"copy them to {PUBLISHED} first")
    options = parser.parse_args()
    if options.publish:
        PUBLISHED.mkdir(exist_ok=True)
        for path in sorted(options.results.iterdir()):
            shutil.copy(path, PUBLISHED / path.name)
    Page(options.results).write(PUBLISHED.with_suffix(".md"), PUBLISHED)
    print(f"wrote {PUBLISHED.with_suffix('.md')}")


if __name__ == "__main__":
    main()
