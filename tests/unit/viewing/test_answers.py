"""What the page is told, beside numpy over the whole store."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from rho_score.errors import InputError
from rho_score.stores.open import open_store
from rho_score.viewing.answers import Answers
from tests.unit.viewing.conftest import Stores, tables

Open = Callable[..., Answers]
EVERY = {"selection": "excess", "ref": "loss", "low": "loss"}


def _scores(row: dict[str, Any], column: str) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in row[column]], np.float64)


def _flat(url: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The scores of all tokens, and the group of each."""
    rows = [row for _, _, row in tables(url)]
    groups = [str(row["group"]) for row in rows for _ in row["input_ids"]]
    return np.concatenate([_scores(row, column) for row in rows]), np.array(groups)


@pytest.mark.parametrize("store", EVERY)
def test_a_threshold_keeps_what_a_comparison_keeps(stores: Stores, opened: Open, store: str) -> None:
    values, groups = _flat(stores.url(store), EVERY[store])
    high = store != "low"
    points = [0.0, -1.5, 2.25, 100.0, -100.0, *np.unique(values[~np.isnan(values)])[::37]]
    for threshold in points:
        found = opened(store).cut({"threshold": repr(float(threshold))})
        with np.errstate(invalid="ignore"):
            kept = values >= threshold if high else values <= threshold
        assert found["total"]["items_kept"] == found["total"]["tokens_kept"] == int(kept.sum())
        assert found["total"]["items"] == int((~np.isnan(values)).sum())
        for group in found["groups"]:
            mine = groups == ("None" if group["name"] == "(none)" else group["name"])
            assert (group["items_kept"], group["items"]) == (
                int(kept[mine].sum()),
                int((mine & ~np.isnan(values)).sum()),
            )


@pytest.mark.parametrize("store", EVERY)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.25, 0.4, 0.999, 1.0])
def test_a_share_is_kept_by_the_tightest_threshold(stores: Stores, opened: Open, store: str, share: float) -> None:
    values = _flat(stores.url(store), EVERY[store])[0]
    values = np.sort(values[~np.isnan(values)])
    values = values[::-1] if store != "low" else values
    wanted = round(share * len(values))
    found = opened(store).cut({"share": str(share)})
    if wanted == 0:
        assert found["threshold"] is None
        assert found["total"]["items_kept"] == 0
    else:
        assert found["threshold"] == values[wanted - 1]


def test_documents_are_counted_where_they_were_ranked(stores: Stores, opened: Open) -> None:
    rows = [row for _, _, row in tables(stores.url("documents"))]
    scores = np.array([np.nan if row["doc_score"] is None else row["doc_score"] for row in rows])
    for threshold in (0.0, -0.5, 1.0):
        kept = scores >= threshold
        found = opened("documents").cut({"threshold": str(threshold)})["total"]
        assert found["items_kept"] == int(kept.sum())
        assert found["items"] == int((~np.isnan(scores)).sum())
        assert found["tokens_kept"] == sum(len(row["input_ids"]) for row, k in zip(rows, kept, strict=True) if k)


@pytest.mark.parametrize("store", EVERY)
def test_the_chart_counts_every_token_once(stores: Stores, opened: Open, store: str) -> None:
    values, groups = _flat(stores.url(store), EVERY[store])
    answers = opened(store)
    names = answers.stores[0].index.group_names
    for group in (None, *range(len(names))):
        found = answers.histogram({} if group is None else {"group": str(group)})
        mine = ~np.isnan(values) & (True if group is None else groups == str(names[group]))
        inside = np.clip(values[mine], found["edges"][0], found["edges"][-1])
        assert found["counts"] == np.histogram(inside, found["edges"])[0].tolist()


@pytest.mark.parametrize("store", [*EVERY, "documents"])
@pytest.mark.parametrize("descending", ["0", "1"])
@pytest.mark.parametrize("sort", ["order", "tokens", "mean", "share", "id", "group"])
def test_the_list_is_sorted_and_paged(stores: Stores, opened: Open, store: str, sort: str, descending: str) -> None:
    column = EVERY.get(store, "excess")
    rows = []
    for unit, number, row in tables(stores.url(store)):
        scores = _scores(row, column)
        known = scores[~np.isnan(scores)]
        mean = float(np.float32(known.sum() / len(known))) if len(known) else None
        n, kept = len(row["input_ids"]), sum(row.get("mask") or [])
        key = {
            "order": (unit, number),
            "tokens": n,
            "mean": mean,
            "share": kept / n if n else None,
            "id": row["doc_id"],
            "group": row["group"],
        }[sort]
        rows.append((key, unit, number, row["doc_id"], n, len(known), kept, mean))
    rows.sort(key=lambda row: row[1:3])
    with_key, without = [row for row in rows if row[0] is not None], [row for row in rows if row[0] is None]
    with_key.sort(key=lambda row: row[0], reverse=descending == "1")  # stable: corpus order among equals
    expected = [row[1:] for row in with_key + without]
    found = []
    for offset in range(0, len(rows) + 7, 7):
        page = opened(store).documents({"sort": sort, "descending": descending, "offset": str(offset), "limit": "7"})
        assert page["n"] == len(rows)
        found += page["documents"]
    assert [(d["unit"], d["row"], d["doc_id"], d["tokens"], d["scored"], d["kept"]) for d in found] == [
        row[:6] for row in expected
    ]
    for document, (*_, mean) in zip(found, expected, strict=True):
        assert document["mean"] == (None if mean is None else pytest.approx(mean, rel=1e-6))


