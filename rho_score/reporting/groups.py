"""The groups of a store, as the report shows them in a table and a figure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from rho_score import charts
from rho_score.reporting.sample import TokenSample
from rho_score.safe_text import shown_name
from rho_score.stores.counts import GroupCounts, group_codes, group_counts_in
from rho_score.stores.selection import Selection

MOST_DRAWN = 12
"""Groups of a figure, those with the most tokens."""
MOST_ROWS = 1000
"""Rows of the table, the groups with the most tokens."""


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """A group. kept, share: of its tokens; None for a score set. mean: of its scores, if sampled."""

    group: str
    documents: int
    tokens: int
    kept: int | None = None
    share: float | None = None
    mean: float | None = None
    threshold: float | None = None


def kept_by_group(selection: Selection) -> list[GroupRow]:
    """The groups of a selection, counted exactly, the one with the most tokens first."""
    cuts = selection.summary["thresholds"]
    thresholds = {row["group"]: row["threshold"] for row in cuts}
    if len(thresholds) < len(cuts):  # a union: each reference has one
        thresholds = {}
    per_group = selection.manifest["parts"]["per_group"]

    def row(group: str | None, counts: GroupCounts) -> GroupRow:
        return GroupRow(
            group=shown_name(group),
            documents=counts.documents,
            tokens=counts.tokens,
            kept=counts.tokens_kept,
            share=counts.share_kept,
            threshold=thresholds.get(group if per_group else None),
        )

    rows = [row(group, counts) for group, counts in group_counts_in(selection.summary).items()]
    return sorted(rows, key=lambda row: -row.tokens)


def sampled_by_group(sample: TokenSample) -> list[GroupRow]:
    """The groups of a sample, the one with the most tokens first."""
    codes, groups = group_codes(pa.array(sample.doc_groups, pa.string()))
    of_token = np.repeat(codes, sample.lengths)
    present = ~np.isnan(sample.score)
    losses = np.bincount(of_token[present], minlength=len(groups))
    sums = np.bincount(of_token[present], sample.score[present], minlength=len(groups))
    documents = np.bincount(codes, minlength=len(groups))
    tokens = np.bincount(of_token, minlength=len(groups))
    rows = [
        GroupRow(
            group=shown_name(group),
            documents=int(documents[i]),
            tokens=int(tokens[i]),
            mean=float(sums[i] / losses[i]) if losses[i] else None,
        )
        for i, group in enumerate(groups)
    ]
    return sorted(rows, key=lambda row: -row.tokens)


def groups_figure(rows: list[GroupRow], *, label: str) -> tuple[Figure, str] | None:
    """Bars of the largest groups, and a sentence about those that are left out; None without values.

    rows: the groups, the one with the most tokens first.
    """
    drawn = rows[:MOST_DRAWN]
    kept = drawn[0].share is not None
    values: Mapping[str, float | None] = {row.group: row.share if kept else row.mean for row in drawn}
    known = {name: value for name, value in values.items() if value is not None and np.isfinite(value)}
    if not known:
        return None
    tokens = sum(row.tokens for row in rows)
    whole = sum(row.kept or 0 for row in rows) / tokens if kept and tokens else None
    return charts.bars_figure(known, label=label, reference=whole), left_out(rows, MOST_DRAWN)


def left_out(rows: list[GroupRow], most: int) -> str:
    """A sentence about the groups after the first `most`; empty if there are none."""
    others, tokens = rows[most:], sum(row.tokens for row in rows)
    if not others:
        return ""
    held = sum(row.tokens for row in others)
    share = held / tokens if tokens else 0.0
    words = f"The {most:,} largest of {len(rows):,} groups; the others together hold {share:.1%} of the tokens"
    if others[0].kept is not None and held:
        words += f", and {sum(row.kept or 0 for row in others) / held:.1%} of these are kept"
    return f"{words}."
