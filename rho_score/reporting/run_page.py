"""The page about a training run, or about several that are compared."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from rho_score import charts
from rho_score.config import ReportConfig
from rho_score.errors import InputError
from rho_score.files.urls import without_credentials
from rho_score.reporting.html import publish_page
from rho_score.safe_text import visible
from rho_score.stores.lineage import ancestry
from rho_score.stores.names import told_apart
from rho_score.stores.training_run import TrainingRun, before_and_after, held_out_name

MOST_POINTS = 400
"""Points of a line; rows of longer logs are averaged."""

Lines = dict[str, tuple[list[float], list[float]]]


def run_report(config: ReportConfig) -> str:
    """Writes the page about the run `config.store` and those that it is compared with.

    Raises:
        InputError: a store is not a training run, or has no row in its log yet.
    """
    runs = _named([config.store, *config.compare])
    for url, run in zip([config.store, *config.compare], runs.values(), strict=True):
        if not len(run.log()):
            raise InputError(
                f"the training run {url} has no row in its log yet. Rows are written with its checkpoints."
            )
    first = next(iter(runs.values()))
    return publish_page(
        config.output,
        "run.html.j2",
        place=visible(without_credentials(config.store)),
        manifest=first.manifest,
        facts=_facts(first),
        figures=_figures(runs),
        held_out=_held_out(runs),
        several=len(runs) > 1,
        ancestry=ancestry(first.folder),
    )


def _named(urls: list[str]) -> dict[str, TrainingRun]:
    """The runs by the shortest ends of their URLs that tell them apart."""
    names = told_apart(urls)
    if names is None:
        raise InputError("a training run is compared with itself. Name each run once.")
    return {name: TrainingRun.open(url) for name, url in zip(names, urls, strict=True)}


def _facts(run: TrainingRun) -> list[tuple[str, str]]:
    last = run.log().slice(len(run.log()) - 1).to_pylist()[0]
    facts = [
        ("steps", f"{last['step']:,}" if run.finished else f"{last['step']:,} so far"),
        ("tokens seen", f"{last['tokens_seen']:,}"),
        ("tokens trained on", f"{last['tokens_trained']:,}"),
        ("share trained on", f"{last['tokens_trained'] / last['tokens_seen']:.1%}" if last["tokens_seen"] else "–"),
        ("tokens/s", f"{last['tokens_seen'] / last['seconds']:,.0f}" if last["seconds"] else "–"),
    ]
    whole = [row for row in run.evaluations().to_pylist() if row["group"] is None]
    return facts + [(f"held-out loss, {visible(row['name'])}", f"{row['loss']:.4f}") for row in whole[-1:]]


def _figures(runs: Mapping[str, TrainingRun]) -> list[dict[str, str]]:
    logs = {name: run.log() for name, run in runs.items()}
    figures = [
        _figure(
            "Loss of the model in training",
            "Mean loss of all tokens, in nats."
            if len(runs) > 1
            else "Mean loss of all tokens, of those that were trained on, and of the others, in nats.",
            _training_lines(logs),
            "tokens seen",
        )
    ]
    for x in ("tokens_seen", "tokens_trained"):
        figures.append(
            _figure(
                f"Held-out loss against {x.replace('_', ' ')}",
                "In nats a token; the whole of each held-out set" + (", and its groups." if len(runs) == 1 else "."),
                _evaluation_lines(runs, x),
                x.replace("_", " "),
            )
        )
    thresholds = {name: _line(log, "threshold") for name, log in logs.items()}
    figures.append(
        _figure(
            "Threshold",
            "The excess loss, or the other score, from which on tokens were trained on.",
            thresholds,
            "tokens seen",
        )
    )
    norms = {name: _line(log, "grad_norm") for name, log in logs.items()}
    figures.append(_figure("Gradient norm", "Before clipping.", norms, "tokens seen", "norm"))
    return [figure for figure in figures if figure]


def _training_lines(logs: Mapping[str, pa.Table]) -> Lines:
    if len(logs) > 1:
        return {name: _line(log, "loss") for name, log in logs.items()}
    log = next(iter(logs.values()))
    named = {"all": "loss", "trained on": "loss_kept", "left out": "loss_dropped"}
    return {name: _line(log, column) for name, column in named.items()}


def _evaluation_lines(runs: Mapping[str, TrainingRun], x: str) -> Lines:
    lines: Lines = {}
    for name, run in runs.items():
        for row in run.evaluations().to_pylist():
            if row["loss"] is None or (row["group"] is not None and len(runs) > 1):
                continue
            about = held_out_name(row)
            places, values = lines.setdefault(about if len(runs) == 1 else f"{name}: {about}", ([], []))
            places.append(row[x])
            values.append(row["loss"])
    return lines


def _line(log: pa.Table, column: str) -> tuple[list[float], list[float]]:
    """A column of a log against the tokens seen, in at most `MOST_POINTS` means of consecutive rows."""
    found = log.filter(log[column].is_valid())
    x, y = (found[name].to_numpy().astype(np.float64) for name in ("tokens_seen", column))
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    parts = [part for part in np.array_split(np.arange(len(x)), MOST_POINTS) if len(part)]
    return [float(x[part[-1]]) for part in parts], [float(y[part].mean()) for part in parts]


def _figure(title: str, note: str, lines: Lines, x: str, y: str = "nats") -> dict[str, str]:
    """A figure of the page; empty if there is no point to draw."""
    lines = {name: points for name, points in lines.items() if points[0]}
    if not lines:
        return {}
    return {"title": title, "note": note, "url": charts.data_url(charts.lines_figure(lines, x=x, y=y))}


def _held_out(runs: Mapping[str, TrainingRun]) -> list[dict[str, Any]]:
    """The held-out losses at each run's first and last evaluation, one row for each set and group."""
    return [
        {**last, "run": visible(run_name), "about": visible(name), "before": before}
        for run_name, run in runs.items()
        for name, before, last in before_and_after(run.evaluations().to_pylist())
        if last["loss"] is not None
    ]
