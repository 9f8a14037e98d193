"""Makes one self-contained HTML page about a store: its counts, distributions and single tokens."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from rho_score import charts
from rho_score.config import ReportConfig
from rho_score.errors import InputError
from rho_score.files.arrow import as_numpy
from rho_score.files.folder import Folder
from rho_score.files.paths import check_writable
from rho_score.files.urls import without_credentials
from rho_score.reporting import heatmap
from rho_score.reporting.groups import (
    MOST_ROWS,
    GroupRow,
    groups_figure,
    kept_by_group,
    left_out,
    sampled_by_group,
)
from rho_score.reporting.html import publish_page
from rho_score.reporting.picked_documents import DocumentStats, pick_documents
from rho_score.reporting.run_page import run_report
from rho_score.reporting.sample import TokenSample, sample_tokens, scores_behind, token_texts
from rho_score.safe_text import shown_name, visible
from rho_score.stores.counts import group_counts_in
from rho_score.stores.lineage import ancestry
from rho_score.stores.manifest import read_manifest
from rho_score.stores.open import open_store
from rho_score.stores.score_set import WITHOUT
from rho_score.stores.selection import Selection
from rho_score.stores.store import Store
from rho_score.stores.tokenizer import load_store_tokenizer

RARE = 8  # tokens that are seen less often are not ranked
RANKED = 20


@dataclass(frozen=True)
class _TokenRow:
    """A vocabulary entry in the tables of extremes. value: what the table is ranked by."""

    text: str
    count: int
    value: float
    mean_score: float


def report(config: ReportConfig) -> str:
    """Writes the page; returns its path or URL.

    Raises:
        InputError: `store` is not a finished store, or `ref` or `base` is not a score set that it
            was made from.
    """
    check_writable("OUTPUT", config.output, file=True)
    if read_manifest(Folder(config.store))["kind"] == "training run":
        return run_report(config)
    if config.compare:
        raise InputError(f"--compare is for training runs, but {config.store} is none.")
    store = open_store(config.store)
    behind = scores_behind(store, ref=config.ref, base=config.base) if isinstance(store, Selection) else {}
    sample = sample_tokens(store, n_tokens=config.sample_tokens, ref=behind.get("ref"), base=behind.get("base"))
    tokenizer = load_store_tokenizer(store)
    groups = _groups(store, sample)
    scale = _scale(store, sample)
    return publish_page(
        config.output,
        "report.html.j2",
        kind=store.manifest["kind"],
        place=visible(without_credentials(config.store)),
        manifest=store.manifest,
        facts=_facts(store),
        groups=groups[:MOST_ROWS],
        groups_note=" ".join(filter(None, [_counted(store, sample), left_out(groups, MOST_ROWS)])),
        figures=_figures(store, sample, groups),
        extremes=_extremes(store, sample, tokenizer),
        documents=_documents(store, sample, tokenizer, config.documents, scale),
        legend=heatmap.legend(**scale, masked=isinstance(store, Selection)) if scale else "",
        score=store.score_column if store.in_nats else store.score_label,
        nats=store.in_nats,
        sample_note=_sample_note(sample),
        losses_known=bool(behind) or not isinstance(store, Selection),
        ancestry=ancestry(store.folder),
    )


def _sample_note(sample: TokenSample) -> str:
    """What the sample is, to follow "in" or "among"."""
    counts = f"{len(sample.input_ids):,} tokens of {len(sample.lengths):,} documents"
    return f"all {counts}" if sample.whole else f"{counts} in {sample.n_units:,} units drawn at random"


def _counted(store: Store, sample: TokenSample) -> str:
    return "Counted exactly." if isinstance(store, Selection) else f"Counted in {_sample_note(sample)}."


def _facts(store: Store) -> list[tuple[str, str]]:
    """The counts on top of the page."""
    if isinstance(store, Selection):
        groups = group_counts_in(store.summary).values()
        tokens, kept = sum(g.tokens for g in groups), sum(g.tokens_kept for g in groups)
        facts = [
            ("documents", f"{sum(g.documents for g in groups):,}"),
            ("tokens", f"{tokens:,}"),
            ("tokens kept", f"{kept:,}"),
            ("share kept", f"{kept / tokens:.2%}" if tokens else "–"),
        ]
        cuts = [row["threshold"] for row in store.summary["thresholds"]]
        known = [cut for cut in cuts if cut is not None]
        if known:
            span = f"{min(known):.4f}" if min(known) == max(known) else f"{min(known):.3f} … {max(known):.3f}"
            facts.append(("threshold, nats" if store.in_nats else "threshold", span))
        return facts
    total = store.summary
    mean = total["total_nats"] / total["losses"] if total["losses"] else float("nan")
    return [
        ("documents scored", f"{total['scored']:,}"),
        ("quarantined", f"{total['quarantined']:,}"),
        ("tokens", f"{total['tokens']:,}"),
        *([("documents without values", f"{total[WITHOUT]:,}")] if WITHOUT in total else []),
        (f"mean {store.score_label}" + ", nats" * store.in_nats, f"{mean:{'.4f' if store.in_nats else '.6g'}}"),
        *([("perplexity", f"{np.exp(mean):,.1f}")] if store.score_label == "loss" else []),
    ]


def _groups(store: Store, sample: TokenSample) -> list[GroupRow]:
    """The groups, the one with the most tokens first; empty without groups."""
    if not store.grouped:
        return []
    return kept_by_group(store) if isinstance(store, Selection) else sampled_by_group(sample)


def _figures(store: Store, sample: TokenSample, groups: list[GroupRow]) -> list[dict[str, str]]:
    """The title, note and image of each figure about this store."""
    figures = []
    selection = store if isinstance(store, Selection) else None
    if selection:
        table = selection.histogram()
        cuts = selection.summary["thresholds"]
        threshold = cuts[0]["threshold"] if len(cuts) == 1 else None
        sampled = selection.manifest["parts"].get("sample")
        label = f"rank of {sampled} sampling" if sampled else store.score_label
        if len(table):
            what = "tokens" if selection.summary["level"] == "token" else "documents"
            figure = charts.histogram_figure(
                _by_expert(table),
                label=label,
                threshold=threshold,
                high=selection.summary["high_first"],
                items=what,
                unit="nats" if store.in_nats else None,
            )
            figures.append(
                _figure(
                    figure,
                    f"Distribution of {label}",
                    f"All {what}, counted exactly. The kept side is tinted.",
                )
            )
    losses = {"reference": sample.ref_loss, "base": sample.base_loss} if selection else {"loss": sample.score}
    what = store.score_label if not selection else "loss" if store.in_nats else "imported value"
    mean = f"mean {what} (nats)" if store.in_nats else f"mean {what}"
    present = {name: v[~np.isnan(v)] for name, v in losses.items() if v is not None}
    present = {name: v for name, v in present.items() if len(v)}
    if present and not (selection and store.score_column == "loss"):
        weighted = {name: (v, np.ones(len(v))) for name, v in present.items()}
        histogram = charts.histogram_figure(weighted, label=what, unit="nats" if store.in_nats else None)
        figures.append(_figure(histogram, f"Distribution of {what}", "Sampled tokens."))
    bars = groups_figure(groups, label="share of tokens kept" if selection else mean) if groups else None
    if bars:
        title = "Share kept per group" if selection else f"Mean {what} per group"
        line = "The dashed line shows the whole." if selection else ""
        figures.append(_figure(bars[0], title, " ".join(filter(None, [_counted(store, sample), line, bars[1]]))))
    if len(sample.input_ids):
        value = sample.score if sample.mask is None else sample.mask.astype(np.float64)
        label = mean if sample.mask is None else "share of tokens kept"
        figure = charts.position_figure(sample.position, value, label=label)
        figures.append(
            _figure(
                figure,
                f"{what.capitalize() if sample.mask is None else 'Share kept'} by position",
                "Sampled tokens. Each bin is twice as wide as the one before.",
            )
        )
    return figures


def _by_expert(histogram: pa.Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The values and counts of each ranking. More than three rankings are put together."""
    names = histogram["expert"].unique().to_pylist()
    if len(names) > 3 or names == [None]:
        return {"all": (as_numpy(histogram["value"]), as_numpy(histogram["count"]))}
    parts = {name: histogram.filter(pc.equal(histogram["expert"], name)) for name in names}
    return {name: (as_numpy(part["value"]), as_numpy(part["count"])) for name, part in parts.items()}


