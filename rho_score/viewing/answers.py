"""What the page asks for, as JSON. Every text of a store is made fit to be shown here."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rho_score.errors import InputError
from rho_score.files.arrow import as_numpy, flat_values
from rho_score.safe_text import shown_name
from rho_score.stores.selection import Selection
from rho_score.viewing.document import candidates, document, raw_id, same_document, token_text, visible_text
from rho_score.viewing.listing import Filter, documents, vocabulary
from rho_score.viewing.shown_store import Layer, ShownStore
from rho_score.viewing.text_search import MOST_FOUND, TextSearch
from rho_score.viewing.thresholds import Thresholds

Query = Mapping[str, str]
_SCALE_SHARES = (0.05, 0.5, 0.95)
_BOUNDS = ("tokens", "mean", "share", "score")


class Answers:
    """Answers the questions about some stores. Each method takes the fields of a URL's query."""

    def __init__(self, stores: list[ShownStore]) -> None:
        self.stores = stores
        self._searches = [TextSearch(shown) for shown in stores]
        self._scales: dict[tuple[int, str], list[float]] = {}

    def close(self) -> None:
        """Ends what runs in the background."""
        for search in self._searches:
            search.close()
        for shown in self.stores:
            shown.close()

    @property
    def questions(self) -> dict[str, Callable[[Query], Any]]:
        """The questions by name."""
        return {
            "stores": self.about, "progress": self.progress, "histogram": self.histogram, "cut": self.cut,
            "documents": self.documents, "document": self.document, "beside": self.beside, "scale": self.scale,
            "candidates": self.candidates, "tokens": self.tokens, "groups": self.groups,
        }  # fmt: skip

    def about(self, query: Query) -> Any:
        """What each store is."""
        return [_about(shown) for shown in self.stores]

    def progress(self, query: Query) -> Any:
        """How far each index is."""
        return [_progress(shown) for shown in self.stores]

    def groups(self, query: Query) -> Any:
        """The groups by which documents can be filtered: those that were seen so far."""
        shown = self._store(query)
        if not shown.store.grouped:
            return []
        return [{"group": i, "name": shown_name(name)} for i, name in enumerate(shown.index.group_names)]

    def histogram(self, query: Query) -> Any:
        """The chart of a ranking, of all groups or of one; null if nothing is counted yet."""
        shown = self._store(query)
        found = self._thresholds(shown, query)
        if found is None or not found.items:
            return None
        group = self._group(shown, query) if shown.index.counts_groups else None
        known = group is None or shown.index.group_names[group] in found.groups
        bars = found.distribution() if group is None or not known else found.distribution(
            shown.index.group_names[group], whole=False
        )  # fmt: skip
        if not known:
            bars.counts[:] = 0
        return {"edges": bars.edges.tolist(), "counts": bars.counts.tolist(), "items": found.items, "high": found.high}

    def cut(self, query: Query) -> Any:
        """What a threshold, or a share of the items, would keep of each group; null if nothing is counted yet.

        There are no groups where too many of them are counted as one.
        """
        shown = self._store(query)
        found = self._thresholds(shown, query)
        if found is None or not found.items:
            return None
        if "share" in query:
            share = _number(query, "share")
            if share is None or not 0 <= share <= 1:
                raise InputError(f"share must be a number from 0 to 1, got {query['share']!r}.")
            threshold = found.at_share(share)
            if threshold is None:
                threshold = math.inf if found.high else -math.inf
        else:
            threshold = _number(query, "threshold")
            if threshold is None or math.isnan(threshold):
                raise InputError("a cut needs a threshold or a share.")
        groups: list[dict[str, Any]] = [
            {
                "group": shown.index.group_number(kept.group),
                "name": shown_name(kept.group),
                "items": kept.items,
                "tokens": kept.tokens,
                "items_kept": kept.items_kept,
                "tokens_kept": kept.tokens_kept,
            }
            for kept in found.at(threshold)
        ]
        total = {name: sum(g[name] for g in groups) for name in ("items", "tokens", "items_kept", "tokens_kept")}
        groups = groups if shown.index.counts_groups else []
        return {"threshold": threshold if math.isfinite(threshold) else None, "total": total, "groups": groups}

    def documents(self, query: Query) -> Any:
        """A part of the list of documents, and how far a search for their text is."""
        number, shown = self._number_of_store(query), self._store(query)
        bounds = tuple((n, _number(query, f"{n}_min"), _number(query, f"{n}_max")) for n in _BOUNDS)
        chosen = Filter(self._group(shown, query), query.get("id", ""), bounds)
        search = None
        if text := query.get("text"):
            search = self._searches[number].find(text, chosen)
            chosen = Filter(chosen.group, chosen.id, bounds, (list(search.units), list(search.rows)))
        n, rows = documents(
            shown.index, chosen, sort=query.get("sort", "order"), descending=query.get("descending") == "1",
            offset=_whole(query, "offset", 0), limit=_whole(query, "limit", 50),
        )  # fmt: skip
        names = shown.index.group_names
        listed = [
            {
                "unit": d.unit, "row": d.row, "doc_id": shown_name(d.doc_id), "tokens": d.tokens, "scored": d.scored,
                "kept": d.kept, "mean": d.mean, "doc_score": d.doc_score,
                "group": shown_name(names[d.group]) if shown.store.grouped else None,
            }
            for d in rows
        ]  # fmt: skip
        about = search and {
            "searched": search.searched, "of": search.of, "done": search.done, "whole": search.whole,
            "error": visible_text(search.error), "full": len(search.rows) >= MOST_FOUND,
        }  # fmt: skip
        return {"n": n, "documents": listed, "search": about}

    def document(self, query: Query) -> Any:
        """One document, token by token."""
        return document(self._store(query), _whole(query, "unit", -1), _whole(query, "row", -1))

    def beside(self, query: Query) -> Any:
        """The document of another store (`other`) that has the same id; null if it has none."""
        shown, unit, row = self._store(query), _whole(query, "unit", -1), _whole(query, "row", -1)
        other = self._store({"store": query.get("other", "0")})
        place = same_document(other, shown.unit_names[unit], row, raw_id(shown, unit, row))
        return None if place is None else document(other, *place)

    def candidates(self, query: Query) -> Any:
        """The likeliest tokens at one place of a document."""
        return candidates(self._store(query), *(_whole(query, name, -1) for name in ("unit", "row", "token")))

    def scale(self, query: Query) -> Any:
        """The low, middle and high value of a layer, by which a heat map is coloured."""
        number, shown = self._number_of_store(query), self._store(query)
        layer = next((layer for layer in shown.layers if layer.key == query.get("layer")), None)
        if layer is None:
            raise InputError(f"there is no layer {query.get('layer')!r}.")
        found = self._whole_scale(shown, layer)
        if found:
            return found
        if (number, layer.key) not in self._scales:
            unit = _whole(query, "unit", 0)
            _, table = shown.row_group(layer.source, unit, _whole(query, "row", 0))
            values = as_numpy(flat_values(table[layer.column])).astype(np.float64)
            values = values[np.isfinite(values)]
            self._scales[number, layer.key] = (
                np.quantile(values, _SCALE_SHARES).tolist() if len(values) else [0.0, 0.0, 1.0]
            )
        return self._scales[number, layer.key]

    def tokens(self, query: Query) -> Any:
        """The vocabulary entries at one end of an order; null while the index is made."""
        shown = self._store(query)
        if not shown.index.progress.ready:
            return None
        entries = vocabulary(
            shown.index, sort=query.get("sort", "share"), descending=query.get("descending", "1") == "1",
            at_least=_whole(query, "at_least", 8), limit=_whole(query, "limit", 20),
        )  # fmt: skip
        return [
            {"id": e.id, "text": token_text(shown, e.id), "count": e.count, "kept": e.kept, "mean": e.mean}
            for e in entries
        ]

    def _number_of_store(self, query: Query) -> int:
        number = _whole(query, "store", 0)
        if not 0 <= number < len(self.stores):
            raise IndexError(f"there is no store {number}")
        return number

    def _store(self, query: Query) -> ShownStore:
        return self.stores[self._number_of_store(query)]

    def _thresholds(self, shown: ShownStore, query: Query) -> Thresholds | None:
        expert = shown.rankings[_whole(query, "ranking", 0)]
        return shown.thresholds(expert)

    def _group(self, shown: ShownStore, query: Query) -> int | None:
        """The number of the group that is meant; None if all are."""
        if not query.get("group"):
            return None
        number = _whole(query, "group", -1)
        if not 0 <= number < len(shown.index.group_names):
            raise IndexError(f"there is no group {number}")
        return number

    def _whole_scale(self, shown: ShownStore, layer: Layer) -> list[float]:
        """The scale by the whole store's histogram, where that counts the layer's values; else empty."""
        if layer.source or layer.column != shown.store.score_column:
            return []
        if isinstance(shown.store, Selection):
            sampled = shown.store.manifest["parts"].get("sample")
            if shown.store.summary["level"] != "token" or sampled or shown.rankings != [None]:
                return []
        found = shown.thresholds(None)
        return found.quantiles(_SCALE_SHARES) if found is not None else []


