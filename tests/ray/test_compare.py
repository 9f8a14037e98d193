"""`rho-score compare`: its numbers are those of the documents' own bytes and losses, and its page is harmless."""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.config import CompareConfig, ImportConfig, PriorConfig
from rho_score.deriving.import_scores import import_scores
from rho_score.deriving.prior import prior
from rho_score.errors import InputError
from rho_score.reporting.compared import CompareSummary, PartStats
from rho_score.reporting.comparison import compare
from rho_score.stores.score_set import ScoreSet
from tests.conftest import some_text
from tests.ray.conftest import score_into
from tests.security.test_page import assert_harmless
from tests.stores import Doc, cut, write_scores

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, make_model: Callable[[int], Path]) -> Write:
    """Writes a score set of these documents, in units of 7, with the small tokenizer."""

    def made(name: str, docs: list[Doc], **parts: Any) -> str:
        sizes = [7] * (len(docs) // 7)
        return str(write_scores(tmp_path / name, [cut(docs, sizes)], tokenizer=make_model(1), **parts))

    return made


@pytest.fixture
def some(tokenizer: PreTrainedTokenizerFast) -> Callable[..., list[Doc]]:
    """Makes documents of real text with random losses around a level. Some tokens have none."""

    def made(n: int, seed: int, level: float, prefix: str = "d") -> list[Doc]:
        rng = np.random.default_rng(seed)
        docs = []
        for i in range(n):
            ids = tokenizer(some_text(int(rng.integers(3, 60)), seed + i), add_special_tokens=False)["input_ids"]
            loss: list[float | None] = [float(np.float16(x)) for x in rng.gamma(2.0, level / 2, len(ids))]
            for gap in rng.integers(0, len(ids), 2) if i % 3 == 0 else []:
                loss[gap] = None
            docs.append(Doc(f"{prefix}{i}", ["code", "web", None][i % 3], ids, loss))
        return docs

    return made


Some = Callable[..., list[Doc]]


class Counted:
    """What each document has, counted by loops: a character of this tokenizer's vocabulary is a byte."""

    def __init__(self, docs: list[Doc], tokenizer: PreTrainedTokenizerFast) -> None:
        sizes = [[len(token) for token in tokenizer.convert_ids_to_tokens(doc.ids)] for doc in docs]
        kept = [
            [(x, n) for x, n in zip(d.loss, s, strict=True) if x is not None] for d, s in zip(docs, sizes, strict=True)
        ]
        self.nats = np.array([sum(x for x, _ in pairs) for pairs in kept])
        self.n_bytes = np.array([sum(n for _, n in pairs) for pairs in kept])
        self.n_tokens = np.array([len(pairs) for pairs in kept])
        self.rates = self.nats / math.log(2) / self.n_bytes
        for doc, size in zip(docs, sizes, strict=True):
            assert sum(size) == len(tokenizer.decode(doc.ids).encode())


def _assert_part(part: PartStats, docs: list[Doc], tokenizer: PreTrainedTokenizerFast) -> None:
    of = Counted(docs, tokenizer)
    assert (part.documents, part.tokens, part.bytes) == (len(docs), of.n_tokens.sum(), of.n_bytes.sum())
    assert part.bits_per_byte == pytest.approx(of.nats.sum() / math.log(2) / of.n_bytes.sum())
    assert part.mean_loss == pytest.approx(of.nats.sum() / of.n_tokens.sum())
    assert part.mean == pytest.approx(of.rates.mean())
    expected = np.quantile(
        of.rates.astype(np.float16).astype(float), [0.05, 0.25, 0.5, 0.75, 0.95], method="inverted_cdf"
    )
    assert part.quantiles == pytest.approx(expected.tolist())


def _of_group(docs: list[Doc], group: str | None) -> list[Doc]:
    return [doc for doc in docs if doc.group == group]


def _assert_compared(summary: CompareSummary, at: int, first: list[Doc], other: list[Doc], tokenizer: PreTrainedTokenizerFast) -> None:  # fmt: skip
    found, a, b = summary.comparisons[at], Counted(first, tokenizer), Counted(other, tokenizer)
    assert found.difference.value == pytest.approx(b.rates.mean() - a.rates.mean())
    pairs = b.rates.astype(np.float16)[None, :], a.rates.astype(np.float16)[:, None]
    assert found.superiority.value == pytest.approx(np.mean((pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1])))
    low, high = np.quantile(a.rates.astype(np.float16).astype(float), [0.01, 0.99], method="inverted_cdf")
    assert found.above == pytest.approx(np.mean(b.rates.astype(np.float16) > high))
    assert found.below == pytest.approx(np.mean(b.rates.astype(np.float16) < low))


