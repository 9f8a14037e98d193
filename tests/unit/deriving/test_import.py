"""Values of other programs: what each token gets, and what is told of those that do not fit."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.config import ImportConfig, SelectConfig
from rho_score.deriving import shuffle, units
from rho_score.deriving.import_scores import ImportSummary, import_scores
from rho_score.deriving.units import documents_without_values
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.parquet import parquet_bytes
from rho_score.selecting.job import select
from rho_score.stores.layout import data_name, quarantine_name
from rho_score.stores.schema import QUARANTINE
from rho_score.stores.score_set import ScoreSet, quarantined_documents
from rho_score.stores.selection import Selection
from tests.oracle import full_sort_mask
from tests.ray.conftest import digests
from tests.stores import Doc, cut, random_documents, write_scores


def _scores(folder: Path, documents: Sequence[Doc], **parts: Any) -> Path:
    """A score set of two shards, each of some units."""
    half = len(documents) // 2
    shards = [cut(documents[:half], [3, 1, 4]), cut(documents[half:], [5])]
    return write_scores(folder, shards, **parts)


def _rows(store: Path, *columns: str) -> list[Any]:
    """The rows of every unit, as plain Python."""
    scores = ScoreSet.open(str(store))
    return [row for unit in scores.units for row in scores.unit_table(unit.unit, list(columns)).to_pylist()]


def _losses(store: Path) -> dict[str, list[float | None]]:
    return {row["doc_id"]: row["loss"] for row in _rows(store, "doc_id", "loss")}


def _import(values: Path, like: Path, output: Path, **options: Any) -> ImportSummary:
    return import_scores(ImportConfig(values=str(values), output=str(output), like=str(like), **options))


def _write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.parent


@pytest.fixture
def documents() -> list[Doc]:
    """Documents with losses of either sign, some of them without tokens, some tokens without a loss."""
    values = [None, -3.5, -0.25, 0.0, 0.5, 2.0, 7.25]
    return [pair[0] for pair in random_documents(40, seed=3, values=values)]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_score_set_that_is_exported_and_imported_is_selected_from_alike(
    tmp_path: Path, documents: list[Doc], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "PARTITION_DOCUMENTS", 7)  # so that there are several partitions
    like = _scores(tmp_path / "scores", documents)
    rows = [{"doc_id": d.doc_id, "values": d.loss, "ids": d.ids} for d in documents]
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    shuffled = [rows[i] for i in order]
    if kind == "parquet":
        (tmp_path / "values").mkdir()
        for i in range(3):
            table = pa.Table.from_pylist(shuffled[i::3], pa.schema(
                [("doc_id", pa.string()), ("values", pa.list_(pa.float32())), ("ids", pa.list_(pa.int32()))]
            ))  # fmt: skip
            pq.write_table(table, tmp_path / "values" / f"{i}.parquet", row_group_size=4)
        values = tmp_path / "values"
    else:
        values = _write_jsonl(tmp_path / "values" / "a.jsonl", shuffled)
    summary = _import(values, like, tmp_path / "imported", unit="nats", ids_column="ids")
    assert summary.documents_without_values == 0
    assert (summary.rows.rows, summary.rows.unknown) == (40, 0)
    assert summary.counts.losses == sum(x is not None for d in documents for x in d.loss)
    assert summary.counts.total_nats == sum(x for d in documents for x in d.loss if x is not None)
    assert _rows(tmp_path / "imported", "doc_id", "group", "input_ids", "loss") == _rows(
        like, "doc_id", "group", "input_ids", "loss"
    )
    masks = []
    for store in (like, tmp_path / "imported"):
        output = tmp_path / f"selection-of-{store.name}"
        select(SelectConfig(output=str(output), ref=(str(store),), ratio=0.4, keep="high"))
        selection = Selection.open(str(output))
        masks.append(
            np.concatenate([selection.unit_table(u.unit)["mask"].combine_chunks().flatten() for u in selection.units])
        )
    flat = np.array([np.nan if x is None else x for d in documents for x in d.loss])
    expected = full_sort_mask(flat, round(0.4 * np.isfinite(flat).sum()), high=True)
    assert np.array_equal(masks[0], expected)
    assert np.array_equal(masks[1], expected)


def test_an_imported_set_is_joined_with_the_base_model(tmp_path: Path) -> None:
    pairs = random_documents(30, seed=1)
    base = _scores(tmp_path / "base", [b for _, b in pairs])
    values = _write_jsonl(tmp_path / "values" / "a.jsonl", [{"doc_id": r.doc_id, "values": r.loss} for r, _ in pairs])
    _import(values, base, tmp_path / "ref", unit="nats")
    select(SelectConfig(output=str(tmp_path / "sel"), ref=(str(tmp_path / "ref"),), base=str(base), ratio=0.5))
    selection = Selection.open(str(tmp_path / "sel"))
    found = {r["doc_id"]: r["excess"] for u in selection.units for r in selection.unit_table(u.unit).to_pylist()}
    for ref, of_base in pairs:
        wanted = (np.array(of_base.loss, np.float32) - np.array(ref.loss, np.float32)).astype(np.float16)
        assert np.array_equal(np.array(found[ref.doc_id], np.float16), wanted)


def test_a_value_of_a_document_goes_to_each_of_its_tokens_that_has_a_loss(tmp_path: Path, documents: list[Doc]) -> None:
    like = _scores(tmp_path / "scores", documents)
    score = {d.doc_id: float(np.float16(-1.5 + 0.37 * i)) for i, d in enumerate(documents)}
    (tmp_path / "values").mkdir()
    table = pa.table({"meta": [{"id": name} for name in score], "quality": pa.array(score.values(), pa.float64())})
    pq.write_table(table, tmp_path / "values" / "q.parquet")
    options = {"unit": "other", "level": "document", "values_column": "quality", "id_column": "meta.id"}
    _import(tmp_path / "values", like, tmp_path / "out", **options)
    expected = {d.doc_id: [None if x is None else score[d.doc_id] for x in d.loss] for d in documents}
    assert _losses(tmp_path / "out") == expected


BYTES_OF = "naïve café 東京, and the model"


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_values_of_bytes_are_added_up_or_averaged_over_each_token(
    tmp_path: Path, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast, reduce: str
) -> None:
    texts = [BYTES_OF, "the model learns", " of text", ""]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    documents = [Doc(f"d{i}", None, own, [1.0] * len(own)) for i, own in enumerate(ids)]
    like = write_scores(tmp_path / "scores", [[documents]], tokenizer=make_model(1))
    rng = np.random.default_rng(5)
    values = [rng.normal(size=len(text.encode())) for text in texts]
    rows = [{"doc_id": f"d{i}", "values": own.tolist()} for i, own in enumerate(values)]
    rows[1]["values"] = [*rows[1]["values"][:-1], None]  # the last token of the document then has none
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", rows)
    summary = _import(place, like, tmp_path / "out", unit="nats", level="byte", reduce=reduce, precision="float32")
    assert summary.documents_without_values == 0
    found = _losses(tmp_path / "out")
    for i, (own, text) in enumerate(zip(ids, texts, strict=True)):
        at, expected = 0, []
        for token in own:
            n = len(_bytes_of(tokenizer, token))
            part = values[i][at : at + n]
            expected.append(part.sum() if reduce == "sum" else part.mean())
            at += n
        assert at == len(text.encode())
        if i == 1:
            assert found["d1"][-1] is None
            found["d1"], expected = found["d1"][:-1], expected[:-1]
        np.testing.assert_allclose(np.array(found[f"d{i}"], float), expected, rtol=1e-6)


def _bytes_of(tokenizer: PreTrainedTokenizerFast, token: int) -> bytes:
    """The bytes of a token of a byte-level BPE, by the table of GPT-2."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in shown} | {
        chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in shown)
    }
    return bytes(table[character] for character in tokenizer.convert_ids_to_tokens(token))


