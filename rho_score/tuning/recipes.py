"""What a candidate is in the options of `select` and `train`, as configurations and as command lines."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rho_score.config import SelectConfig, TrainConfig, TuneConfig
from rho_score.stores.score_set import ScoreSet
from rho_score.tuning.candidates import Candidate

PASSED_ON = (
    "model", "scores", "combine", "text_column", "block_size", "batch_tokens", "micro_batch", "warmup", "from_scratch",
    "tokenizer", "dtype", "lora_rank", "gradient_checkpointing", "workers", "gpus_per_worker", "cache",
)  # fmt: skip
"""Options that training runs get as they are."""


class Recipes:
    """The recipes of a tuning's candidates."""

    def __init__(self, config: TuneConfig) -> None:
        """config: with absolute paths, and a name for each store."""
        self.config = config

    def train_config(self, candidate: Candidate, steps: int, seed: int, place: str) -> TrainConfig:
        """The training run of a candidate. place: its folder, relative to the tuning's."""
        passed = {name: getattr(self.config, name) for name in PASSED_ON}
        data = self._data(candidate)
        if "selection" in data:
            passed |= {"scores": (), "combine": "min"}
        return TrainConfig(
            **passed,
            **data,
            output=f"{self.config.output}/{place}",
            eval=self.config.eval,
            steps=steps,
            eval_every=steps,
            learning_rate=candidate.learning_rate,
            seed=seed,
        )

    def _data(self, candidate: Candidate) -> dict[str, Any]:
        """What a candidate trains on, as options of `train` beside --scores."""
        if candidate.kind == "stored":
            return {"selection": self._selection(candidate)}
        within = {} if candidate.documents is None else {"within": self._selection(candidate)}
        return {"ratio": candidate.ratio, **within}

    def _selection(self, candidate: Candidate) -> str:
        """The URL of the selection that a candidate needs."""
        name = f"stored-{candidate.ratio:g}" if candidate.documents is None else f"documents-{candidate.documents:g}"
        return f"{self.config.output}/selections/{name}"

    def select_config(self, candidate: Candidate) -> SelectConfig | None:
        """How the selection that a candidate needs is made; None if it needs none."""
        if candidate.kind != "stored" and candidate.documents is None:
            return None
        shared: dict[str, Any] = {
            "output": self._selection(candidate),
            "ref": self.config.scores,
            "base": self.config.base,
            "combine": self.config.combine,
        }
        if candidate.documents is None:
            return SelectConfig(**shared, ratio=candidate.ratio)
        n_tokens: int = ScoreSet.open(str(self.config.base)).summary["tokens"]
        return SelectConfig(**shared, level="document", tokens=round(candidate.documents * n_tokens))

    def commands(self, candidate: Candidate) -> list[str]:
        """The commands that train with a candidate, with the lengths left open."""
        config, found = self.config, []
        if (made := self.select_config(candidate)) is not None:
            amount = {"--ratio": made.ratio, "--level": None if made.ratio else "document", "--tokens": made.tokens}
            words = [*_words({"--ref": made.ref, "--base": made.base, **self._combined(), **amount})]
            found.append(shlex.join(["rho-score", "select", "SELECTION", *words]))
        data = self._data(candidate)
        stored = "selection" in data
        options = {
            "--selection": "SELECTION" if stored else None,
            "--scores": None if stored else config.scores,
            **({} if stored else self._combined()),
            "--within": "SELECTION" if "within" in data else None,
            "--ratio": data.get("ratio"),
            "--learning-rate": candidate.learning_rate,
            "--warmup": config.warmup,
            "--block-size": config.block_size,
            "--batch-tokens": config.batch_tokens,
            "--micro-batch": config.micro_batch,
            "--tokenizer": config.tokenizer,
            "--lora-rank": config.lora_rank,
            "--dtype": None if config.dtype == "auto" else config.dtype,
            "--eval": config.eval,
            "--tokens": "N",
        }
        flags = ["--from-scratch"] if config.from_scratch else []
        flags += ["--gradient-checkpointing"] if config.gradient_checkpointing else []
        return [*found, shlex.join(["rho-score", "train", config.model, "RUN", *flags, *_words(options)])]

    def _combined(self) -> dict[str, Any]:
        return {} if self.config.combine == "min" else {"--combine": self.config.combine}


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    """Options as words of a command line; those that are None are left out, those of several values are repeated."""
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            yield from (name, f"{one:g}" if isinstance(one, float) else str(one))