def test_sets_and_groups_have_the_numbers_of_their_documents(
    write: Write, some: Some, tokenizer: PreTrainedTokenizerFast
) -> None:
    mine, extra = some(50, 1, 2.0), some(40, 100, 2.6, "e")
    config = CompareConfig(scores=(write("mine", mine), f"new={write('extra', extra)}"), per_group=True, min_tokens=5)
    summary = compare(config)
    assert [part.name for part in summary.sets] == ["mine", "new"]
    for part, docs in zip(summary.sets, (mine, extra), strict=True):
        _assert_part(part, docs, tokenizer)
    assert [(part.name, part.group) for part in summary.groups] == [
        (name, group) for name in ("mine", "new") for group in ("code", "web", None)
    ]
    for part in summary.groups:
        _assert_part(part, _of_group(mine if part.name == "mine" else extra, part.group), tokenizer)
    assert [(c.group, c.whole) for c in summary.comparisons] == [
        (None, True),
        ("code", False),
        ("web", False),
        (None, False),
    ]
    _assert_compared(summary, 0, mine, extra, tokenizer)
    for i, group in enumerate(("code", "web", None), 1):
        _assert_compared(summary, i, mine, _of_group(extra, group), tokenizer)
    again = compare(replace(config, workers=3))
    assert (summary.sets, summary.groups, summary.comparisons) == (again.sets, again.groups, again.comparisons)
    assert [d.doc_id for d in summary.documents] == [d.doc_id for d in again.documents]


def test_the_documents_that_are_shown_are_the_most_and_the_least_alike(
    write: Write, some: Some, tokenizer: PreTrainedTokenizerFast
) -> None:
    mine, extra = some(120, 1, 2.0), [*some(40, 100, 6.0, "hard"), *some(30, 300, 1.2, "easy")]
    summary = compare(CompareConfig(scores=(write("mine", mine), write("extra", extra)), documents=4, min_tokens=20))
    a, b = Counted(mine, tokenizer), Counted(extra, tokenizer)
    low, middle, high = np.quantile(a.rates.astype(np.float16).astype(float), [0.01, 0.5, 0.99], method="inverted_cdf")
    shown = {kind: [d for d in summary.documents if d.kind == kind] for kind in ("harder", "easier", "typical")}
    rates = {doc.doc_id: rate for doc, rate, n in zip(extra, b.rates, b.n_tokens, strict=True) if n >= 20}
    expected = {
        "harder": sorted((d for d in rates if rates[d] > high), key=lambda d: -rates[d])[:4],
        "easier": sorted((d for d in rates if rates[d] < low), key=lambda d: rates[d])[:4],
        "typical": sorted(rates, key=lambda d: abs(rates[d] - middle))[:4],
    }
    assert {kind: [d.doc_id for d in found] for kind, found in shown.items()} == expected
    assert all(expected.values())
    by_id = {doc.doc_id: doc for doc in extra}
    for document in summary.documents:
        doc = by_id[document.doc_id]
        assert document.bits_per_byte == pytest.approx(rates[document.doc_id])
        assert document.group == doc.group
        assert document.tokens.input_ids.tolist() == doc.ids
        assert [None if math.isnan(x) else x for x in document.tokens.score.tolist()] == doc.loss
        assert tokenizer.decode(doc.ids).startswith(document.excerpt.removesuffix("…"))
    assert len(compare(CompareConfig(scores=(write("m2", mine), write("e2", extra)), documents=0)).documents) == 0