def test_what_does_not_fit_is_told_and_nothing_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["fits", "absent", "short", "ids", "null", "infinite", "large", "twice", "same", "same", "nan"]
    documents = [Doc(name, "g", [7, 8, 9], [1.0, 2.0, 3.0]) for name in names]
    like = write_scores(tmp_path / "scores", [[documents[:6], documents[6:]]])
    good = {"values": [0.5, -1.0, 4.0], "ids": [7, 8, 9]}
    lines = [
        {"doc_id": "fits", **good}, {"doc_id": "short", "values": [1, 2], "ids": [7, 8]},
        {"doc_id": "ids", "values": [1, 2, 3], "ids": [7, 6, 9]}, {"doc_id": "null", "values": None, "ids": [7, 8, 9]},
        {"doc_id": "large", "values": [1, 1e6, 3], "ids": [7, 8, 9]}, {"doc_id": "twice", **good},
        {"doc_id": "twice", **good}, {"doc_id": "same", **good}, {"doc_id": "nan", "values": [None, 2, None], "ids": [7, 8, 9]},
        {"doc_id": "stranger", **good}, {"doc_id": "another", **good},
    ]  # fmt: skip
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", lines)
    (place / "notes.txt").write_text("no shard")
    row = {"doc_id": ["infinite"], "values": [[1.0, 2.0, float("inf")]], "ids": [[7, 8, 9]]}
    pq.write_table(pa.table(row), place / "b.parquet")
    command = [
        "import",
        str(place),
        str(tmp_path / "out"),
        "--like",
        str(like),
        "--unit",
        "other",
        "--ids-column",
        "ids",
    ]
    assert main(command) == 3
    said = capsys.readouterr().out
    assert "documents 11 = with values 2 + without 9; 4 of 33 tokens have a value" in said
    assert "rows of the values 12, of which 2 belong to no document of the score set" in said
    assert "  unknown: another" in said
    assert "1 files of the values are no shards, left out: notes.txt" in said
    assert main([*command, "--allow-missing"]) == 0
    told = list(documents_without_values(str(tmp_path / "out")))
    assert sorted(told) == [
        ("absent", "no row of the values has its id"),
        ("ids", "token 1 is 6 in the values and 8 here"),
        ("infinite", "column 'values' is wrong: value 2 is inf"),
        ("large", "the value 1e+06 is beyond float16. Give --precision float32"),
        ("null", f"line 4, byte {len(''.join(json.dumps(x) + chr(10) for x in lines[:3]))}: column 'values' is null"),
        ("same", "2 documents of the score set have its id"),
        ("same", "2 documents of the score set have its id"),
        ("short", "2 values for 3 tokens"),
        ("twice", "2 rows of the values have its id"),
    ]
    losses = [row["loss"] for row in _rows(tmp_path / "out", "loss")]
    assert losses[0] == [0.5, -1.0, 4.0]
    assert losses[-1] == [None, 2.0, None]
    assert losses[1:-1] == [[None] * 3] * 9