def _figure(figure: Any, title: str, note: str) -> dict[str, str]:
    return {"title": title, "note": note, "url": charts.data_url(figure)}


def _extremes(
    store: Store, sample: TokenSample, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, list[_TokenRow]]]:
    """Two tables of vocabulary entries, each with its title.

    They show the most and the least kept entries of a selection, or the entries of a score set with
    the highest and the lowest mean loss.
    """
    if not len(sample.input_ids):
        return []
    present = ~np.isnan(sample.score)
    ids, scores = sample.input_ids[present], sample.score[present]
    counts = np.bincount(ids)
    means = np.bincount(ids, scores) / np.maximum(counts, 1)
    ranked = means if sample.mask is None else np.bincount(ids, sample.mask[present]) / np.maximum(counts, 1)
    often = np.flatnonzero(counts >= RARE)
    order = often[np.lexsort((-counts[often], ranked[often]))]
    names = (
        (f"highest mean {store.score_label}", f"lowest mean {store.score_label}")
        if sample.mask is None
        else ("most kept", "least kept")
    )

    def rows(chosen: np.ndarray) -> list[_TokenRow]:
        texts = (
            [heatmap.visible(text).replace("\n", "") for text in token_texts(tokenizer, chosen)] if len(chosen) else []
        )
        return [
            _TokenRow(t, int(counts[i]), float(ranked[i]), float(means[i])) for t, i in zip(texts, chosen, strict=True)
        ]

    last = often[np.lexsort((-counts[often], -ranked[often]))]
    return [(names[0], rows(last[:RANKED])), (names[1], rows(order[:RANKED]))]