def test_the_groups_of_one_set_are_compared_with_the_rest(
    write: Write, some: Some, tokenizer: PreTrainedTokenizerFast
) -> None:
    docs = some(60, 1, 2.0)
    summary = compare(CompareConfig(scores=(write("mine", docs),), per_group=True, min_tokens=1))
    assert [c.group for c in summary.comparisons] == ["code", "web", None]
    for i, group in enumerate(("code", "web", None)):
        rest = [doc for doc in docs if doc.group != group]
        _assert_compared(summary, i, rest, _of_group(docs, group), tokenizer)
    assert {document.kind for document in summary.documents} <= {"harder", "easier"}


def test_documents_without_bits_per_byte_are_counted(write: Write, some: Some) -> None:
    mine = some(20, 1, 2.0)
    gaps = [Doc("none", "web", [5, 6], [None, None]), Doc("empty", "web", [], []), Doc("huge", "web", [5], [math.inf])]
    summary = compare(CompareConfig(scores=(write("mine", mine), write("gaps", [*mine, *gaps]))))
    assert summary.left_out == {"mine": 0, "gaps": 3}
    assert summary.sets[0].bits_per_byte == pytest.approx(summary.sets[1].bits_per_byte)
    assert summary.comparisons[0].superiority.value == pytest.approx(0.5)
    with pytest.raises(InputError, match=r"only has no document with a loss and text"):
        compare(CompareConfig(scores=(write("m", mine), write("only", gaps))))
    with pytest.raises(InputError, match=r"nothing has no document"):
        compare(CompareConfig(scores=(write("mm", mine), write("nothing", []))))


def test_one_document_is_compared_without_an_interval(write: Write, some: Some) -> None:
    summary = compare(CompareConfig(scores=(write("mine", some(20, 1, 2.0)), write("one", some(1, 50, 3.0)))))
    [found] = summary.comparisons
    assert found.difference.high == math.inf
    assert 0 <= found.superiority.low < found.superiority.high <= 1
    assert found.verdict == "undecided"


def test_an_unfinished_set_is_compared_if_it_is_allowed(
    write: Write, some: Some, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    mine, extra = some(20, 1, 2.0), some(21, 50, 2.0)
    config = CompareConfig(scores=(write("mine", mine), write("extra", extra)))
    (tmp_path / "extra" / "_SUCCESS.json").unlink()
    next(path for path in (tmp_path / "extra" / "data").iterdir() if "_1of" in path.name).unlink()
    with pytest.raises(InputError, match="extra is not finished"):
        compare(config)
    summary = compare(replace(config, allow_unfinished=True))
    _assert_part(summary.sets[1], [*extra[:7], *extra[14:]], tokenizer)
    assert summary.units["extra"] == (2, 3)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"weights_sha256": "other"}, "weights_sha256: mine 'one', extra 'other'"),
        ({"precision": "float32"}, "precision: mine 'float16', extra 'float32'"),
        ({"context": 64}, "context: mine 32, extra 64"),
        ({"tokenizer_sha256": "u"}, "tokenizer_sha256: mine 't', extra 'u'"),
        ({"dtype": "bfloat16"}, "dtype: mine None, extra 'bfloat16'"),
        ({"server_kind": "vllm"}, "server_kind: mine None, extra 'vllm'"),
        ({"server_model": "other"}, "server_model: mine None, extra 'other'"),
        ({"context_hidden": True}, "context_hidden: mine None, extra True"),
        ({"derived": {"from": "values", "level": "token"}}, "derived_from: mine None, extra 'values'"),
    ],
)
def test_sets_that_were_scored_otherwise_are_refused(
    parts: dict[str, Any], named: str, write: Write, some: Some
) -> None:
    usual = {"weights_sha256": "one", "precision": "float16"}
    scores = (write("mine", some(5, 1, 2.0), **usual), write("extra", some(5, 2, 2.0), **(usual | parts)))
    with pytest.raises(InputError, match="were not scored in the same way") as error:
        compare(CompareConfig(scores=scores))
    assert f"  {named}\n" in str(error.value)


