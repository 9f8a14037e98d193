"""What any ratio, budget or threshold would keep, read off a selection's histogram. No Ray here."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rho_score.charts import check_plot, image_kind
from rho_score.config import CurveConfig
from rho_score.errors import InputError
from rho_score.files.arrow import as_arrow, as_numpy
from rho_score.files.folder import file_at
from rho_score.files.paths import check_writable
from rho_score.ranking.cuts import BudgetCut, Cut, cut_budget, cut_items, cut_threshold, ranked
from rho_score.ranking.histogram import COUNTS, Group, without_groups
from rho_score.ranking.keys import Bits, keys_of
from rho_score.ranking.rules import check_budget, check_share, check_threshold, n_items
from rho_score.safe_text import spreadsheet_cell, visible
from rho_score.stores.selection import Selection

GROUPS_SHOWN = 6
RATIOS = (0.01, 0.05, *(i / 10 for i in range(1, 10)), 0.95, 0.99)


@dataclass(frozen=True)
class Point:
    """What one cut of a ranking would keep.

    ratio: share of the items. threshold: nats; None if nothing is kept. items, tokens: how many are
    kept. shares: share of each group's tokens.
    """

    ratio: float
    threshold: float | None
    items: int
    tokens: int
    shares: dict[Group, float]


@dataclass(frozen=True)
class Curves:
    """The histogram of a selection, and what can be read off it."""

    histogram: pa.Table
    """The histogram of one ranking, by group: columns expert, group, key, count and tokens."""
    high: bool
    bits: Bits
    level: str
    score: str

    @property
    def groups(self) -> list[Group]:
        """The groups, the one with the most tokens first."""
        sums = self.histogram.group_by("group").aggregate([("tokens", "sum")]).sort_by([("tokens_sum", "descending")])
        names: list[Group] = sums["group"].to_pylist()
        return names

    def of(self, group: Group) -> pa.Table:
        """The histogram of one group."""
        column = self.histogram["group"]
        return self.histogram.filter(column.is_null() if group is None else pc.equal(column, group))

    def at_ratio(self, ratio: float) -> Point:
        """What `--ratio` would keep."""
        return self._point(lambda whole: cut_items(whole, round(ratio * n_items(whole)), high=self.high))

    def at_tokens(self, tokens: int) -> Point:
        """What `--tokens` would keep, without documents at the threshold, as it is not known which
        of them fit."""
        cut = cut_items if self.level == "token" else cut_budget
        return self._point(lambda whole: cut(whole, tokens, high=self.high))

    def at_threshold(self, threshold: float) -> Point:
        """What `--threshold` would keep."""
        return self._point(lambda whole: cut_threshold(whole, threshold, high=self.high, bits=self.bits))

    def _point(self, cut_of: Callable[[pa.Table], Cut]) -> Point:
        whole = without_groups(self.histogram)
        cut, n = cut_of(whole), n_items(whole)
        shares, tokens = {}, 0.0
        for group in self.groups:
            kept, held = _kept_tokens(self.of(group), cut)
            shares[group] = kept / held if held else 0.0
            tokens += kept
        value = None if cut.nothing else cut.value(self.bits)
        return Point(cut.kept / n if n else 0.0, value, cut.kept, round(tokens), shares)

    def rows(self) -> Iterator[tuple[str, float, float, int, int]]:
        """Every point of the curve of the whole and of each group: group, threshold (nats), ratio,
        items and tokens kept."""
        tables = [("(all)", without_groups(self.histogram))]
        tables += (
            [("" if group is None else group, self.of(group)) for group in self.groups] if len(self.groups) > 1 else []
        )
        for name, table in tables:
            keys, counts, tokens = ranked(table, high=self.high)
            items, held = np.cumsum(counts), np.cumsum(tokens)
            values = _values(keys, self.bits)
            for value, n, t in zip(values, items.tolist(), held.tolist(), strict=True):
                yield name, value, n / items[-1], n, t


def _values(keys: np.ndarray, bits: Bits) -> list[float]:
    return [Cut(int(key), 0, True).value(bits) for key in keys]


def _kept_tokens(table: pa.Table, cut: Cut) -> tuple[float, int]:
    """The number of tokens of a group that a cut keeps, and of all its tokens.

    The groups share the items at the cut in proportion.
    """
    keys, _, tokens = ranked(table, high=cut.high)
    ties = 0 if isinstance(cut, BudgetCut) or not cut.tied else cut.ties / cut.tied
    return float(tokens[cut.before(keys)].sum() + ties * tokens[keys == cut.key].sum()), int(tokens.sum())


def load_curves(selection: Selection, expert: str | None = None) -> Curves:
    """The curves of a selection. expert: the reference whose ranking is read, for a union.

    Raises:
        InputError: the selection has several rankings and `expert` is not given, or it has none of
            that name.
    """
    table = selection.histogram()
    experts = table["expert"].unique().to_pylist()
    if expert not in experts and len(table):
        known = ", ".join(name for name in experts if name)
        raise InputError(
            f"{selection.folder.url} has {'several rankings' if expert is None else f'no ranking of {expert!r}'}. "
            + (f"Name one with --expert: {known}." if known else "Leave out --expert.")
        )
    column = table["expert"]
    table = table.filter(column.is_null() if expert is None else pc.equal(column, expert))
    bits: Bits = 32 if selection.summary["bits"] == 32 else 16
    keys = as_arrow(keys_of(as_numpy(table["value"]), bits))
    counts = table.set_column(COUNTS.get_field_index("key"), "key", keys).cast(COUNTS)
    return Curves(
        counts,
        high=selection.summary["high_first"],
        bits=bits,
        level=selection.summary["level"],
        score=selection.score_column,
    )


def curve(config: CurveConfig) -> str:
    """The table of the points that were asked for. Writes the figure and the CSV file, if wanted.

    Raises:
        InputError: the selection is not finished, the reference is unknown, or a number is not one
            that `select` takes.
    """
    if config.plot:
        check_plot(config.plot)
    if config.csv:
        check_writable("--csv", config.csv, file=True)
    for ratio in config.ratio:
        check_share("--ratio", ratio)
    for n_tokens in config.tokens:
        check_budget(n_tokens)
    for threshold in config.threshold:
        check_threshold(threshold)
    selection = Selection.open(config.selection)
    curves = load_curves(selection, config.expert)
    asked = bool(config.ratio or config.tokens or config.threshold)
    points = [curves.at_ratio(ratio) for ratio in (config.ratio if asked else RATIOS)]
    points += [curves.at_tokens(n) for n in config.tokens] + [curves.at_threshold(x) for x in config.threshold]
    if config.csv:
        folder, name = file_at(config.csv)
        folder.publish(name, csv_bytes(curves))
    if config.plot:
        from rho_score import charts

        folder, name = file_at(config.plot)
        nats = "nats of excess loss" if curves.score == "excess" else f"nats of {curves.score}"
        label = nats if selection.in_nats else selection.score_label
        figure = charts.curve_figure(_lines(curves), label=label, items=f"{curves.level}s")
        folder.publish(name, charts.image(figure, image_kind(name)))
    return _table(curves, points)


def csv_bytes(curves: Curves) -> bytes:
    """Every point as CSV: group, threshold (nats), ratio, items, tokens.

    A group that begins with = + - @, a tab or a line break gets a ' in front, since a spreadsheet
    would run it as a formula.
    """
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # keeps a \r in its row
    writer.writerow(["group", "threshold", "ratio", curves.level + "s", "tokens"])
    writer.writerows((spreadsheet_cell(group), *numbers) for group, *numbers in curves.rows())
    return sink.getvalue().encode()


def _table(curves: Curves, points: list[Point]) -> str:
    whole_documents = curves.level == "document"
    groups = curves.groups[:GROUPS_SHOWN] if len(curves.groups) > 1 else []
    head = f"{'ratio':>8} {'threshold':>10}" + (f" {'documents kept':>16}" if whole_documents else "")
    lines = [f"{head} {'tokens kept':>18}" + "".join(f" {visible(group or '(none)')[:12]:>12}" for group in groups)]
    for point in points:
        threshold = "" if point.threshold is None else f"{point.threshold:.4f}"
        row = f"{point.ratio:>8.4f} {threshold:>10}" + (f" {point.items:>16,}" if whole_documents else "")
        lines.append(f"{row} {point.tokens:>18,}" + "".join(f" {point.shares[group]:>12.4f}" for group in groups))
    if groups:
        more = len(curves.groups) - len(groups)
        lines.append(
            f"Columns of groups: share of the group's tokens kept{f'; {more} smaller groups in --csv' if more else ''}."
        )
    return "\n".join(lines)


def _lines(curves: Curves) -> dict[str, tuple[list[float], list[float]]]:
    """Thresholds and kept shares of the whole and of the largest groups, for the figure."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for name, value, ratio, _, _ in curves.rows():
        thresholds, shares = found.setdefault(name, ([], []))
        thresholds.append(value)
        shares.append(ratio)
    return dict(list(found.items())[: 1 + GROUPS_SHOWN])