def test_documents_that_are_quarantined_in_the_score_set_stay_so(tmp_path: Path, documents: list[Doc]) -> None:
    like = _scores(tmp_path / "scores", documents)
    scores, folder = ScoreSet.open(str(like)), Folder(str(like))
    unit = scores.units[1].unit
    table, about = scores.read_unit(unit)
    about["accounts"] |= {"documents": len(table) + 2, "quarantined": 2}
    folder.publish(data_name(unit), parquet_bytes(table, table.schema, about))
    listed = pa.table({"doc_id": ["x", "y"], "reason": ["null", "7"]}, schema=QUARANTINE)
    folder.publish(quarantine_name(unit), parquet_bytes(listed, QUARANTINE))
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", [{"doc_id": d.doc_id, "values": d.loss} for d in documents])
    counts = _import(place, like, tmp_path / "out", unit="nats").counts
    assert (counts.documents, counts.scored, counts.quarantined) == (42, 40, 2)
    assert list(quarantined_documents(Folder(str(tmp_path / "out")), 9)) == [("x", "null"), ("y", "7")]


def test_a_large_value_needs_float32(tmp_path: Path) -> None:
    like = write_scores(tmp_path / "scores", [[[Doc("a", None, [1, 2], [1.0, 1.0])]]])
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", [{"doc_id": "a", "values": [-1e30, 1 / 3]}])
    _import(place, like, tmp_path / "out", unit="other", precision="float32")
    assert _losses(tmp_path / "out") == {"a": [float(np.float32(-1e30)), float(np.float32(1 / 3))]}
    assert ScoreSet.open(str(tmp_path / "out")).loss_bits == 32


class Stopped(Exception):
    """The end of a run in a test."""


