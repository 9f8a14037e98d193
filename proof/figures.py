"""Draws the figures of the proof's page."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from proof.sizes import BOTH, DOCUMENTS, LIVE, LIVE_60, ORACLE, STORED, Condition
from proof.statistics import Outcome

STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none", "legend.frameon": False,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "svg.hashsalt": "rho-score",
}  # fmt: skip
COLOURS = {
    "all": "#1b1f24", LIVE: "#d6604d", LIVE_60: "#f4a582", STORED: "#b2182b", DOCUMENTS: "#4393c3", BOTH: "#2f7d5b",
    ORACLE: "#b8860b", "random-30": "#8a929b", "high-loss-30": "#a06cc0", "low-reference-30": "#c7a2d9",
}  # fmt: skip
AXES = (
    ("tokens_seen", "tokens seen"),
    ("tokens_trained", "tokens trained on"),
    ("flops", "operations, reference and scores too"),
)


def runs_figure(outcome: Outcome, condition: str) -> Figure:
    """Held-out loss of every arm against tokens seen, tokens trained on, and arithmetic. Bars are from lowest to highest seed."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.4), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (column, label) in zip(panels, AXES, strict=True):
            for arm, colour in COLOURS.items():
                if arm in outcome.arms(condition):
                    _line(axes, outcome, condition, arm, column, colour)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlim(axes.get_xlim()[0] / 1.3, axes.get_xlim()[1] * 1.3)
            axes.set_xlabel(label)
        panels[0].set_ylabel("held-out loss of the target (nats a token)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _line(axes: Axes, outcome: Outcome, condition: str, arm: str, column: str, colour: str) -> None:
    budgets = outcome.budgets(condition, arm)
    losses = [outcome.values(condition, arm, budget) for budget in budgets]
    columns = ("flops_training", "flops_before") if column == "flops" else (column,)
    places = [sum(outcome.mean(condition, arm, budget, c) for c in columns) for budget in budgets]
    if column == "tokens_seen":  # arms that repeat documents see a few tokens fewer
        places = [float(budget) for budget in budgets]
    means = [float(np.mean(of)) for of in losses]
    reach = [
        [m - min(of) for m, of in zip(means, losses, strict=True)],
        [max(of) - m for m, of in zip(means, losses, strict=True)],
    ]
    style = "--" if arm in ("random-30", "high-loss-30", "low-reference-30") else "-"
    axes.errorbar(
        places, means, yerr=reach, label=arm, color=colour, marker=".", linewidth=1.4, linestyle=style, capsize=2
    )


def _short(value: float) -> str:
    """A number as an axis shows it: 200k, 1M, 5e+12."""
    if value >= 1e9:
        return f"{value:.0e}"
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k"


def crossover_figure(outcome: Outcome, conditions: Sequence[Condition]) -> Figure:
    """The gain over all tokens at the longest budget, by the share of noise and by the share of the target."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, regime in zip(panels, "AB", strict=True):
            # clean text that is all of the target ends both series
            mine = [c for c in conditions if c.regime == regime or (c.target == 100 and not c.noise)]
            for arm in (LIVE, LIVE_60, DOCUMENTS, BOTH):
                points = [
                    (c.noise if regime == "A" else c.target, outcome.gain(c.name, arm, outcome.longest(c.name)))
                    for c in mine
                    if arm in outcome.arms(c.name)
                ]
                points.sort()
                if points:
                    axes.errorbar(
                        [x for x, _ in points],
                        [gain.mean for _, gain in points],
                        yerr=[[g.mean - g.low for _, g in points], [g.high - g.mean for _, g in points]],
                        label=arm, color=COLOURS[arm], marker=".", capsize=2,
                    )  # fmt: skip
            axes.axhline(0, color="#8a929b", linewidth=1)
            axes.set_xlabel(
                "noise inside documents, % of tokens" if regime == "A" else "documents of the target, % of tokens"
            )
        panels[0].set_ylabel("gain over all tokens (nats a token)")
        panels[0].legend(fontsize=8)
    return figure


def ratios_figure(outcome: Outcome, conditions: Sequence[str]) -> Figure:
    """The end loss of live selection by its ratio; the ratio 1 is every token."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for condition, colour in zip(conditions, ("#d6604d", "#4393c3"), strict=False):
            ratios = ratios_of(outcome, condition)
            axes.plot([r for r, _ in ratios], [loss for _, loss in ratios], label=condition, color=colour, marker=".")
        axes.set_xlabel("ratio of live selection")
        axes.set_ylabel("held-out loss of the target (nats)")
        axes.legend(fontsize=8)
    return figure


def ratios_of(outcome: Outcome, condition: str) -> list[tuple[float, float]]:
    """Ratios of live selection and their end losses, the mean over the seeds that all of them have."""
    budget = outcome.longest(condition)
    arms = {int(arm.split("-")[1]) / 100: arm for arm in outcome.arms(condition) if arm.startswith("live-")} | {
        1.0: "all"
    }
    seeds = set.intersection(*(set(outcome.seeds(condition, arm, budget)) for arm in arms.values()))
    return [(ratio, outcome.mean_of(condition, arm, budget, seeds)) for ratio, arm in sorted(arms.items())]


def steps_figure(lines: Mapping[str, Sequence[tuple[int, float]]], *, label: str) -> Figure:
    """Lines over the steps of a run; a name that ends with `dropped` is dashed."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, points in lines.items():
            style = "--" if name.endswith("dropped") else "-"
            colour = COLOURS["all"] if name.startswith("all") else COLOURS[LIVE] if name.startswith(LIVE) else None
            axes.plot([x for x, _ in points], [y for _, y in points], style, label=name, color=colour, marker=".")
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    return figure