def test_documents_are_filtered(stores: Stores, opened: Open) -> None:
    answers = opened("selection")
    names = answers.stores[0].index.group_names
    rows = [row for _, _, row in tables(stores.url("selection"))]

    def ids(query: dict[str, str]) -> list[str]:
        return [d["doc_id"] for d in answers.documents({"limit": "500", **query})["documents"]]

    for number, name in enumerate(names):
        assert ids({"group": str(number)}) == [row["doc_id"] for row in rows if row["group"] == name]
    assert ids({"id": "doc-1"}) == [row["doc_id"] for row in rows if "Doc-1" in row["doc_id"]]
    assert ids({"tokens_min": "10", "tokens_max": "20"}) == [
        r["doc_id"] for r in rows if 10 <= len(r["input_ids"]) <= 20
    ]
    kept = [sum(row["mask"]) / len(row["mask"]) if row["mask"] else math.nan for row in rows]
    assert ids({"share_min": "0.5"}) == [row["doc_id"] for row, share in zip(rows, kept, strict=True) if share >= 0.5]
    group = str(names.index("b"))
    assert ids({"group": group, "id": "5", "tokens_min": "1"}) == [
        row["doc_id"] for row in rows if row["group"] == "b" and "5" in row["doc_id"] and row["input_ids"]
    ]


def test_a_document_has_every_number_of_both_models(stores: Stores, opened: Open, tokenizer: Any) -> None:
    answers = opened("selection")
    assert [layer["key"] for layer in answers.about({})[0]["layers"]] == ["excess", "mask", "base.loss", "ref.loss"]
    for at, (unit, number, row) in enumerate(tables(stores.url("selection"))):
        found = answers.document({"unit": str(unit), "row": str(number)})
        ref, base = stores.documents[at]
        assert (found["doc_id"], found["ids"], found["tokens"]) == (ref.doc_id, ref.ids, len(ref.ids))
        assert found["values"]["mask"] == [int(x) for x in row["mask"]]
        for key, expected in (("excess", row["excess"]), ("ref.loss", ref.loss), ("base.loss", base.loss)):
            assert found["values"][key] == [None if x is None else pytest.approx(x, rel=1e-5) for x in expected]
        text = "".join(found["text"]).replace("↵\n", "\n").replace("⇥\t", "\t")
        assert text == stores.texts[at] == tokenizer.decode(ref.ids)
        assert found["starts"] == sorted(set(found["starts"]))
        assert not any("\ufffd" in piece for piece in found["text"])


def test_the_document_of_another_store_is_found_by_its_id(stores: Stores, opened: Open) -> None:
    answers = opened("selection", "ref", "documents")
    for unit, row in ((0, 3), (4, 2)):
        mine = answers.document({"unit": str(unit), "row": str(row)})
        for other in ("1", "2"):
            beside = answers.beside({"unit": str(unit), "row": str(row), "other": other})
            assert (beside["doc_id"], beside["ids"]) == (mine["doc_id"], mine["ids"])


@pytest.mark.parametrize("query", ["needle", "NEEDLE", "東京", "café 東京", "THRESHOLD hist", "it needle", "nowhere"])
def test_a_text_is_found_where_it_is(stores: Stores, opened: Open, query: str) -> None:
    def lowered(text: str) -> str:
        return "".join(c.lower() if c.isascii() else c for c in text)

    expected = [f"Doc-{i}" for i, text in enumerate(stores.texts) if lowered(query) in lowered(text)]
    answers = opened("selection")
    found = _searched(answers, {"text": query, "limit": "100"})
    assert [d["doc_id"] for d in found["documents"]] == expected
    assert found["search"] == {"searched": 60, "of": 60, "done": True, "whole": True, "error": "", "full": False}
    group = answers.stores[0].index.group_names.index("b")
    found = _searched(answers, {"text": query, "group": str(group), "sort": "mean"})
    assert sorted(d["doc_id"] for d in found["documents"]) == sorted(i for i in expected if int(i[4:]) % 4 == 1)


def _searched(answers: Answers, query: dict[str, str]) -> Any:
    while not (found := answers.documents(query))["search"]["done"]:
        pass
    return answers.documents(query) if found else None