def _scale(store: Store, sample: TokenSample) -> dict[str, Any]:
    """The colours of the heat maps, as arguments of `heatmap.heat_map`; empty without a score."""
    present = sample.score[np.isfinite(sample.score)]
    if not len(present):
        return {}
    low, middle, high = np.quantile(present, [0.05, 0.5, 0.95])
    if isinstance(store, Selection):
        cuts = [
            cut for row in store.summary["thresholds"] if (cut := row["threshold"]) is not None and np.isfinite(cut)
        ]
        of_tokens = store.summary["level"] == "token" and not store.manifest["parts"].get("sample")
        middle = cuts[0] if len(cuts) == 1 and of_tokens else middle
    spread = float(max(high - middle, middle - low))
    return {"score_name": store.score_label, "middle": float(middle), "spread": spread, "nats": store.in_nats}


def _documents(
    store: Store, sample: TokenSample, tokenizer: PreTrainedTokenizerBase, n_documents: int, scale: dict[str, Any]
) -> list[dict[str, Any]]:
    """Heat maps of documents, by the way in which they were picked."""
    if not scale:
        return []
    stats = DocumentStats.of(sample)
    high = not isinstance(store, Selection) or bool(store.summary["high_first"])
    folded = max(0, heatmap.MOST_SHOWN // max(n_documents, 1) - heatmap.AT_ONCE)

    def row(i: int) -> dict[str, Any]:
        document = sample.document(i)
        return {
            "doc_id": shown_name(document.doc_id),
            "group": None if document.group is None else shown_name(document.group),
            "tokens": len(document.input_ids),
            "scored": int(stats.scored[i]),
            "kept": None if stats.share is None else float(stats.share[i]),
            "mean": float(stats.mean[i]),
            "html": heatmap.heat_map(document, tokenizer, **scale, max_tokens=heatmap.AT_ONCE, folded=folded),
        }

    picked = pick_documents(sample, stats, n_documents, score_name=store.score_label, high=high)
    return [{"title": p.title, "note": p.note, "rows": [row(i) for i in p.documents.tolist()]} for p in picked]
