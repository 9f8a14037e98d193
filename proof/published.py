"""The results of a proof as they are kept in a folder, with what the page looks up in them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from proof.sizes import SIZES, Condition, Size
from proof.statistics import Outcome
from proof.words import COMMANDS

PUBLISHED = Path("docs/proof")
PAPER = {"H-H": 0.11, "L-H": 0.12, "H-L": 0.26, "L-L": 0.51}
"""Shares of the token categories in the paper (Lin et al. 2024, arXiv 2404.07965, figure 1)."""


class Published:
    """The results of a proof."""

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

    def lines(self, analysis: str, condition: str, *, by_arm: bool = False) -> dict[str, list[tuple[int, float]]]:
        """The points (step, value) of each line of an analysis, by its series, or by arm and series."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.analyses:
            if row["analysis"] == analysis and row["condition"] == condition:
                name = f"{row['arm']}, {row['series']}" if by_arm else row["series"]
                found.setdefault(name, []).append((row["step"], row["value"]))
        return found

    def dynamics(self) -> list[tuple[str, dict[str, float]]]:
        """The shares of the token categories: those of the paper, then those of each run."""
        found: dict[str, dict[str, float]] = {}
        for row in self.analyses:
            if row["analysis"] == "dynamics":
                found.setdefault(f"{row['condition']}, {row['arm']}", {})[row["series"]] = row["value"]
        return [("the paper, 1.1B", PAPER), *found.items()] if found else []

    def not_offered(self, condition: Condition) -> set[str]:
        """Arms that are no offer to a user: ceilings, controls, and those that vary another arm."""
        return set(self.outcome.arms(condition.name)) - set(COMMANDS)


def compare(mine: pa.Table, published: pa.Table) -> str:
    """How far the losses of the same runs are apart."""
    keys = ("condition", "arm", "budget", "seed", "rate", "tuning")
    by = {tuple(row[k] for k in keys): row["test"] for row in published.to_pylist()}
    apart = [abs(row["test"] - by[at]) for row in mine.to_pylist() if (at := tuple(row[k] for k in keys)) in by]
    if not apart:
        return "none of these runs is published"
    return f"{len(apart)} of {len(mine)} runs are published, too: the losses are at most {max(apart):.2g} nats apart"