@pytest.mark.parametrize(("difference", "refused"), [(0.3, True), (0.001, False)])
def test_a_name_that_stood_for_two_models_is_found_out(
    difference: float, refused: bool, write: Write, some: Some, tmp_path: Path
) -> None:
    served = {"server_kind": "vllm", "server_model": "ref"}
    scores = (write("mine", some(5, 1, 2.0), **served), write("extra", some(5, 2, 2.0), **served))
    for name, more in (("mine", 0.0), ("extra", difference)):
        path = tmp_path / name / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["server"] = {"probe": {"input_ids": [0, 5, 6], "losses": [2.0 + more, 3.0 + more]}}
        path.write_text(json.dumps(manifest))
    if not refused:
        assert len(compare(CompareConfig(scores=scores)).comparisons) == 1
        return
    with pytest.raises(InputError, match=r"of two models: .* differ by 0\.3 nats on average, although"):
        compare(CompareConfig(scores=scores))


def _imported(tmp_path: Path, like: str, docs: list[Doc], name: str, **options: Any) -> str:
    """The losses of these documents, as another program may have written them, imported."""
    (tmp_path / f"{name}-values").mkdir()
    rows = [{"doc_id": doc.doc_id, "values": doc.loss} for doc in docs]
    (tmp_path / f"{name}-values" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"unit": "nats", **options}
    import_scores(ImportConfig(values=f"{tmp_path}/{name}-values", output=f"{tmp_path}/{name}", like=like, **options))
    return f"{tmp_path}/{name}"


