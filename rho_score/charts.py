"""Draws the figures of the report and the notebook with matplotlib."""

import base64
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rho_score.errors import InputError
from rho_score.files.paths import check_writable
from rho_score.safe_text import visible

INK, GREY, BASE, REF, KEPT = "#1b1f24", "#8a929b", "#4393c3", "#d6604d", "#2f7d5b"
_COLOURS = (REF, BASE, KEPT, "#e8a33d", "#7b5ea7", "#8c6d46", "#c05a9e", GREY, "#5aa9a5", INK)
MOST_INTERVALS = 40

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a group may have the name $x$
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "legend.frameon": False,
}


def histogram_figure(
    values: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    label: str,
    threshold: float | None = None,
    high: bool = True,
    items: str = "tokens",
    unit: str | None = "nats",
    bins: int = 80,
) -> Figure:
    """Distributions of scores.

    values: the scores and their counts, by the name of the distribution; at most ten are drawn.
    label: the kind of score. threshold: drawn as a line. high: True tints the side above the
    threshold as kept, False the side below it. unit: of the scores; None if they have none.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        every = np.concatenate([scores[counts > 0] for scores, counts in values.values()])
        weights = np.concatenate([counts[counts > 0] for _, counts in values.values()])
        low, top = weighted_quantiles(every, weights, (0.002, 0.998))
        edges = np.linspace(low, max(top, low + 1e-3), bins + 1)
        for (name, (scores, counts)), colour in zip(values.items(), _COLOURS, strict=False):
            share = np.histogram(np.clip(scores, low, top), edges, weights=counts / counts.sum())[0]
            axes.stairs(
                share * 100, edges, fill=len(values) == 1, color=colour, alpha=0.75, label=_label(name), linewidth=1.5
            )
        if threshold is not None and np.isfinite(threshold):
            axes.axvline(threshold, color=INK, linewidth=1.2)
            axes.axvspan(*((threshold, edges[-1]) if high else (edges[0], threshold)), color=KEPT, alpha=0.10, zorder=0)
            place = (min(max(threshold, edges[0]), edges[-1]) - edges[0]) / (edges[-1] - edges[0])
            side = "left" if place < 0.2 else "right" if place > 0.8 else "center"
            axes.annotate(
                f"threshold {threshold:.4g}", (place, 1), xycoords="axes fraction",
                xytext=(0, 4), textcoords="offset points", color=INK, va="bottom", ha=side,
            )  # fmt: skip
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel(f"{label} ({unit})" if unit else label)
        axes.set_ylabel(f"% of {items}")
        if len(values) > 1:
            axes.legend()
    return figure


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, quantiles: Sequence[float]) -> list[float]:
    """The values at these shares (0 to 1) of the total weight. values, weights: [n], unsorted."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    at = np.searchsorted(total, np.array(quantiles) * total[-1]).clip(0, len(values) - 1)
    return [float(v) for v in values[order][at]]


