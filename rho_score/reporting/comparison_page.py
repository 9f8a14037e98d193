"""The page about a comparison."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from rho_score import charts
from rho_score.config import CompareConfig
from rho_score.files.json import JsonObject
from rho_score.files.urls import without_credentials
from rho_score.ranking.effects import Estimate
from rho_score.ranking.rates import Rates
from rho_score.reporting import comparison_figures
from rho_score.reporting.compared import QUANTILES, CompareSummary, Comparison
from rho_score.reporting.heatmap import AT_ONCE, MOST_SHOWN, heat_map, legend
from rho_score.reporting.html import publish_page
from rho_score.reporting.shown_documents import ShownDocument
from rho_score.reporting.verdict import sentences
from rho_score.safe_text import shown_name, visible
from rho_score.version import __version__

MOST_ROWS = 100
"""Rows of a table; the CSV file has all."""
MOST_DRAWN = 6
"""Distributions of a figure, the largest samples first."""
MOST_VERDICTS = 12
_ABOUT = {
    "harder": "The hardest documents of {0}, above the 99 % quantile",
    "easier": "The easiest documents of {0}, below the 1 % quantile",
    "typical": "Documents of {0} that are nearest to the median",
}


def write_page(
    config: CompareConfig,
    summary: CompareSummary,
    rates: Mapping[str, Rates],
    same: JsonObject,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Writes the page to `config.page`.

    rates: what is drawn, by name, with the first set in front unless groups of one set are
    compared. same: the parts of the manifests that the score sets have in common.
    """
    assert config.page is not None
    first = summary.comparisons[0].against
    scale = _scale(summary.documents)
    parts = [*summary.sets, *summary.groups]
    publish_page(
        config.page,
        "comparison.html.j2",
        title=f"Comparison with {shown_name(first)}"
        if len(summary.sets) > 1
        else f"Groups of {shown_name(summary.sets[0].label)}",
        first=shown_name(first),
        place=visible(" · ".join(without_credentials(url) for url in config.scores)),
        version=__version__,
        facts=[(f"bits per byte, {shown_name(part.label)}", f"{part.bits_per_byte:.4f}") for part in summary.sets],
        verdicts=[
            {"title": shown_name(found.label), "sentences": sentences(found)}
            for found in _whole_first(summary.comparisons)[:MOST_VERDICTS]
        ],
        n_verdicts=len(summary.comparisons),
        figures=_figures(summary, rates),
        shares=[f"{share:.0%}" for share in QUANTILES],
        parts=[{**vars(part), "label": shown_name(part.label)} for part in parts[:MOST_ROWS]],
        table_note=_table_note(summary, len(parts)),
        differences=[_cells(found) for found in summary.comparisons[:MOST_ROWS]],
        documents=_documents(summary.documents, tokenizer, scale),
        legend=legend(**scale, masked=False) if scale else "",
        min_tokens=config.min_tokens,
        same=same,
    )


def _whole_first(found: Sequence[Comparison]) -> list[Comparison]:
    return sorted(found, key=lambda comparison: not comparison.whole)


def _table_note(summary: CompareSummary, n_parts: int) -> str:
    notes = ["Percentages are quantiles of the documents' bits per byte."]
    if n_parts > MOST_ROWS:
        notes.append(f"The first {MOST_ROWS} of {n_parts:,} rows; --csv writes all.")
    notes += [
        f"{n:,} documents of {shown_name(name)} are left out: they have no loss, no text, or an infinite loss."
        for name, n in summary.left_out.items()
        if n
    ]
    notes += [
        f"{used:,} of {planned:,} units of {shown_name(name)} are used, those that are published."
        for name, (used, planned) in summary.units.items()
        if used < planned
    ]
    return " ".join(notes)


def _figures(summary: CompareSummary, rates: Mapping[str, Rates]) -> list[dict[str, str]]:
    several = len(summary.sets) > 1
    largest = sorted(rates, key=lambda name: -rates[name].documents)
    first = [next(iter(rates))] if several else []
    drawn = [*first, *(name for name in largest if name not in first)][:MOST_DRAWN]
    shown = {name: rates[name] for name in drawn}
    about = "Each document has the same weight." + (
        f" The {MOST_DRAWN} largest of {len(rates)}." if len(rates) > MOST_DRAWN else ""
    )
    figures = [_figure("Distribution of bits per byte", about, comparison_figures.distributions(shown))]
    if several:
        note = "Each point is a percentile, from 1 % to 99 %. Above the line, a set is harder."
        figures.append(_figure("Percentiles", note, comparison_figures.quantiles(shown)))
    against = f"Against {shown_name(summary.comparisons[0].against)}, with 95 % intervals."
    if len(summary.comparisons) > charts.MOST_INTERVALS:
        against += f" The first {charts.MOST_INTERVALS} of {len(summary.comparisons):,}."
    figures.append(_figure("Difference of the means", against, comparison_figures.differences(summary.comparisons)))
    note = f"{against} At 0.5 both are as hard."
    figures.append(
        _figure(
            "Probability that a random document is harder",
            note,
            comparison_figures.probabilities(summary.comparisons),
        )
    )
    return figures


def _figure(title: str, note: str, figure: Figure) -> dict[str, str]:
    return {"title": title, "note": note, "url": charts.data_url(figure)}


def _cells(found: Comparison) -> list[tuple[str, str]]:
    """The cells of a row, each with its interval, which may be empty."""
    matched = found.matched
    return [
        (shown_name(found.label), ""),
        _shown(found.difference, "+.3f"),
        _shown(found.weighted_difference, "+.3f"),
        _shown(found.superiority, ".3f"),
        (f"{matched.share:.0%}" if matched else "0%", ""),
        _shown(matched.difference, "+.3f") if matched else ("–", ""),
        _shown(matched.superiority, ".3f") if matched else ("–", ""),
        _shown(found.outside, ".1%"),
        (found.verdict, ""),
    ]


def _shown(of: Estimate, form: str) -> tuple[str, str]:
    return f"{of.value:{form}}", "" if math.isinf(of.low) else f"{of.low:{form}} … {of.high:{form}}"


def _scale(documents: Sequence[ShownDocument]) -> dict[str, Any]:
    """The colours of all heat maps, as arguments of `heat_map`; empty without a loss."""
    losses = np.concatenate([np.zeros(0), *(document.tokens.score for document in documents)])
    losses = losses[np.isfinite(losses)]
    if not len(losses):
        return {}
    low, middle, high = np.quantile(losses, [0.05, 0.5, 0.95])
    return {"score_name": "loss", "middle": float(middle), "spread": float(max(high - middle, middle - low))}


def _documents(
    documents: Sequence[ShownDocument], tokenizer: PreTrainedTokenizerBase, scale: dict[str, Any]
) -> list[dict[str, Any]]:
    """Heat maps by set (or group) and kind."""
    if not scale:
        return []
    folded = max(0, MOST_SHOWN // max(len(documents), 1) - AT_ONCE)

    def row(document: ShownDocument) -> dict[str, Any]:
        return {
            "doc_id": shown_name(document.doc_id),
            "group": None if document.group is None else shown_name(document.group),
            "rate": document.bits_per_byte,
            "tokens": len(document.tokens.input_ids),
            "excerpt": document.excerpt,
            "html": heat_map(document.tokens, tokenizer, **scale, max_tokens=AT_ONCE, folded=folded),
        }

    return [
        {"title": _ABOUT[kind].format(shown_name(of)), "rows": [row(document) for document in found]}
        for (of, kind), found in groupby(documents, key=lambda document: (document.of, document.kind))
    ]
