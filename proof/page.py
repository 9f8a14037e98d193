"""Writes the proof's page from its results: `python -m proof.page`. `make proof` ends with it."""

import argparse
import shutil
from pathlib import Path

from matplotlib.figure import Figure

from proof.analysed import before_training, learning_rates, paper
from proof.figures import crossover_figure, ratios_figure, runs_figure, steps_figure
from proof.published import PUBLISHED, Published
from proof.sections import crossover, decisions, main_results, price
from proof.sizes import BOTH, DOCUMENTS, LIVE, LIVE_60, STORED
from proof.words import ABOUT_ARMS, amount, in_words, make_command, table
from rho_score.charts import image, shares_figure


class Page:
    """The page of a proof."""

    def __init__(self, folder: Path) -> None:
        """folder: that of the results, see `Published`."""
        self.proof = Published(folder)

    def figures(self) -> dict[str, Figure]:
        """Every figure by the name of its file."""
        found = {f"{c.name}.svg": runs_figure(self.proof.outcome, c.name) for c in self.proof.main}
        if len(self.proof.conditions) > len(self.proof.main):
            found["crossover.svg"] = crossover_figure(self.proof.outcome, self.proof.conditions)
        if self.proof.size.ratios:
            found["ratios.svg"] = ratios_figure(self.proof.outcome, [c.name for c in self.proof.main])
        for condition in self.proof.main:
            if kept := self.proof.lines("kept", condition.name, by_arm=True):
                found[f"kept-{condition.name}.svg"] = steps_figure(kept, label="mean loss of held-out tokens (nats)")
            if perplexity := self.proof.lines("perplexity", condition.name):
                named = {f"chosen at step {step}": points for step, points in perplexity.items()}
                found[f"perplexity-{condition.name}.svg"] = steps_figure(named, label="perplexity of the chosen tokens")
        if shares := self.proof.dynamics():
            found["dynamics.svg"] = shares_figure(shares)
        return found

    def text(self) -> str:
        """The page in Markdown."""
        parts = [
            "# The proof\n", self._first(), self._setup(), main_results(self.proof), decisions(self.proof), crossover(self.proof),
            price(self.proof), before_training(self.proof), paper(self.proof), learning_rates(self.proof), self._limits(), self._again(),
        ]  # fmt: skip
        return "\n".join(part for part in parts if part)

    def _first(self) -> str:
        """What came out, in a paragraph that also says where selection loses."""
        said, helps = [], True
        for c in self.proof.main:
            budget = self.proof.outcome.longest(c.name)
            best = self.proof.outcome.best(c.name, budget, without=self.proof.not_offered(c))
            gain = self.proof.outcome.gain(c.name, best, budget)
            helps &= gain.low > 0
            said.append(f"{in_words(c)}, `{best}` ends {amount(gain)} training on all tokens")
        losing = []
        for c in self.proof.conditions:
            budget = self.proof.outcome.longest(c.name)
            for arm in (LIVE, LIVE_60, STORED, DOCUMENTS, BOTH):
                if (
                    arm in self.proof.outcome.arms(c.name)
                    and (gain := self.proof.outcome.gain(c.name, arm, budget)).high < 0
                ):
                    losing.append(f"`{arm}` loses {-gain.mean:.2f} nats {in_words(c, start=False)}")
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
        if self.proof.about["size"] == "full":
            return ""
        return "**These are the results of the short form**, with fewer arms, lengths and seeds, and without tuned learning rates. "

    def _scale(self) -> str:
        if self.proof.size.pretrained:
            return "SmolLM2-135M, fine-tuned on a million tokens at most"
        return f"tiny models, trained from nothing on {self.proof.size.corpus:,} tokens at most"

    def _setup(self) -> str:
        size, about = self.proof.size, self.proof.about
        arms = [arm for arm in ABOUT_ARMS if any(arm in self.proof.outcome.arms(c.name) for c in self.proof.conditions)]
        rows = [(f"`{arm}`", ABOUT_ARMS[arm]) for arm in arms]
        budgets = " and ".join(", ".join(f"{round(share * size.corpus):,}" for share in size.budgets).rsplit(", ", 1))
        n_runs = len(self.proof.outcome.rows) + len(self.proof.tuning)
        fewer = f", the other conditions and the ratios have {size.other_seeds}" if size.others else ""
        others = fewer if size.other_seeds < size.seeds else ""
        models = "copies of SmolLM2-135M" if size.pretrained else "small Llamas from random weights"
        return f"""## What was done

`{make_command(about)}` trains {n_runs} {models} with the commands `train`, `score` and `select`.
The target is mathematics in English: documentation strings of SymPy, NetworkX and mpmath.

- **Regime A** puts noise into each document: spans of 6 to 31 tokens are replaced by text in other
  languages, by their own words in another order, or by random tokens. `A-noise-50` means half of
  the tokens.
- **Regime B** mixes documents of the target with Django's interface texts in other languages and
  with its source. `B-target-10` means that one token in ten is of the target.

The model has {about["parameters"]:,} parameters in matrix products ({size.layers} layers, {size.width} wide, a vocabulary of {size.words:,}). Rows have
{size.block} tokens, steps {size.batch:,}. The reference has the same shape and was trained on {size.reference:,} tokens of other, clean
documents of the target. Runs read {budgets} tokens; each length is a run of its own, whose learning
rate falls along a cosine to its end. Every arm of the main conditions has {size.seeds} seeds{others}, and the same seed gives the same first weights and, from
the same corpus, the same order. The loss is that of held-out documents of the target, from other source files, in nats a token.

{table(("arm", "trains on"), rows)}
"""

    def _limits(self) -> str:
        return f"""## What was not tried

- **Scale.** Models of {self.proof.about["parameters"] / 1e6:.1f} million parameters and runs of a few minutes. *A Bitter Lesson for Data
  Filtering* argues that with enough compute no filter wins; nothing here contradicts it.
- **Weights that know the text already.** All models begin at random. Others report that fine-tuning with
  the tokens of highest excess lost to random ones (a LoRA study, cs512-slm), and *No Train No Gain*
  (arXiv 2307.06440) that selecting by loss saved nothing in their setting.
- **Other data.** One target, two kinds of unwanted text; each corpus and its reference were made once, so that
  intervals are over first weights and order alone. Near-duplicates between source files were not removed.
- **Downstream tasks.** Held-out loss only.
- **Hyperparameters.** One batch size, one schedule; the ratio, the early checkpoint ({self.proof.size.base} steps) and the share of documents
  (30 % in regime A, half as much again as the target in regime B) were fixed beforehand.
"""

    def _again(self) -> str:
        about = self.proof.about
        return f"""## Run it again

```
make setup
make proof         # the whole one; stop it at any moment, the same command goes on
make proof-short   # fewer arms, seeds and tokens
```

The numbers of this page were made by `{make_command(self.proof.about)}` in {about["hours"] * 60:.0f} minutes on {about["date"]}, on {about["machine"]}
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
