"""Rows of the original shards are matched to a selection's documents exactly, or refused by name."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rho_score.config import CorpusConfig, ExportConfig
from rho_score.corpus.columns import Columns
from rho_score.corpus.plan import make_plan
from rho_score.corpus.units import Unit
from rho_score.corpus.whole_rows import JsonlRows, jsonl_rows, whole_rows
from rho_score.errors import InputError, RhoScoreError
from rho_score.exporting.job import export
from rho_score.exporting.original_rows import Corpus, corpus_root, rows_to_keep
from rho_score.files.folder import Folder
from tests.inputs.tar_kinds import tar
from tests.stores import write_scores


@dataclass
class _Selected:
    """As much of a selection as matching reads."""

    rows: list[tuple[str, bool]]

    def unit_table(self, unit: str, columns: list[str]) -> pa.Table:
        assert columns == ["doc_id", "kept"]
        return pa.table({"doc_id": [name for name, _ in self.rows], "kept": [kept for _, kept in self.rows]})


def _case(folder: Path, lines: list[bytes], quarantined: list[str]) -> tuple[Corpus, Unit]:
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.jsonl").write_bytes(b"".join(lines))
    plan = make_plan(CorpusConfig(input=str(folder / "corpus"), id_column="id"))
    (unit,) = plan.units
    if quarantined:
        (folder / "scores" / "quarantine").mkdir(parents=True)
        table = pa.table({"doc_id": quarantined, "reason": ["why"] * len(quarantined)})
        pq.write_table(table, folder / "scores" / "quarantine" / f"{unit.unit}.parquet")
    columns, scores = Columns("text", "id"), Folder(str(folder / "scores"))
    return Corpus(root=Folder(plan.root), moved=False, columns=columns, quarantine=scores), unit


def _line(doc_id: str, text: str | None = "x", end: str = "\n") -> bytes:
    return (json.dumps({"id": doc_id, "text": text, "more": [1, {"é": None}]}, ensure_ascii=False) + end).encode()


def _keep(corpus: Corpus, unit: Unit, rows: list[tuple[str, bool]]) -> list[bool]:
    selected: Any = _Selected(rows)
    keep: list[bool] = rows_to_keep(corpus, selected, unit).tolist()
    return keep


def test_quarantined_documents_are_passed_over(tmp_path: Path) -> None:
    # "b" failed while it was scored; the second "a" has no text, and the third is scored again under the same id
    lines = [_line("a"), _line("b"), b"\n", _line("a", None), _line("a"), b"{broken\n", _line("c", end="")]
    corpus, unit = _case(tmp_path, lines, ["b", "a", f"a.jsonl@{sum(map(len, lines[:5]))}"])
    assert _keep(corpus, unit, [("a", True), ("a", False), ("c", True)]) == [True, False, False, False, False, True]
    keep = np.array([True, False, False, False, False, True])
    assert list(jsonl_rows(corpus.root, unit, keep)) == [lines[0], lines[-1] + b"\n"]


def test_lines_are_verbatim_but_for_the_mark_before_the_first(tmp_path: Path) -> None:
    lines = [b"\xef\xbb\xbf" + _line("a"), b'{ "id":"b",  "text" : "\\u00e9" }\r\n']
    corpus, unit = _case(tmp_path, lines, [])
    keep = np.array(_keep(corpus, unit, [("a", True), ("b", True)]))
    assert list(jsonl_rows(corpus.root, unit, keep)) == [_line("a"), lines[1]]


@pytest.mark.parametrize(
    ("rows", "quarantined", "message"),
    [
        (
            [("a", True), ("x", True), ("c", True)],
            [],
            "document 1 from its start: the input has 'b', but the selection has 'x'",
        ),
        ([("a", True), ("b", True)], [], "document 2 from its start: the input has 'c', but the selection has None"),
        ([("a", True), ("b", True), ("c", True), ("d", True)], [], "the input ends, but the selection has 'd'"),
        ([("a", True), ("b", True), ("c", True)], ["b"], "'b' is both scored and quarantined"),
    ],
)
def test_a_difference_is_named(
    tmp_path: Path, rows: list[tuple[str, bool]], quarantined: list[str], message: str
) -> None:
    corpus, unit = _case(tmp_path, [_line("a"), _line("b"), _line("c")], quarantined)
    with pytest.raises(RhoScoreError, match=message) as error:
        _keep(corpus, unit, rows)
    assert unit.unit in str(error.value)


def test_what_was_read_well_and_is_not_now_is_named(tmp_path: Path) -> None:
    corpus, unit = _case(tmp_path, [_line("a"), _line("b", None)], [])
    with pytest.raises(RhoScoreError, match=r"document 1 from its start: 'b' cannot be read now.*is null"):
        _keep(corpus, unit, [("a", True), ("b", True)])


def test_a_shard_that_changed_is_refused(tmp_path: Path) -> None:
    corpus, unit = _case(tmp_path, [_line("a")], [])
    with (tmp_path / "corpus" / "a.jsonl").open("ab") as file:
        file.write(_line("b"))
    with pytest.raises(RhoScoreError, match=r"a\.jsonl changed since the run was planned"):
        _keep(corpus, unit, [("a", True)])


def test_the_root_of_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jsonl").touch()
    for given, root in (
        (tmp_path, tmp_path),
        (tmp_path / "sub" / "a.jsonl", tmp_path / "sub"),
        (tmp_path / "s*" / "*", tmp_path),
    ):
        assert Folder(corpus_root(str(given)).url).path == str(root)
    with pytest.raises(InputError, match="there is nothing at"):
        corpus_root(str(tmp_path / "none"))


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_jsonl_is_the_same_bytes_each_time(compression: Any) -> None:
    files = []
    for _ in range(2):
        rows = JsonlRows(compression)
        rows.add(b'{"a": 1}\n')
        rows.add(b'{"a": 2}\n')
        files.append(rows.files())
    assert files[0] == files[1]
    ((name, content),) = files[0].items()
    codec = {"none": None, "gzip": "gzip", "zstd": "zstd"}[compression]
    assert name.startswith(".jsonl")
    with pa.input_stream(pa.BufferReader(content), compression=codec) as stream:
        assert stream.read() == b'{"a": 1}\n{"a": 2}\n'
    assert JsonlRows(compression).files() == {}


@pytest.mark.parametrize("form", ["stream", "file"])
def test_rows_of_arrow_shards_keep_their_columns_and_types(form: str, tmp_path: Path) -> None:
    table = pa.table(
        {"text": [f"t{i}" for i in range(7)], "n": pa.array(range(7), pa.int8()), "kind": ["a", "b"] * 3 + ["a"]}
    )
    table = table.set_column(2, "kind", table["kind"].combine_chunks().dictionary_encode())
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    plan = make_plan(CorpusConfig(input=str(tmp_path), unit_bytes=1))
    corpus = Corpus(root=Folder(plan.root), moved=False, columns=Columns("text"), quarantine=Folder(str(tmp_path)))
    keep = np.array([True, False, False, False, True, True, True])
    tables, lines, row = [], [], 0
    for unit in plan.units:
        chosen = keep[row : row + (unit.rows or 0)]
        row += unit.rows or 0
        tables += list(whole_rows(corpus.root, unit, chosen))
        lines += list(jsonl_rows(corpus.root, unit, chosen))
    assert pa.concat_tables(tables).equals(table.filter(pa.array(keep)))
    assert [json.loads(line) for line in lines] == table.filter(pa.array(keep)).to_pylist()


def test_pairs_of_tars_are_refused_before_any_work(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    """The score set has the plan of such a corpus. Its rows cannot be written again, which a part would find out."""
    pair = b'{"chosen": "yes", "rejected": "no"}'
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar(("s/1.json", pair), ("s/2.json", pair)))
    plan = make_plan(
        CorpusConfig(input=str(tmp_path / "in"), chosen_column="json.chosen", rejected_column="json.rejected")
    )
    pairs = {"content_kind": "pair", "text_column": "json.chosen", "rejected_column": "json.rejected"}
    folder = write_scores(tmp_path / "scores", [], grouped=False, tokenizer=make_model(1), **pairs)
    (folder / "plan.parquet").write_bytes(plan.to_parquet())
    config = ExportConfig(selection=str(folder), output=str(tmp_path / "dpo"), format="dpo", input=str(tmp_path / "in"))
    with pytest.raises(InputError, match=r"--format dpo writes the rows .* not possible from tars \(a\.tar\)"):
        export(config)
    assert not (tmp_path / "dpo").exists()