def test_a_run_that_stops_anywhere_goes_on_to_the_same_bytes(
    tmp_path: Path, documents: list[Doc], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "PARTITION_DOCUMENTS", 9)
    monkeypatch.setattr(units, "UNITS_PER_BATCH", 2)
    like = _scores(tmp_path / "scores", documents)
    lines = [{"doc_id": d.doc_id, "values": d.loss} for d in documents[:-2]]
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", lines)
    whole = tmp_path / "whole"
    _import(place, like, whole, unit="nats", workers=1)
    assert not list((whole / "work").glob("*"))
    left = tmp_path / "left"
    runs = 0
    publish = units.Folder.publish
    while True:
        runs += 1
        room = 3

        def counted(folder: units.Folder, name: str, content: bytes) -> None:
            nonlocal room
            if room == 0:
                raise Stopped
            room -= not name.startswith("claim-")
            publish(folder, name, content)

        monkeypatch.setattr(units.Folder, "publish", counted)
        try:
            _import(place, like, left, unit="nats", workers=1)
            break
        except Stopped:
            if runs == 50:
                raise
    assert runs > 5
    monkeypatch.undo()
    assert digests(whole) == digests(left)
    again = _import(place, like, left, unit="nats")
    assert again.computed == 0
    assert again.documents_without_values == 2


def test_another_command_into_the_same_output_is_refused(tmp_path: Path, documents: list[Doc]) -> None:
    like = _scores(tmp_path / "scores", documents)
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", [{"doc_id": d.doc_id, "values": d.loss} for d in documents])
    _import(place, like, tmp_path / "out", unit="nats")
    with pytest.raises(InputError, match="begun with other settings"):
        _import(place, like, tmp_path / "out", unit="other")
    _write_jsonl(tmp_path / "values" / "b.jsonl", [{"doc_id": "x", "values": [1]}])
    with pytest.raises(InputError, match="values_sha256"):
        _import(place, like, tmp_path / "out", unit="nats")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "document", "ids_column": "ids"}, "--ids-column is for --level token"),
        ({"reduce": "mean"}, "--reduce is for --level byte"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"values_column": "score"}, "no field 'score' in its first records; there are: doc_id, values. Name the right one "
         "with --values-column"),
        ({"id_column": "name"}, "Name the right one with --id-column"),
        ({"ids_column": "ids"}, "Name the right one with --ids-column"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    like = write_scores(tmp_path / "scores", [[[Doc("a", None, [1], [1.0])]]])
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", [{"doc_id": "a", "values": [1]}])
    with pytest.raises(InputError, match=message):
        _import(place, like, tmp_path / "out", **{"unit": "nats", **options})
    assert not (tmp_path / "out").exists()


def test_no_option_that_import_lacks_is_named(tmp_path: Path) -> None:
    like = write_scores(tmp_path / "scores", [[[Doc("a", None, [1], [1.0])]]])
    (tmp_path / "values").mkdir()
    np.save(tmp_path / "values" / "losses.npy", np.zeros(1))
    with pytest.raises(InputError, match="no shards in") as error:
        _import(tmp_path / "values", like, tmp_path / "out", unit="nats")
    assert "token" not in str(error.value)


def test_a_column_of_texts_is_refused(tmp_path: Path) -> None:
    like = write_scores(tmp_path / "scores", [[[Doc("a", None, [1], [1.0])]]])
    (tmp_path / "values").mkdir()
    pq.write_table(pa.table({"doc_id": ["a"], "values": ["high"]}), tmp_path / "values" / "a.parquet")
    with pytest.raises(InputError, match="has type string, not a number or a list of numbers"):
        _import(tmp_path / "values", like, tmp_path / "out", unit="other")


def test_ids_of_another_form_are_told_with_both(tmp_path: Path) -> None:
    like = write_scores(tmp_path / "scores", [[[Doc("a.parquet#0", None, [1], [1.0])]]])
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", [{"doc_id": "0", "values": [1]}])
    with pytest.raises(RhoScoreError, match=r"ids such as '0', and the score set has ids such as 'a\.parquet#0'"):
        _import(place, like, tmp_path / "out", unit="other")


def test_one_number_is_no_list(tmp_path: Path) -> None:
    like = write_scores(tmp_path / "scores", [[[Doc("a", None, [1], [1.0])]]])
    place = _write_jsonl(tmp_path / "values" / "a.jsonl", [{"doc_id": "a", "values": 1.5}])
    _import(place, like, tmp_path / "out", unit="other")
    assert list(documents_without_values(str(tmp_path / "out"))) == [
        ("a", "column 'values' is one number, not a list of numbers; see --level")
    ]
