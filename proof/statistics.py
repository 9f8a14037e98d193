"""What the results of a proof say: paired differences, intervals, and how little is enough."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean over paired seeds and its bootstrap interval of 95 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_signed(self.mean)} ({_signed(self.low)} to {_signed(self.high)})"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def bootstrap(values: Sequence[float]) -> Interval:
    """The mean of values, and the percentile interval of means of resamples of them."""
    given = np.asarray(values, np.float64)
    drawn = np.random.default_rng(0).integers(0, len(given), (RESAMPLES, len(given)))
    low, high = np.quantile(given[drawn].mean(axis=1), (0.025, 0.975))
    return Interval(float(given.mean()), float(low), float(high))


class Reached(NamedTuple):
    """The shortest runs of an arm that reach the end loss of all tokens."""

    seen: float
    """Tokens seen, as a share of what the longest run of `all` saw."""
    trained: float
    """Tokens trained on, as a share of what the longest run of `all` trained on."""


class Outcome:
    """The runs of a proof that are not of its tuning."""

    def __init__(self, results: pa.Table) -> None:
        self.rows: list[dict[str, Any]] = [row for row in results.to_pylist() if not row["tuning"]]
        self._by = {(r["condition"], r["arm"], r["budget"], r["seed"]): r for r in self.rows}

    def conditions(self) -> list[str]:
        """The conditions, in the order of the runs."""
        return list(dict.fromkeys(row["condition"] for row in self.rows))

    def arms(self, condition: str) -> list[str]:
        """The arms of a condition, in the order of the runs."""
        return list(dict.fromkeys(row["arm"] for row in self.rows if row["condition"] == condition))

    def budgets(self, condition: str, arm: str = "all") -> list[int]:
        """The budgets of an arm, the smallest first."""
        return sorted({r["budget"] for r in self.rows if (r["condition"], r["arm"]) == (condition, arm)})

    def longest(self, condition: str) -> int:
        """The largest budget of a condition."""
        return self.budgets(condition)[-1]

    def seeds(self, condition: str, arm: str, budget: int) -> list[int]:
        """The seeds of an arm at a budget."""
        mine = (condition, arm, budget)
        return sorted({r["seed"] for r in self.rows if (r["condition"], r["arm"], r["budget"]) == mine})

    def paired(self, condition: str, budget: int, *arms: str) -> list[int]:
        """The seeds that all of these arms have at a budget."""
        return sorted(set.intersection(*(set(self.seeds(condition, arm, budget)) for arm in arms)))

    def values(self, condition: str, arm: str, budget: int, column: str = "test") -> list[float]:
        """A column of an arm's runs, by seed."""
        return [self._by[condition, arm, budget, s][column] for s in self.seeds(condition, arm, budget)]

    def mean(self, condition: str, arm: str, budget: int, column: str = "test") -> float:
        """The mean of a column over seeds."""
        return float(np.mean(self.values(condition, arm, budget, column)))

    def mean_of(self, condition: str, arm: str, budget: int, seeds: Iterable[int]) -> float:
        """The mean loss over some seeds."""
        return float(np.mean([self._by[condition, arm, budget, seed]["test"] for seed in sorted(seeds)]))

    def gain(self, condition: str, arm: str, budget: int, *, over: str = "all", column: str = "test") -> Interval:
        """How much lower an arm's loss is than another arm's, paired by seed."""
        seeds = self.paired(condition, budget, arm, over)
        of = self._by
        return bootstrap(
            [of[condition, over, budget, s][column] - of[condition, arm, budget, s][column] for s in seeds]
        )

    def reached(self, condition: str, arm: str) -> Reached | None:
        """The smallest budget by which the arm reaches the end loss of all tokens in every seed; None if there is none."""
        longest = self.longest(condition)
        for budget in self.budgets(condition, arm):
            if all(own["test"] <= end["test"] for own, end in self._beside(condition, arm, budget, longest)):
                return self._shares(condition, arm, budget, longest)
        return None

    def reached_in_mean(self, condition: str, arm: str) -> Reached | None:
        """The smallest budget by which the arm's mean loss reaches the mean end loss of all tokens."""
        longest = self.longest(condition)
        for budget in self.budgets(condition, arm):
            runs = self._beside(condition, arm, budget, longest)
            if np.mean([own["test"] - end["test"] for own, end in runs]) <= 0:
                return self._shares(condition, arm, budget, longest)
        return None

    def _beside(
        self, condition: str, arm: str, budget: int, longest: int
    ) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The arm's runs, each beside the longest run on all tokens with the same seed."""
        seeds = set(self.seeds(condition, arm, budget)) & set(self.seeds(condition, "all", longest))
        return [(self._by[condition, arm, budget, s], self._by[condition, "all", longest, s]) for s in sorted(seeds)]

    def _shares(self, condition: str, arm: str, budget: int, longest: int) -> Reached:
        runs = self._beside(condition, arm, budget, longest)
        seen, trained = (max(own[c] / end[c] for own, end in runs) for c in ("tokens_seen", "tokens_trained"))
        return Reached(seen, trained)

    def oracle_share(self, condition: str, arm: str, budget: int) -> float:
        """The share of the oracle's mean gain over all tokens that the arm wins, over the seeds that they share."""
        seeds = self.paired(condition, budget, "all", arm, "oracle")
        every, own, oracle = (self.mean_of(condition, a, budget, set(seeds)) for a in ("all", arm, "oracle"))
        return (every - own) / (every - oracle)

    def best(self, condition: str, budget: int, *, without: Iterable[str] = ("oracle",)) -> str:
        """The arm with the lowest mean loss that a user can run."""
        arms = [arm for arm in self.arms(condition) if arm not in without and budget in self.budgets(condition, arm)]
        return min(arms, key=lambda arm: self.mean(condition, arm, budget))