@pytest.mark.parametrize(
    ("store", "sort"), [("selection", "share"), ("selection", "mean"), ("ref", "mean"), ("ref", "count")]
)
def test_the_vocabulary_is_counted_in_the_whole_store(
    stores: Stores, opened: Open, tokenizer: Any, store: str, sort: str
) -> None:
    column = EVERY[store]
    every: dict[int, list[tuple[float, bool]]] = {}
    for _, _, row in tables(stores.url(store)):
        for i, score, kept in zip(
            row["input_ids"], row[column], row.get("mask") or [False] * len(row["input_ids"]), strict=True
        ):
            if score is not None:
                every.setdefault(i, []).append((score, kept))
    ranked = []
    for i, tokens in every.items():
        if len(tokens) >= 8:
            n, kept, mean = len(tokens), sum(k for _, k in tokens), sum(s for s, _ in tokens) / len(tokens)
            ranked.append(({"share": kept / n, "mean": mean, "count": n}[sort], n, i, kept, mean))
    ranked.sort(key=lambda row: (-row[0], -row[1], row[2]))
    found = opened(store).tokens({"sort": sort, "limit": "15"})
    assert [(t["id"], t["count"], t["kept"]) for t in found] == [(i, n, kept) for _, n, i, kept, _ in ranked[:15]]
    assert [t["mean"] for t in found] == pytest.approx([row[4] for row in ranked[:15]])
    assert not any("\ufffd" in t["text"] for t in found)
    whole = {t["id"]: t["text"] for t in found if "\ufffd" not in tokenizer.decode([t["id"]])}
    assert whole == {i: tokenizer.decode([i]).replace("\n", "↵\n").replace("\t", "⇥\t") for i in whole}


def test_a_finished_index_is_read_again(stores: Stores, opened: Open, tmp_path: Any) -> None:
    from rho_score.config import ViewConfig
    from rho_score.viewing.job import open_answers

    config = ViewConfig(store=stores.url("ref"), cache=str(tmp_path / "new" / "cache"))
    answers = []
    for _ in range(2):
        opened_again = open_answers(config)
        opened_again.stores[0].index.wait()
        answers.append([opened_again.cut({"threshold": "1"}), opened_again.documents({}), opened_again.tokens({})])
        opened_again.close()
    assert (
        answers[0]
        == answers[1]
        == [opened("ref").cut({"threshold": "1"}), opened("ref").documents({}), opened("ref").tokens({})]
    )
    assert [path.suffix for path in (tmp_path / "new" / "cache").iterdir()] == [".duckdb"]


def test_what_is_told_of_a_store_is_what_it_holds(stores: Stores, opened: Open) -> None:
    about = opened("selection").about({})[0]
    groups = open_store(stores.url("selection")).summary["groups"]
    assert about["totals"]["kept"] == sum(row["tokens_kept"] for row in groups)
    assert about["behind"] == ["base", "ref"]
    assert orjson.loads(orjson.dumps(about)) == about


def test_a_selection_that_no_threshold_made_is_shown_as_it_is(stores: Stores, opened: Open) -> None:
    answers = opened("by-document")
    assert answers.about({})[0]["thresholds"] == []
    kept: dict[str, int] = {}
    for _, _, row in tables(stores.url("by-document")):
        kept[str(row["group"] or "(none)")] = kept.get(str(row["group"] or "(none)"), 0) + sum(row["mask"])  # type: ignore[call-overload]
    assert {row["name"]: row["kept"] for row in answers.about({})[0]["stored"]} == kept


@pytest.mark.parametrize(
    ("question", "query", "words"),
    [
        ("document", {"unit": "0", "row": "99999"}, "no row"),
        ("document", {"unit": "77", "row": "0"}, "no row 0 of unit 77"),
        ("document", {}, "no row"),
        ("document", {"unit": "1.5"}, "whole number"),
        ("documents", {"sort": "; drop table documents"}, "cannot be sorted"),
        ("documents", {"group": "99"}, "no group 99"),
        ("documents", {"mean_min": "many"}, "mean_min must be a number"),
        ("documents", {"text": "x" * 501}, "at most 500"),
        ("cut", {}, "a threshold or a share"),
        ("cut", {"share": "60"}, "from 0 to 1"),
        ("cut", {"threshold": "nan"}, "threshold"),
        ("cut", {"threshold": "0", "ranking": "3"}, "out of range"),
        ("scale", {"layer": "nothing"}, "no layer"),
        ("tokens", {"sort": "x"}, "cannot be sorted"),
        ("stores", {"store": "5"}, ""),
        ("documents", {"store": "5"}, "no store 5"),
    ],
)
def test_a_wrong_question_is_refused(opened: Open, question: str, query: dict[str, str], words: str) -> None:
    answers = opened("selection")
    if not words:
        assert answers.questions[question](query)
        return
    with pytest.raises((InputError, IndexError), match=words):
        answers.questions[question](query)
