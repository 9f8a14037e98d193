"""Selections with two tokenizers, compared with sums that are made byte by byte."""

import math
from pathlib import Path

import numpy as np
import pytest

from rho_score.cli import main
from rho_score.config import SelectConfig
from rho_score.errors import RhoScoreError
from rho_score.models.encode import encode
from rho_score.selecting.job import select
from rho_score.stores.selection import Selection
from tests.stores import Doc, cut, write_scores
from tests.unit.models.test_vocabulary import byte_level, oracle, sentencepiece_bpe, wrapped

TEXTS = [
    "the model learns", "", " leading", "東京 cut inside 🙂🙂", "e\u0301 a\u0323 combining", "runs   of \t space\n", "café naïve",
    "a", "Привет token of text", "the reference tells which tokens are worth it", "🙂", "x" * 40,
]  # fmt: skip


def _documents(tokenizer: object, seed: int, *, first_null: bool = False) -> list[Doc]:
    rng = np.random.default_rng(seed)
    docs = []
    for i, ids in enumerate(encode(tokenizer, TEXTS)):  # type: ignore[arg-type]
        loss: list[float | None] = [float(np.float16(x)) for x in rng.gamma(0.7, 3, len(ids))]
        if first_null and loss:
            loss[0] = None
        docs.append(Doc(f"d{i}", "ab"[i % 2], ids.tolist(), loss))
    return docs


@pytest.fixture
def sets(ray_cluster: str, tmp_path: Path) -> dict[str, tuple[Path, list[Doc], list[list[bytes]]]]:
    """By kind: the score set, its documents, and the bytes of their tokens."""
    found = {}
    for seed, (kind, tokenizer) in enumerate(
        {"bytes": byte_level(), "pieces": sentencepiece_bpe(scheme="always")}.items()
    ):
        wrapped(tokenizer).save_pretrained(tmp_path / f"tokenizer-{kind}")
        docs = _documents(wrapped(tokenizer), seed, first_null=kind == "pieces")
        places = {"tokenizer": tmp_path / f"tokenizer-{kind}", "tokenizer_sha256": kind, "prefix_id": seed}
        write_scores(tmp_path / kind, [cut(docs, [3 + seed, 4])], **places)
        found[kind] = (tmp_path / kind, docs, [])
    return found


def _bytes_of(selection: Selection) -> list[dict[str, object]]:
    return [row for unit in selection.units for row in selection.unit_table(unit.unit).to_pylist()]


@pytest.mark.parametrize(("base", "ref"), [("bytes", "pieces"), ("pieces", "bytes")])
def test_losses_are_compared_over_bytes(
    sets: dict[str, tuple[Path, list[Doc], list[list[bytes]]]], tmp_path: Path, base: str, ref: str
) -> None:
    from rho_score.models.vocabulary import Vocabulary
    from rho_score.stores.score_set import ScoreSet
    from rho_score.stores.tokenizer import load_store_tokenizer

    (base_path, base_docs, _), (ref_path, ref_docs, _) = sets[base], sets[ref]
    select(SelectConfig(output=f"{tmp_path}/sel", ref=str(ref_path), base=str(base_path), ratio=0.5, align="bytes"))
    rows = _bytes_of(Selection.open(f"{tmp_path}/sel"))
    vocabularies = {p: Vocabulary.of(load_store_tokenizer(ScoreSet.open(str(p)))) for p in (base_path, ref_path)}
    for row, b, r, text in zip(rows, base_docs, ref_docs, TEXTS, strict=True):
        spaced = np.array([text.startswith(" ")])

        def sizes(path: Path, doc: Doc, spaced: np.ndarray = spaced) -> list[int]:
            ids = np.array(doc.ids, np.int32)
            found: list[int] = vocabularies[path].byte_lengths(ids, np.array([len(ids)]), spaced).tolist()
            return found

        assert sum(sizes(base_path, b)) == sum(sizes(ref_path, r)) == len(text.encode())
        losses = [math.nan if x is None else x for x in r.loss]
        ref_loss = oracle(losses, sizes(ref_path, r), sizes(base_path, b))
        wanted = [
            math.nan if x is None else float(np.float32(np.float16(x - y)))
            for x, y in zip(b.loss, ref_loss, strict=True)
        ]
        found = [math.nan if x is None else x for x in row["excess"]]  # type: ignore[attr-defined]
        np.testing.assert_allclose(found, wanted, atol=2e-3)
        present = [not math.isnan(x) for x in wanted]
        assert row["bytes"] == sum(n for n, there in zip(sizes(base_path, b), present, strict=True) if there)
        if row["bytes"]:
            nats = sum(x for x, there in zip(b.loss, present, strict=True) if there and x is not None)
            assert row["base_bits_per_byte"] == pytest.approx(nats / math.log(2) / row["bytes"], rel=1e-5)  # type: ignore[operator]


