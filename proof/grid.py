"""What a proof runs: every training run of it, as the command that a user would type."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig

from proof.sizes import BOTH, BYTES, DOCUMENTS, LIVE, LIVE_60, ORACLE, STORED, WEAK, Condition, Size

TUNING_SEED = 99
OWN_SEED = 100  # of references and base models
RATE, PRETRAINED_RATE = 4e-3, 1e-4  # of references and base models


Rates = Mapping[tuple[str, str, int], float]
"""Learning rates by regime, arm and budget."""


class Run(NamedTuple):
    """A training run of an arm."""

    condition: Condition
    arm: str
    tokens: int
    """To read."""
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """Its folder."""
        return f"runs/{self.condition.name}/{self.arm}/{self.tokens}-{self.seed}-{self.rate:g}"


class Cost(NamedTuple):
    """The arithmetic of a run, in floating point operations."""

    training: float
    before: float
    """Of the reference, the base model, and their scores."""


class Grid:
    """The runs of a proof in a folder."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size

    def budgets(self) -> list[int]:
        """The tokens that runs read."""
        return [round(share * self.size.corpus) for share in self.size.budgets]

    def arms(self, condition: Condition) -> tuple[str, ...]:
        """The arms of a condition."""
        main = condition in self.size.main
        arms = self.size.main_arms if main else self.size.other_arms
        return (*arms, ORACLE) if condition.noise else arms

    def tuning(self) -> list[Run]:
        """A run for each arm, tuned budget and learning rate, on a seed of its own."""
        if len(self.size.rates) < 2:
            return []
        return [
            Run(condition, arm, tokens, TUNING_SEED, rate)
            for condition in self._tuned()
            for tokens in self.budgets_of(condition)
            if tokens in self.tuned
            for arm in self.arms(condition)
            for rate in self.size.rates
        ]

    @property
    def tuned(self) -> list[int]:
        """The budgets that learning rates are tried at."""
        return [round(share * self.size.corpus) for share in self.size.tuned]

    def budgets_of(self, condition: Condition) -> list[int]:
        """The tokens that the runs of a condition read."""
        return self.budgets() if condition in self.size.main else self.budgets()[-1:]

    def _tuned(self) -> list[Condition]:
        """A condition of each regime, the main one if there is one."""
        found: dict[str, Condition] = {}
        for condition in (*self.size.main, *self.size.others):
            found.setdefault(condition.regime, condition)
        return list(found.values())

    def runs(self, rates: Rates) -> list[Run]:
        """The runs of all arms, seed by seed; then those that vary one of them."""
        size, longest, found = self.size, self.budgets()[-1], list[Run]()
        for seed in range(size.seeds):
            for condition in (*size.main, *(size.others if seed < size.other_seeds else ())):
                for arm in self.arms(condition):
                    for tokens in self.budgets_of(condition):
                        found.append(Run(condition, arm, tokens, seed, rates[condition.regime, arm, tokens]))
        for condition in size.main:
            varied = [(arm, like, size.seeds) for arm, like in ((WEAK, LIVE), (BYTES, STORED)) if size.analyses]
            varied += [(f"live-{p}", LIVE if p <= 45 else LIVE_60, min(3, size.seeds)) for p in size.ratios]
            for arm, like, n_seeds in varied:
                rate = rates.get((condition.regime, like, longest), size.rates[-1])
                found += [Run(condition, arm, longest, seed, rate) for seed in range(n_seeds)]
        return found

    def text(self, name: str) -> str:
        """A text that `corpora` wrote."""
        return f"{self.folder}/texts/{name}.jsonl"

    def scores(self, model: str, condition: Condition) -> str:
        """The score set of a condition's corpus under a model: reference, weak, other-words, base, oracle."""
        return f"{self.folder}/scores/{condition.name}/{model}"

    def selection(self, name: str, condition: Condition) -> str:
        """A selection of a condition's corpus."""
        return f"{self.folder}/selections/{condition.name}/{name}"

    def data(self, arm: str, condition: Condition) -> str:
        """What an arm trains on, as options of `rho-score train`."""
        reference = f"--scores {self.scores('reference', condition)}"
        if arm == "all":
            return reference
        if arm in (STORED, BYTES, DOCUMENTS, ORACLE):
            return f"--selection {self.selection(arm, condition)}"
        if arm == BOTH:
            return f"{reference} --within {self.selection(DOCUMENTS, condition)} --ratio 0.3"
        if arm == WEAK:
            return f"--scores {self.scores('weak', condition)} --ratio 0.3"
        found = re.fullmatch(r"(live|random|high-loss|low-reference)-(\d+)", arm)
        assert found, arm
        pick = "" if found[1] == "live" else f" --pick {found[1]}"
        return f"{reference} --ratio {int(found[2]) / 100:g}{pick}"

    def train(self, run: Run, *, output: Path | None = None, save_every: int | None = None) -> str:
        """The command of a run. output: by default the run's folder."""
        held_out = " ".join(f"--eval {name}={self.text(name)}" for name in ("test", "validation", "others"))
        return (
            f"train {self.folder}/model {output or self.folder / run.name} {self.data(run.arm, run.condition)} --tokens {run.tokens} "
            f"--seed {run.seed} --learning-rate {run.rate:g} {held_out} {self._common(run.tokens, save_every)}"
        )

    def score(self, corpus: str, output: str, model: str) -> str:
        """The command that scores a corpus with a model of the proof."""
        block = self.size.block
        return (
            f"score {corpus} {output} --model {model} --id-column id --group-column source --no-compile "
            f"--context {block} --overlap {block // 4}"
        )

    def plain(self, name: str, text: str, *, model: str = "model", tokens: int) -> str:
        """The command that trains a reference or a base model on every token of a text."""
        return (
            f"train {self.folder}/{model} {self.folder}/runs/{name} --text {text} --tokens {tokens} --seed {OWN_SEED} "
            f"--learning-rate {PRETRAINED_RATE if self.size.pretrained else RATE:g} {self._common(tokens)}"
        )

    def _common(self, tokens: int, save_every: int | None = None) -> str:
        size = self.size
        begin = "" if size.pretrained else "--from-scratch "
        return (
            f"{begin}--block-size {size.block} --batch-tokens {size.batch} --micro-batch {min(16, size.batch // size.block)} "
            f"--warmup 0.1 --eval-every {tokens} --save-every {save_every or tokens} --log-every 10 --cache {self.folder}/cache"
        )

    def cost(self, run: Run, n_read: int, n_corpus: int) -> Cost:
        """The arithmetic of a run that read `n_read` tokens, of a corpus of `n_corpus`.

        A pass forward takes two operations a parameter and token, and a pass backward four (Kaplan
        et al. 2020, arXiv 2001.08361); parameters are those of matrix products, the head among them.
        Arms that rank the whole corpus beforehand pay for the scores of all of it, live ones for
        those of what they read.
        """
        size = self.size
        n = parameters(self.folder / "model")
        before = 0.0
        if run.arm not in ("all", ORACLE) and not run.arm.startswith(("random", "high-loss")):
            kind = {WEAK: "model-weak", BYTES: "model-other-words"}.get(run.arm, "model")
            n_reference = parameters(self.folder / kind)
            beforehand = run.arm in (STORED, BYTES, DOCUMENTS, BOTH)
            before = 6 * n_reference * size.reference + 2 * n_reference * (n_corpus if beforehand else n_read)
            if beforehand:
                before += 6 * n * size.base * size.batch + 2 * n * n_corpus
        return Cost(6 * n * n_read, before)


def parameters(model: Path) -> int:
    """The parameters of the matrix products of a Llama, the head among them."""
    config = AutoConfig.from_pretrained(model)
    width: int = config.hidden_size
    layer = 4 * width**2 + 3 * width * config.intermediate_size
    return int(config.num_hidden_layers * layer + width * config.vocab_size)
