"""How much a proof does: the whole one, one for a first look, one for the tests, and one for a GPU."""

from typing import NamedTuple

LIVE, LIVE_60, STORED = "live-30", "live-60", "stored-30"
CONTROLS = ("random-30", "high-loss-30", "low-reference-30")
DOCUMENTS, BOTH = "documents", "documents-live-30"
ARMS = ("all", LIVE, LIVE_60, STORED, DOCUMENTS, BOTH, *CONTROLS)
ORACLE = "oracle"
WEAK, BYTES = "weak-live-30", "bytes-stored-30"


class Condition(NamedTuple):
    """What a corpus is made of."""

    noise: int
    """The share of noise inside the documents, per cent of the tokens."""
    target: int
    """The share of the target's documents, per cent of the tokens."""

    @property
    def name(self) -> str:
        """A: noise inside documents. B: the target mixed into other text."""
        return f"A-noise-{self.noise}" if self.regime == "A" else f"B-target-{self.target}"

    @property
    def regime(self) -> str:
        """A or B."""
        return "A" if self.target == 100 else "B"

    @property
    def documents(self) -> float:
        """The share of the tokens that a selection of documents keeps: half as much again as the target has."""
        return 0.3 if self.regime == "A" else 0.015 * self.target


A, B = Condition(50, 100), Condition(0, 10)
OTHERS = (Condition(0, 100), Condition(20, 100), Condition(0, 25), Condition(0, 50))


class Size(NamedTuple):
    """The sizes of a proof. Lengths are in tokens."""

    corpus: int = 500_000
    """Of a corpus, which the longest run reads once."""
    reference: int = 1_000_000
    """Of the text that a reference is trained on, once."""
    held_out: int = 16_000
    """Of each held-out set."""
    words: int = 1024
    """Of the vocabulary."""
    width: int = 64
    layers: int = 2
    weak_width: int = 32
    weak_layers: int = 1
    block: int = 128
    batch: int = 2048
    base: int = 40
    """Steps of the base model, by which selections are made beforehand."""
    budgets: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Lengths of runs, as shares of the corpus."""
    seeds: int = 5
    other_seeds: int = 3
    """Of the other conditions."""
    rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3, 1.6e-2)
    """Learning rates that are tried for each arm."""
    tuned: tuple[float, ...] = (0.25, 1.0)
    """The budgets that they are tried at; another takes the rate of the next longer one of these."""
    main: tuple[Condition, ...] = (A, B)
    """Conditions with every arm, budget and seed."""
    others: tuple[Condition, ...] = OTHERS
    """Conditions with some arms at the longest budget."""
    main_arms: tuple[str, ...] = ARMS
    other_arms: tuple[str, ...] = ("all", LIVE, LIVE_60, DOCUMENTS, BOTH)
    ratios: tuple[int, ...] = (5, 10, 20, 45, 80)
    """More ratios of live selection, per cent, with three seeds."""
    checkpoints: int = 6
    """Checkpoints of the runs that are looked at during training."""
    pretrained: bool = False
    """Begin with SmolLM2-135M and its tokenizer, in place of random weights."""
    analyses: bool = True
    """Weaker references, references with other words, and what happens during training."""


FULL = Size()
SHORT = Size(
    corpus=400_000, base=30, budgets=(1.0,), seeds=2, rates=(8e-3,), others=(),
    main_arms=("all", LIVE, DOCUMENTS, BOTH, "random-30", "high-loss-30"), ratios=(), analyses=False,
)  # fmt: skip
TEST = Size(
    corpus=12_000, reference=12_000, held_out=2_000, batch=512, words=768, width=32, layers=1, weak_width=32, base=4,
    budgets=(0.5, 1.0), seeds=2, other_seeds=1, rates=(3e-3, 1e-2), main=(A,), others=(B,), main_arms=("all", LIVE, "random-30"),
    other_arms=("all", BOTH), ratios=(10,), checkpoints=3,
)  # fmt: skip
GPU = Size(
    corpus=1_000_000, reference=700_000, held_out=40_000, block=1024, batch=32_768, base=10, budgets=(1.0,), seeds=3,
    rates=(5e-5, 2e-4), main=(Condition(0, 25),), others=(), ratios=(), analyses=False, pretrained=True,
    main_arms=("all", LIVE, LIVE_60, DOCUMENTS, BOTH, "random-30", "high-loss-30"),
)  # fmt: skip
SIZES = {"full": FULL, "short": SHORT, "test": TEST, "gpu": GPU}