def test_other_tokenizers_are_refused_unless_asked_for(
    sets: dict[str, tuple[Path, list[Doc], list[list[bytes]]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base, _, _), (ref, _, _) = sets["bytes"], sets["pieces"]
    command = ["select", "--ref", str(ref), "--base", str(base), f"{tmp_path}/sel", "--ratio", "0.5"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "tokenizer_sha256: base 'bytes', ref 'pieces'" in said
    assert "--align bytes" in said
    assert main([*command, "--align", "bytes"]) == 0
    assert "bits per byte: reference" in capsys.readouterr().out


def test_another_text_is_refused_and_one_odd_document_is_counted(
    sets: dict[str, tuple[Path, list[Doc], list[list[bytes]]]], tmp_path: Path
) -> None:
    base, docs, _ = sets["bytes"]
    places = {"tokenizer": tmp_path / "tokenizer-bytes", "tokenizer_sha256": "other"}

    def turned(doc: Doc) -> Doc:
        return Doc(doc.doc_id, doc.group, doc.ids[::-1], doc.loss)

    one = [turned(doc) if i == 0 else doc for i, doc in enumerate(docs)]
    write_scores(tmp_path / "one", [cut(one, [])], **places)
    options = {"base": str(base), "ratio": 0.5, "align": "bytes"}
    summary = select(SelectConfig(output=f"{tmp_path}/s1", ref=f"{tmp_path}/one", **options))  # type: ignore[arg-type]
    assert summary.total.documents_unaligned == 1
    first = _bytes_of(Selection.open(f"{tmp_path}/s1"))[0]
    assert first["excess"] == [None] * len(docs[0].ids)
    assert first["mask"] == [False] * len(docs[0].ids)
    write_scores(tmp_path / "all", [cut([turned(doc) for doc in docs], [])], **places)
    with pytest.raises(
        RhoScoreError, match=r"document 'd\d+', byte 0: the first has '.*', the second '.*'; \d of \d documents differ"
    ):
        select(SelectConfig(output=f"{tmp_path}/s2", ref=f"{tmp_path}/all", **options))  # type: ignore[arg-type]


def test_documents_by_score_per_byte(
    sets: dict[str, tuple[Path, list[Doc], list[list[bytes]]]], tmp_path: Path
) -> None:
    ref, docs, _ = sets["bytes"]
    select(SelectConfig(output=f"{tmp_path}/sel", ref=str(ref), ratio=0.5, level="document", document_score="per-byte"))
    rows = _bytes_of(Selection.open(f"{tmp_path}/sel"))
    rates = [
        float(np.float16(sum(d.loss) / len(t.encode()))) if t else math.nan for d, t in zip(docs, TEXTS, strict=True)
    ]  # type: ignore[arg-type]
    np.testing.assert_array_equal([math.nan if r["doc_score"] is None else r["doc_score"] for r in rows], rates)
    ranked = sorted((x, i) for i, x in enumerate(rates) if not math.isnan(x))
    assert [row["kept"] for row in rows] == [
        i in {i for _, i in ranked[: round(0.5 * len(ranked))]} for i in range(len(rows))
    ]