def test_imported_losses_are_compared_with_imported_losses_alone(
    write: Write, some: Some, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, extra = some(20, 1, 2.0), some(20, 50, 3.0)
    scored = (write("a", mine), write("b", extra))
    theirs = [
        _imported(tmp_path, like, docs, name)
        for like, docs, name in zip(scored, (mine, extra), ("mine", "extra"), strict=True)
    ]
    summary = compare(CompareConfig(scores=tuple(theirs)))
    for part, docs in zip(summary.sets, (mine, extra), strict=True):
        _assert_part(part, docs, tokenizer)
    _assert_compared(summary, 0, mine, extra, tokenizer)
    assert "Nothing tells whether they are of one model" in caplog.text
    with pytest.raises(InputError, match="derived_from: a None, extra 'values'"):
        compare(CompareConfig(scores=(scored[0], theirs[1])))
    other = _imported(tmp_path, scored[1], extra, "other", unit="other")
    for scores in ((theirs[0], other), (other, theirs[0])):
        with pytest.raises(InputError, match=r"compare needs losses in nats, but .*other holds imported values"):
            compare(CompareConfig(scores=scores))
    with pytest.raises(InputError, match=r"compare needs losses in nats, but .*other holds imported values"):
        compare(CompareConfig(scores=(other,), per_group=True))


def test_means_over_bytes_are_not_added_up(
    write: Write, some: Some, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    docs = some(10, 1, 2.0)
    by_byte = [replace(doc, loss=[1.0] * len(tokenizer.decode(doc.ids).encode())) for doc in docs]
    mean = _imported(tmp_path, write("a", docs), by_byte, "mean", level="byte", reduce="mean")
    with pytest.raises(InputError, match="mean holds means over bytes"):
        compare(CompareConfig(scores=(mean,), per_group=True))


def test_priors_are_compared_if_one_count_made_them(
    write: Write, some: Some, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    mine, extra = some(20, 1, 2.0), some(15, 50, 3.0)
    scored = (write("a", mine), write("b", extra))
    prior(PriorConfig(scores=scored[0], output=f"{tmp_path}/mine"))
    prior(PriorConfig(scores=scored[1], output=f"{tmp_path}/extra", counted_in=scored[0]))
    prior(PriorConfig(scores=scored[1], output=f"{tmp_path}/own"))
    prior(PriorConfig(scores=scored[1], output=f"{tmp_path}/half", counted_in=scored[0], alpha=0.5))
    summary = compare(CompareConfig(scores=(f"{tmp_path}/mine", f"{tmp_path}/extra")))
    counts = Counter(t for doc in mine for t, x in zip(doc.ids, doc.loss, strict=True) if x is not None)
    total = sum(counts.values()) + len(tokenizer.get_vocab())
    for part, docs in zip(summary.sets, (mine, extra), strict=True):
        of = [t for doc in docs for t, x in zip(doc.ids, doc.loss, strict=True) if x is not None]
        assert part.mean_loss == pytest.approx(np.mean([math.log(total / (counts[t] + 1)) for t in of]), rel=1e-3)
    for name, part in (("own", "derived_counted_in: mine"), ("half", "derived_alpha: mine 1.0, half 0.5")):
        with pytest.raises(InputError, match=part) as error:
            compare(CompareConfig(scores=(f"{tmp_path}/mine", f"{tmp_path}/{name}")))
        assert "`rho-score prior --counted-in`" in str(error.value)


def test_divergences_are_no_losses(write: Write, some: Some) -> None:
    divergence = {"derived": {"from": "kl", "direction": "KL(base || ref)"}}
    scores = (write("mine", some(5, 1, 2.0), **divergence), write("extra", some(5, 2, 2.0), **divergence))
    with pytest.raises(InputError, match=r"compare needs losses, but .*mine holds divergences of two models"):
        compare(CompareConfig(scores=scores))


def test_what_cannot_be_compared_is_refused(write: Write, some: Some, tmp_path: Path) -> None:
    mine = write("mine", some(6, 1, 2.0), grouped=False)
    for scores, options, message in (
        ((mine,), {}, "needs two or more score sets"),
        ((mine,), {"per_group": True}, "--per-group needs groups"),
        ((mine, mine), {}, "a store is given twice"),
        ((f"a={mine}", f"a={mine}2"), {}, "two stores are called 'a'"),
        ((mine, f"{mine}2"), {}, "not a rho-score store"),
        ((mine, mine + "2"), {"documents": -1}, "--documents must be at least 0, got -1"),
        ((mine, mine + "2"), {"min_tokens": 0}, "--min-tokens must be at least 1, got 0"),
        ((mine, mine + "2"), {"plot": f"{tmp_path}/x.txt"}, r"must end with \.svg"),
        ((mine, mine + "2"), {"page": str(tmp_path)}, "--page .* is a folder"),
        ((write("one", [replace(d, group="a") for d in some(4, 1, 2.0)]),), {"per_group": True}, "has only one group"),
    ):
        with pytest.raises(InputError, match=message):
            compare(CompareConfig(scores=scores, **options))  # type: ignore[arg-type]


def test_the_command_prints_and_writes(
    write: Write, some: Some, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = [replace(doc, doc_id=f"<script>{i}\x1b[2J", group="=1+1") for i, doc in enumerate(some(30, 70, 4.0))]
    scores = [f"mine={write('a', some(40, 1, 2.0))}", write("b", evil)]
    files = [f"--page={tmp_path}/page.html", f"--csv={tmp_path}/table.csv", f"--plot={tmp_path}/plot.svg"]
    assert main(["compare", *scores, "--per-group", "--min-tokens", "4", *files]) == 0
    said = capsys.readouterr().out
    assert "\nb is " in said
    assert "bits per byte harder than mine (95 %: " in said
    assert "Verdict: harder. The difference is large.\n" in said
    assert "b, harder: <script>" in said
    assert "\x1b" not in said
    summary = compare(CompareConfig(scores=tuple(scores), per_group=True))
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["part"], row["set"], row["group"]) for row in rows] == [
        ("all", "mine", ""), ("all", "b", ""),
        *(("group", "mine", group) for group in ("code", "web", "")), ("group", "b", "'=1+1"),
    ]  # fmt: skip
    assert rows[0]["difference"] == rows[0]["verdict"] == ""
    [found, _] = summary.comparisons
    assert [float(rows[1][f"superiority{end}"]) for end in ("", "_low", "_high")] == list(found.superiority)
    assert float(rows[1]["bits_per_byte"]) == summary.sets[1].bits_per_byte
    page = assert_harmless((tmp_path / "page.html").read_text())
    assert len(page.images) == 4
    assert "Comparison with mine" in page.text
    assert "b is " in page.text
    assert f"{found.difference.value:+.3f}" in page.text
    assert "‹001B›[2J" in page.text
    assert "The hardest documents of b, above the 99 % quantile" in page.text
    assert "bits per byte" in (tmp_path / "plot.svg").read_text()


def test_the_page_of_one_set_is_about_its_groups(write: Write, some: Some, tmp_path: Path) -> None:
    compare(CompareConfig(scores=(write("a", some(40, 1, 2.0)),), per_group=True, page=f"{tmp_path}/page.html"))
    page = assert_harmless((tmp_path / "page.html").read_text())
    assert "Groups of a" in page.text
    assert len(page.images) == 3


def test_many_groups_are_cut_on_the_page_alone(write: Write, some: Some, tmp_path: Path) -> None:
    docs = [replace(doc, group=f"g{i % 110:03}") for i, doc in enumerate(some(330, 1, 2.0))]
    config = CompareConfig(scores=(write("a", docs),), per_group=True, min_tokens=1, documents=1)
    summary = compare(replace(config, page=f"{tmp_path}/page.html", csv=f"{tmp_path}/table.csv"))
    assert len(summary.comparisons) == len(summary.groups) == 110
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 112
    assert len({document.of for document in summary.documents}) <= 20
    page = assert_harmless((tmp_path / "page.html").read_text())
    for note in (
        "The first 12 of 110 comparisons",
        "The first 100 of 111 rows",
        "The first 40 of 110.",
        "The 6 largest of 110.",
    ):
        assert note in page.text


def test_the_same_in_tasks_of_a_cluster(write: Write, some: Some, ray_cluster: str) -> None:
    config = CompareConfig(scores=(write("mine", some(30, 1, 2.0)), write("extra", some(30, 100, 2.6))))
    summary = compare(config)
    assert [part.documents for part in summary.sets] == [30, 30]


def test_two_corpora_that_one_model_scored(
    scores: dict[str, Path],
    corpus: Path,
    make_model: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bytes are those of the texts in the corpus, and the losses those of the files."""
    (tmp_path / "other").mkdir()
    rows = [{"id": f"x{i}", "source": "new", "text": f"{some_text(4 + i, i)} 0123 €{i}"} for i in range(30)]
    (tmp_path / "other" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    score_into(tmp_path / "other", tmp_path / "new", make_model(1))
    summary = compare(CompareConfig(scores=(str(scores["ref"]), f"{tmp_path}/new")))
    new = summary.sets[1]
    assert new.bytes == sum(len(str(row["text"]).encode()) for row in rows)
    total = ScoreSet.open(f"{tmp_path}/new").summary
    assert new.tokens == total["losses"]
    assert new.bits_per_byte == pytest.approx(total["total_nats"] / math.log(2) / new.bytes)
    assert main(["compare", f"mine={scores['ref']}", f"{tmp_path}/new", "--page", f"{tmp_path}/page.html"]) == 0
    assert f"{new.bits_per_byte:.4f}" in capsys.readouterr().out
    assert_harmless((tmp_path / "page.html").read_text())
    assert main(["compare", str(scores["base"]), f"{tmp_path}/new"]) == 2
    assert "weights_sha256: base" in capsys.readouterr().err