def bars_figure(shares: Mapping[str, float], *, label: str, reference: float | None = None) -> Figure:
    """Horizontal bars, with the largest on top.

    reference: the value of the whole, drawn as a dashed line.
    """
    with mpl.rc_context(_STYLE):
        ranked = sorted(shares.items(), key=lambda item: item[1])
        figure, axes = _figure(height=0.42 * len(ranked) + 1.0)
        names = [_label(name) for name, _ in ranked]
        drawn = axes.barh(range(len(ranked)), [share for _, share in ranked], color=KEPT, alpha=0.8, height=0.62)
        axes.set_yticks(range(len(ranked)), names)
        if reference is not None:
            axes.axvline(reference, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # of the line
        axes.bar_label(drawn, fmt="%.3g", padding=4, color=INK, bbox=clear, zorder=4)
        axes.set_xlabel(label)
        axes.margins(x=0.12)
    return figure


def position_figure(position: np.ndarray, value: np.ndarray, *, label: str) -> Figure:
    """The mean of `value` by position in the document, in bins that double in width.

    position: int[n], from 0. value: float[n], NaN where there is none.
    """
    edges = np.unique(np.concatenate([[0], 2 ** np.arange(0, 1 + int(np.ceil(np.log2(max(2, position.max() + 1)))))]))
    which = np.digitize(position, edges) - 1
    present = ~np.isnan(value)
    counts = np.bincount(which[present], minlength=len(edges))
    sums = np.bincount(which[present], value[present], minlength=len(edges))
    used = counts > 0
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        axes.plot(
            np.maximum(edges[used], 0.5),
            sums[used] / counts[used],
            color=REF,
            marker="o",
            markersize=4,
            linewidth=1.5,
        )
        axes.set_xscale("log", base=2)
        shown = edges[used][:: 1 + used.sum() // 9]
        axes.set_xticks(np.maximum(shown, 0.5), [f"{place:,}" for place in shown.tolist()])
        axes.minorticks_off()
        axes.set_xlabel("position in the document (tokens, from)")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    return figure


def curve_figure(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, label: str, items: str) -> Figure:
    """The share kept at each threshold, with one line per group.

    curves: the thresholds and the shares (0 to 1), by name; the whole corpus comes first.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(height=3.6)
        whole = next(iter(curves.values()))
        shares = np.diff(np.array(whole[1]), prepend=0)
        low, top = weighted_quantiles(np.array(whole[0]), shares, (0.002, 0.998))
        colours = [INK, *mpl.color_sequences["tab10"]]
        for (name, (thresholds, kept)), colour in zip(curves.items(), colours, strict=False):
            axes.plot(
                thresholds,
                np.array(kept) * 100,
                color=colour,
                linewidth=2 if name == next(iter(curves)) else 1.3,
                label=_label(name),
            )
        axes.set_xlim(low, max(top, low + 1e-3))
        axes.set_ylim(0, 100)
        axes.set_xlabel(f"threshold, {label}")
        axes.set_ylabel(f"% of {items} kept")
        axes.grid(alpha=0.25)
        if len(curves) > 1:
            axes.legend(fontsize=8)
    return figure


def shares_figure(shares: Sequence[tuple[str, Mapping[str, float]]]) -> Figure:
    """Stacked bars of the shares of tokens in each category, with one bar per group.

    shares: the shares (0 to 1) by category, for each group's name. Only the first 20 are drawn.
    """
    with mpl.rc_context(_STYLE):
        shown = shares[:20]
        figure, axes = _figure(height=0.42 * len(shown) + 1.2)
        left = np.zeros(len(shown))
        for kind, colour in zip(shown[0][1] if shown else [], (REF, "#e8a33d", KEPT, BASE), strict=False):
            part = np.array([of_one[kind] * 100 for _, of_one in shown])
            drawn = axes.barh(range(len(shown)), part, left=left, color=colour, alpha=0.85, height=0.66, label=kind)
            axes.bar_label(
                drawn, [f"{p:.0f}" if p >= 4 else "" for p in part], label_type="center", color="white", fontsize=8
            )
            left += part
        axes.set_yticks(range(len(shown)), [_label(name) for name, _ in shown])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of tokens")
        axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def lines_figure(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x: str, y: str) -> Figure:
    """One line for each name, through points of which NaN is left out; at most 20 lines.

    x, y: what the axes say.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(height=3.6)
        for name, (places, values) in list(lines.items())[:20]:
            axes.plot(places, values, label=_label(name), linewidth=1.5, marker="." if len(places) < 30 else "")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(lines) > 1:
            axes.legend(fontsize=8)
        figure.tight_layout()
    return figure


def intervals_figure(intervals: Sequence[tuple[str, float, float, float]], *, label: str, middle: float) -> Figure:
    """Points with their intervals, from the top down; the first `MOST_INTERVALS` are drawn.

    intervals: name, value, low and high; an infinite interval is not drawn. middle: the value of no
    difference, drawn as a dashed line.
    """
    with mpl.rc_context(_STYLE):
        shown = intervals[:MOST_INTERVALS]
        figure, axes = _figure(height=0.34 * len(shown) + 1.0)
        for row, (_, value, low, high) in enumerate(shown):
            axes.plot([value], [row], "o", color=REF, markersize=5)
            if np.isfinite([low, high]).all():
                axes.plot([low, high], [row, row], color=REF, linewidth=1.6)
        axes.axvline(middle, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_yticks(range(len(shown)), [_label(name) for name, *_ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.25)
    return figure


def _label(name: str) -> str:
    """A name as a figure shows it.

    It has no control characters, which XML forbids, and no leading _, which a legend would hide.
    """
    name = visible(name)
    name = name if len(name) <= 28 else name[:27] + "…"
    return f"\u200a{name}" if name.startswith("_") else name


def image(figure: Figure, kind: str) -> bytes:
    """The content of an image file of the figure. The same figure gives the same bytes.

    kind: "svg", "png" or "pdf".
    """
    sink = io.BytesIO()
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}}.get(kind, {"Date": None, "Creator": None})
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "rho-score"}):
        figure.savefig(sink, format=kind, bbox_inches="tight", dpi=150, metadata=metadata)
    return sink.getvalue()


def data_url(figure: Figure) -> str:
    """The figure as an SVG image in a data URL."""
    return "data:image/svg+xml;base64," + base64.b64encode(image(figure, "svg")).decode()


def _figure(height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height))
    return figure, figure.subplots()


def image_kind(name: str) -> str:
    """The image format that a file's name ends with; raises InputError if it is not supported."""
    kind = PurePosixPath(name).suffix.lstrip(".").lower()
    if kind not in ("svg", "png", "pdf"):
        raise InputError(f"--plot {name}: the name of a figure must end with .svg, .png or .pdf.")
    return kind


def check_plot(place: str) -> None:
    """Checks before a run that a figure can be drawn and written to `place`.

    Raises:
        InputError: the name has no supported ending, or the place cannot be written.
        ImportError: matplotlib is not installed.
    """
    image_kind(place)
    check_writable("--plot", place, file=True)
    importlib.import_module("rho_score.charts")  # matplotlib is an extra
