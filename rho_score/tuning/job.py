"""The tuning job: successive halving over rules of selection, each run by `select` and `train`.

OUT/manifest.json     what determines the tuning
OUT/plan.json         the seconds of a step, as measured once, and the steps of the first rung
OUT/selections/NAME/  selections made beforehand
OUT/trials/NAME/      a training run for each candidate, length and seed
OUT/trials.parquet    a row for each of them, see `TRIALS_SCHEMA`
OUT/_SUCCESS.json     the recommended candidate; written last
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from rho_score.cluster.ray_cluster import joined
from rho_score.config import TuneConfig
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.files.paths import check_writable
from rho_score.files.urls import absolute
from rho_score.selecting.job import select
from rho_score.stores.claim import claim
from rho_score.stores.layout import SUCCESS
from rho_score.stores.manifest import new_manifest
from rho_score.stores.names import absolute_named, parse_named
from rho_score.stores.score_set import ScoreSet, require_context, require_losses
from rho_score.stores.signs import signs_of_life
from rho_score.stores.training_run import TrainingRun
from rho_score.training.job import train
from rho_score.tuning.candidates import (
    Candidate,
    Rung,
    candidates_of,
    first_steps,
    rungs_of,
    survivors,
    total_seconds,
)
from rho_score.tuning.recipes import Recipes
from rho_score.tuning.trials import Trial, best_of, gains_of, ranked, trials_file

PLAN, TRIALS = "plan.json", "trials.parquet"
LEAST_STEPS = 8
"""Steps of the shortest runs; with fewer, the learning rate would hardly rise."""
TIMED = (3, 9)
"""Steps of the runs by which a step is timed."""
SETTLED = ("minutes", "dry_run", "output", "workers", "gpus_per_worker", "cache")
"""Options that may be others when a tuning goes on: the lengths of its runs are in its plan."""


@dataclass(frozen=True, kw_only=True)
class TuneSummary:
    """What a tuning found."""

    output: str
    trials: list[Trial]
    """Empty with a dry run."""
    candidates: list[Candidate]
    """All that were tried, or would be."""
    rungs: list[Rung]
    best: Candidate | None
    """The recommended candidate; None with a dry run."""
    gains: dict[str, list[float]]
    """How much lower the last losses of each candidate are than those of the control with the same seed, by name."""
    commands: list[str]
    """The commands that train with the recommended candidate."""
    wall_s: float


def tune(config: TuneConfig, tell: Callable[[str], None] | None = None) -> TuneSummary:
    """Tries every candidate, or goes on where an earlier call of the same command stopped.

    tell: is given a line about each run, if it is there.

    Raises:
        InputError: an option is wrong, the stores do not belong together, or the time is too short.
        RhoScoreError: a run failed. What is done stays, and the same command goes on.
    """
    started = time.monotonic()
    config = _checked(config)
    candidates = candidates_of(config)
    rungs = rungs_of(len(candidates), config.seeds)
    tuning = _Tuning(config, candidates, rungs, tell or (lambda _: None))
    if config.dry_run:
        tuning.check()
        return tuning.summary([], started)
    output = Folder(config.output)
    with joined():
        claim(output, tuning.manifest(), {})
        finished = output.exists(SUCCESS)
        with nullcontext() if finished else signs_of_life(output, "tune"):
            trials = tuning.run()
            summary = tuning.summary(trials, started)
            assert summary.best is not None
            if not finished:
                output.publish(SUCCESS, dump_json({"best": asdict(summary.best), "commands": summary.commands}))
    return summary


def _checked(config: TuneConfig) -> TuneConfig:
    """The configuration with absolute paths; raises InputError if an option is wrong."""
    for name, values in (("ratio", config.ratio), ("documents", config.documents)):
        for value in values:
            if not 0 < value < 1:
                raise InputError(f"--{name} must be above 0 and below 1, got {value:g}. All tokens are tried anyway.")
    for rate in config.learning_rate:
        if not rate > 0:
            raise InputError(f"--learning-rate must be above 0, got {rate:g}.")
    if not config.learning_rate:
        raise InputError("--learning-rate needs a rate.")
    if not config.ratio and (config.base is None or not config.documents):
        raise InputError("nothing is tried beside the control. Give a --ratio, or --base and --documents.")
    if config.seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {config.seeds}.")
    if not config.minutes > 0:
        raise InputError(f"--minutes must be above 0, got {config.minutes:g}.")
    check_writable("OUTPUT", absolute(config.output))
    return replace(
        config,
        output=absolute(config.output),
        scores=tuple(f"{name}={url}" for name, url in absolute_named(config.scores, "--scores").items()),
        base=None if config.base is None else absolute(config.base),
        eval=tuple(f"{name}={url}" for name, url in absolute_named(config.eval, "--eval").items()),
    )


class _Tuning:
    """A tuning whose options are checked."""

    def __init__(
        self, config: TuneConfig, candidates: list[Candidate], rungs: list[Rung], tell: Callable[[str], None]
    ) -> None:
        self.config, self.candidates, self.rungs, self.tell = config, candidates, rungs, tell
        self.output, self.recipes = Folder(config.output), Recipes(config)
        self.references = parse_named(config.scores, "--scores")
        self.decisive = next(iter(parse_named(config.eval, "--eval")))

    def manifest(self) -> dict[str, Any]:
        """What determines the tuning."""
        sets = self._sets()
        parts = {
            **{name: value for name, value in asdict(self.config).items() if name not in (*SETTLED, "scores", "base")},
            "scores": {name: scores.manifest["fingerprint"] for name, scores in sets.items()},
        }
        return new_manifest("tuning", parts, minutes=self.config.minutes)

    def _sets(self) -> dict[str, ScoreSet]:
        """The score sets by name; raises InputError unless they are losses that can be subtracted from the model's."""
        places = {**self.references, **({"base": self.config.base} if self.config.base else {})}
        sets = {name: ScoreSet.open(url) for name, url in places.items()}
        for scores in sets.values():
            require_losses(scores, "tune")
            require_context(scores, "tune")
        return sets

    def check(self) -> None:
        """Raises InputError if the model and the stores do not belong together."""
        self._sets()
        train(replace(self.recipes.train_config(self.candidates[0], LEAST_STEPS, 0, "unused"), dry_run=True))

    def run(self) -> list[Trial]:
        """All runs, rung by rung."""
        steps = self._steps()
        for made in {made.output: made for made in map(self.recipes.select_config, self.candidates) if made}.values():
            select(made)
        left, trials = self.candidates, list[Trial]()
        for index, rung in enumerate(self.rungs):
            last = index == len(self.rungs) - 1
            seeds = range(1, rung.n_seeds + 1) if last else range(1)  # others than those that chose
            mine = [
                self._trial(index, candidate, steps * 2**rung.doublings, seed) for candidate in left for seed in seeds
            ]
            trials += mine
            self.output.publish(TRIALS, trials_file(trials))
            left = ranked(mine)
            if not last:
                left = survivors(left, self.rungs[index + 1].n_candidates)
        return trials

    def _steps(self) -> int:
        """The steps of the first rung's runs, by the time that a step took when it was measured."""
        if not self.output.exists(PLAN):
            self.check()
            self.tell("timing a step")
            times = self._times()
            found = first_steps(self.rungs, budget_s=60 * self.config.minutes, **times)
            if found < LEAST_STEPS:
                least = total_seconds(self.rungs, steps=LEAST_STEPS, **times) / 60
                raise InputError(
                    f"{self.config.minutes:g} minutes are too few for {len(self.candidates)} candidates: with {LEAST_STEPS} steps in "
                    f"the shortest runs it takes {least:.0f} minutes. Give more --minutes, or fewer candidates."
                )
            self.output.publish(PLAN, dump_json({**times, "steps": int(found)}))
        plan = orjson.loads(self.output.read(PLAN))
        longest = plan["steps"] * 2 ** self.rungs[-1].doublings
        self.tell(
            f"{len(self.candidates)} candidates; a step takes {plan['step_s']:.2g} s; runs of {plan['steps']:,} steps at first and "
            f"of {longest:,} in the end"
        )
        return int(plan["steps"])

    def _times(self) -> dict[str, float]:
        """The seconds of a step, and of what a run takes beside its steps, its evaluations among them."""
        started = 0.0
        for steps in TIMED:  # the first run warms up
            started = time.monotonic()
            train(self.recipes.train_config(self.candidates[0], steps, 0, f"trials/timing/{steps}"))
        took = time.monotonic() - started
        log = TrainingRun(Folder(f"{self.config.output}/trials/timing/{TIMED[-1]}")).log().to_pylist()
        step_s = (log[-1]["seconds"] - log[0]["seconds"]) / (log[-1]["step"] - log[0]["step"])
        return {"step_s": step_s, "start_s": max(0.0, took - TIMED[-1] * step_s)}

    def _trial(self, rung: int, candidate: Candidate, steps: int, seed: int) -> Trial:
        place = f"trials/{candidate.name}/{steps}-{seed}"
        summary = train(self.recipes.train_config(candidate, steps, seed, place))
        losses = TrainingRun(Folder(f"{self.config.output}/{place}")).last_losses()
        self.tell(f"{candidate.name}, {steps:,} steps, seed {seed}: {self.decisive} {losses[self.decisive]:.4f}")
        return Trial(
            rung=rung,
            candidate=candidate,
            steps=steps,
            seed=seed,
            tokens_seen=summary.tokens_seen,
            tokens_trained=summary.tokens_trained,
            loss=losses[self.decisive],
            losses=losses,
            run=place,
        )

    def summary(self, trials: list[Trial], started: float) -> TuneSummary:
        """What the runs say."""
        last = [trial for trial in trials if trial.rung == len(self.rungs) - 1]
        gains, best, commands = dict[str, list[float]](), None, list[str]()
        if last:
            gains = gains_of(last)
            best = best_of(last, gains)
            commands = self.recipes.commands(best)
        return TuneSummary(
            output=self.config.output,
            trials=trials,
            candidates=self.candidates,
            rungs=self.rungs,
            best=best,
            gains=gains,
            commands=commands,
            wall_s=time.monotonic() - started,
        )
