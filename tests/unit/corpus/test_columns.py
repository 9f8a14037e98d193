"""Names of columns: themselves first, then paths, then folders; and what values are called."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rho_score.config import CorpusConfig
from rho_score.corpus.columns import MISSING, Columns, Document, folder_values, paths_in, splits, value_at
from rho_score.corpus.documents import documents
from rho_score.corpus.parquet_columns import find_path, find_sources, paths_of
from rho_score.corpus.plan import make_plan
from rho_score.corpus.values import json_text, texts_of
from rho_score.errors import InputError
from rho_score.files.folder import Folder


def _read(folder: Path, **named: str) -> list[Document]:
    config = CorpusConfig(input=str(folder), **named)  # type: ignore[arg-type]
    plan = make_plan(config)
    columns = Columns(config.text_column, config.id_column, config.group_column)
    return [found for unit in plan.units for found in documents(Folder(plan.root), unit, columns)]


def test_a_path_is_tried_from_its_longest_first_part() -> None:
    assert list(splits("a.b.c")) == [("a.b", "c"), ("a", "b.c")]
    assert list(splits("a")) == list(splits(".a")) == list(splits("a.")) == []


RECORD = {"a.b": {"c": 1}, "a": {"b": {"c": 2, "d": 3}, "b.c": 4, "n": None}, "x.y": 5, "x": {"y": 6}, "s": "text"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x.y", 5),
        ("a.b.c", 1),
        ("a.b.d", 3),
        ("a.n", None),
        ("a.n.deeper", None),
        ("a.z", MISSING),
        ("s.y", MISSING),
        ("", MISSING),
        (".", MISSING),
    ],
)
def test_values_at_paths(name: str, value: Any) -> None:
    assert value_at(RECORD, name) is value or value_at(RECORD, name) == value


def test_names_and_paths_of_parquet_and_json_agree() -> None:
    """Of the same record, whatever is asked for."""
    fields = list(pa.Table.from_pylist([RECORD]).schema)
    for name in ("x.y", "a.b.c", "a.b.d", "a.b", "a.z", "s.y", "a", "nosuch"):
        assert (find_path(fields, name) is None) == (value_at(RECORD, name) is MISSING)
    assert find_path(fields, "a.b.c") == ("a.b", "c")
    assert sorted(set(paths_of(fields))) == paths_in([RECORD])


def test_two_fields_of_a_name_inside_a_struct_are_refused() -> None:
    kind = pa.struct([("a", pa.string()), ("a", pa.int64())])
    with pytest.raises(InputError, match=r"2 columns are called 'a'\. Rename"):
        find_path([pa.field("m", kind)], "m.a")


def test_only_the_leaves_that_are_named_are_read() -> None:
    inner = pa.struct([("id", pa.int64()), ("big", pa.binary())])
    schema = pa.schema([("m", inner), ("text", pa.string()), ("other", pa.string())])
    assert find_sources(schema, Columns("text", "m.id", "lang"), "lang=en/a.parquet").in_file == ["text", "m.id"]


def test_folders_are_decoded_as_hive_writes_them() -> None:
    shard = "a/lang=zh%2FTW/year=2024/empty=/n=__HIVE_DEFAULT_PARTITION__/=x/b=c=d/e=f.parquet"
    assert folder_values(shard) == {"lang": "zh/TW", "year": "2024", "empty": "", "n": None, "b": "c=d"}
    with pytest.raises(InputError, match="not UTF-8"):
        folder_values("lang=%ff/a.parquet")


def test_a_column_whose_name_has_a_comma_or_equals_a_folder_wins(tmp_path: Path) -> None:
    (tmp_path / "b=folder").mkdir()
    pq.write_table(pa.table({"text": ["one"], "a,b": ["whole"], "a": ["x"]}), tmp_path / "b=folder" / "a.parquet")
    (tmp_path / "b=folder" / "b.jsonl").write_text(json.dumps({"text": "two", "a,b": 7, "a": "x"}))
    pq.write_table(pa.table({"text": ["three"], "a": ["x"]}), tmp_path / "b=folder" / "c.parquet")
    (tmp_path / "b=folder" / "d.jsonl").write_text(json.dumps({"text": "four", "a": "x"}))
    read = _read(tmp_path, id_column="a,b", group_column="b")
    assert [found.doc_id for found in read] == ["whole", "7", "x/folder", "x/folder"]
    assert {found.group for found in read} == {"folder"}


def test_a_record_with_a_null_of_its_own_does_not_take_the_folders(tmp_path: Path) -> None:
    (tmp_path / "lang=en").mkdir()
    lines = [{"text": "one"}, {"text": "two", "lang": None}, {"text": "three", "lang": "de"}]
    (tmp_path / "lang=en" / "a.json").write_text("\n".join(map(json.dumps, lines)))
    assert [found.group for found in _read(tmp_path, group_column="lang")] == ["en", None, "de"]


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (7, "7"), (1.5, "1.5"), (-2.0, "-2.0")])
def test_parquet_and_json_call_a_value_the_same(value: Any, text: str) -> None:
    assert json_text(value) == texts_of(pa.array([value]))[0] == text


def test_a_time_zone_that_is_not_known_is_refused(tmp_path: Path) -> None:
    when = pa.array([0], pa.timestamp("us", "Nowhere/Land"))
    pq.write_table(pa.table({"text": ["one"], "when": when}), tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match=r"a\.parquet: column 'when' has .*'Nowhere/Land', which this machine does not know"
    ):
        _read(tmp_path, group_column="when")


def test_integers_beyond_64_bits_are_told_apart(tmp_path: Path) -> None:
    numbers = [2**64 + i for i in range(3)] + [-(2**63) - 1, 10**40]
    (tmp_path / "a.json").write_text("\n".join(json.dumps({"text": "x", "m": {"id": n}}) for n in numbers))
    assert [found.doc_id for found in _read(tmp_path, id_column="m.id")] == list(map(str, numbers))


def test_nulls_and_structs_cut_by_slices_keep_their_rows(tmp_path: Path) -> None:
    """More rows than are decoded at once, nulls at each level."""
    rows = [
        {"m": None if i % 7 == 0 else {"in": None if i % 5 == 0 else {"id": i / 2, "text": f"t{i}"}}}
        for i in range(20_000)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=11_000)
    read = _read(tmp_path, text_column="m.in.text", id_column="m.in.id")
    for i, found in enumerate(read):
        known = i % 7 and i % 5
        assert (found.doc_id, found.text) == ((repr(i / 2), f"t{i}") if known else (f"a.parquet#{i}", None))