def _about(shown: ShownStore) -> Mapping[str, Any]:
    store = shown.store
    selection = store if isinstance(store, Selection) else None
    tokens = selection is None or selection.summary["level"] == "token"
    sampled = store.manifest["parts"].get("sample")
    return {
        "place": shown.place,
        "name": shown_name(store.folder.url.rstrip("/").rpartition("/")[2]),
        "kind": store.kind,
        "fingerprint": store.manifest["fingerprint"],
        "model": shown_name(str(store.manifest.get("model", ""))),
        "version": shown_name(str(store.manifest.get("rho_score", ""))),
        "score": store.score_column,
        "label": store.score_label,
        "ranked": f"rank of {sampled} sampling" if sampled else store.score_label if tokens else "document score",
        "unit": "nats" if store.in_nats and not sampled else "",
        "level": "token" if tokens else "document",
        "comparable": tokens and not sampled,
        "high": selection is None or bool(selection.summary["high_first"]),
        "exact": (selection.summary["bits"] if selection else store.loss_bits) == 16,  # type: ignore[union-attr]
        "grouped": store.grouped,
        "rankings": [shown_name(name, "") for name in shown.rankings],
        "layers": [vars(layer) for layer in shown.layers],
        "behind": list(shown.behind),
        "masked": selection is not None,
        "totals": _totals(shown),
        "thresholds": [
            {
                "ranking": shown.rankings.index(row["expert"]),
                "group": None if row["group"] is None else shown.index.group_number(row["group"]),
                "name": None if row["group"] is None else shown_name(row["group"]),
                "threshold": row["threshold"],
            }
            for row in (selection.summary["thresholds"] if selection else [])
        ],
        "stored": [
            {
                "group": shown.index.group_number(group),
                "name": shown_name(group),
                "documents": c.documents,
                "documents_kept": c.documents_kept,
                "tokens": c.tokens,
                "kept": c.tokens_kept,
            }
            for group, c in shown.group_counts.items()
        ],
        "progress": _progress(shown),
    }


def _totals(shown: ShownStore) -> Mapping[str, Any]:
    if isinstance(shown.store, Selection):
        counts = shown.group_counts.values()
        return {
            "documents": sum(c.documents for c in counts), "tokens": sum(c.tokens for c in counts),
            "kept": sum(c.tokens_kept for c in counts),
        }  # fmt: skip
    total = shown.store.summary
    mean = total["total_nats"] / total["losses"] if total["losses"] else None
    return {"documents": total["scored"], "tokens": total["tokens"], "quarantined": total["quarantined"], "mean": mean}


def _progress(shown: ShownStore) -> Mapping[str, Any]:
    now = shown.index.progress
    return {
        "units": now.units, "of": now.of, "documents": now.documents, "ready": now.ready, "error": visible_text(now.error),
        "version": shown.index.version,
    }  # fmt: skip


def _number(query: Query, name: str) -> float | None:
    if not (text := query.get(name, "")):
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} must be a number, got {shown_name(text)!r}.") from None


def _whole(query: Query, name: str, default: int) -> int:
    if not (text := query.get(name, "")):
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise InputError(f"{name} must be a whole number, got {shown_name(text)!r}.")
    return int(text)
