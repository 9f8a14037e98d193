"""Writes a comparison as CSV."""

import csv
import io

from rho_score.ranking.effects import Estimate
from rho_score.reporting.compared import QUANTILES, CompareSummary, Comparison, PartStats
from rho_score.safe_text import spreadsheet_cell


def csv_of(summary: CompareSummary) -> bytes:
    """The content of a CSV file with a row for each set and each group.

    Cells of what is not compared, or has no counterpart of like length, are empty.
    """
    found = {(c.name, c.group, c.whole): c for c in summary.comparisons}
    rows = []
    for kind, parts in (("all", summary.sets), ("group", summary.groups)):
        for part in parts:
            comparison = found.get((part.name, part.group, kind == "all"))
            rows.append({"part": kind, **_part_cells(part), **(_comparison_cells(comparison) if comparison else {})})
    sink = io.StringIO()
    header = [*rows[0], *_comparison_cells(summary.comparisons[0])]
    # quotes keep a \r in its row
    writer = csv.DictWriter(sink, header, restval="", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def _part_cells(part: PartStats) -> dict[str, str | float]:
    return {
        "set": part.name,
        "group": spreadsheet_cell(part.group or ""),
        "documents": part.documents,
        "tokens": part.tokens,
        "bytes": part.bytes,
        "bits_per_byte": part.bits_per_byte,
        "mean_loss": part.mean_loss,
        "mean_of_documents": part.mean,
        **{f"quantile_{share:g}": value for share, value in zip(QUANTILES, part.quantiles, strict=True)},
    }


def _comparison_cells(found: Comparison) -> dict[str, str | float]:
    matched = found.matched
    estimates: dict[str, Estimate | None] = {
        "difference": found.difference,
        "weighted_difference": found.weighted_difference,
        "superiority": found.superiority,
        "matched_difference": matched.difference if matched else None,
        "matched_superiority": matched.superiority if matched else None,
        "outside": found.outside,
    }
    cells: dict[str, str | float] = {"against": spreadsheet_cell(found.against)}
    for name, estimate in estimates.items():
        for i, end in enumerate(("", "_low", "_high")):
            cells[f"{name}{end}"] = "" if estimate is None else estimate[i]
    return cells | {
        "matched_share": matched.share if matched else "",
        "cliffs_delta": found.cliffs_delta,
        "below": found.below,
        "above": found.above,
        "verdict": found.verdict,
    }
