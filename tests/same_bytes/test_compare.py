"""The comparison finds what differs, and only that; the list of commands covers every option."""

from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest

from rho_score.config import CorpusConfig, DynamicsConfig, ExportConfig, ReportConfig, ScoreConfig, SelectConfig
from rho_score.files.parquet import parquet_bytes
from tests.same_bytes.__main__ import chosen
from tests.same_bytes.commands import COMMANDS
from tests.same_bytes.compare import compare_files, compare_folders

SCHEMA = pa.schema([pa.field("doc_id", pa.string()), pa.field("loss", pa.list_(pa.float32()))])


def _unit(losses: list[float | None], **metadata: object) -> bytes:
    table = pa.table({"doc_id": ["d"], "loss": pa.array([losses], pa.list_(pa.float32()))}, SCHEMA)
    return parquet_bytes(table, SCHEMA, metadata)


def _compare(folder: Path, name: str, before: bytes, after: bytes) -> tuple[str, str]:
    for side, content in (("before", before), ("after", after)):
        (folder / side).write_bytes(content)
    compared = compare_files(name, folder / "before", folder / "after")
    return compared.answer, compared.where


@pytest.mark.parametrize(
    ("name", "before", "after", "answer", "where"),
    [
        ("a/x.bin", b"12", b"12", "same", ""),
        ("a/x.bin", b"12", b"123", "different", "byte 2 of 2 and 3"),
        ("a/manifest.json", b'{\n  "rho_score": "1"\n}', b'{\n  "rho_score": "2.0"\n}', "but for named fields", ""),
        ("a/manifest.json", b'{"parts": {"x": [1]}}', b'{"parts": {"x": [2]}}', "different", "/parts/x/0: 1, 2"),
        ("a/summary.json", b'{"kept": 1}', b'{"kept": 1, "more": 2}', "different", "/more: 'nothing', 2"),
        ("a/x.json", b'{"kept": 1}', b'{"kept":1}', "different", "the same JSON, written differently"),
        ("a.html", "x · rho-score 0.1.0</p>".encode(), "x · rho-score 1.0</p>".encode(), "but for named fields", ""),
    ],
)  # fmt: skip
def test_first_difference(tmp_path: Path, name: str, before: bytes, after: bytes, answer: str, where: str) -> None:
    found = _compare(tmp_path, name, before, after)
    assert found[0] == answer
    assert where in found[1]


@pytest.mark.parametrize(
    ("after", "where"),
    [
        (_unit([1.0, None, float("nan")]), ""),
        (_unit([1.0, float("nan"), float("nan")]), "column loss, row 0, item 1: None, nan"),
        (_unit([1.0000001, None, float("nan")]), "column loss, row 0, item 0: 1.0, 1.000000"),
        (_unit([1.0, None]), "column loss, row 0: "),
        (_unit([1.0, None, float("nan")], unit="b"), "footer/rho_score/unit: 'nothing', 'b'"),
    ],
)
def test_parquet_to_the_bit(tmp_path: Path, after: bytes, where: str) -> None:
    answer, found = _compare(tmp_path, "data/a.parquet", _unit([1.0, None, float("nan")]), after)
    assert answer == ("different" if where else "same")
    assert found.startswith(where)


def test_a_missing_file_is_a_difference(tmp_path: Path) -> None:
    for side, name in (("before", "a"), ("after", "b")):
        (tmp_path / side).mkdir()
        (tmp_path / side / name).write_bytes(b"x")
    found = {file.name: file.where for file in compare_folders(tmp_path / "before", tmp_path / "after")}
    assert found == {"a": "there is one only before", "b": "there is one only after"}


def test_what_a_command_reads_comes_before_it() -> None:
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    for i, command in enumerate(COMMANDS):
        assert command.reads <= set(names[:i])
    assert [command.name for command in chosen(["labels"])] == ["ref", "base", "ratio", "labels"]


NOT_FOR_FILES = {
    "workers", "trust_remote_code", "gpus_per_worker", "quantize", "verify", "unit_timeout", "allow_quarantine",
    "ref", "base", "input", "scores", "text_column",
    "within", "columns", "join", "val_share", "top_k", "compare",
    "messages_column", "roles", "chat_date", "prompt_column", "response_column", "prefix_column", "ids_column", "token_files", "split_at",
    "chosen_column", "rejected_column", "min_margin", "max_margin", "hide_context", "weights", "tools_column", "reuse",
    "server", "server_kind", "server_model", "server_requests", "price_per_million_tokens", "price_per_hour",
    "spend_at_most",
}  # fmt: skip
"""Options that change no file, need another machine, only name a place, or are newer than the comparison."""


def test_every_option_that_changes_a_file_is_in_the_list() -> None:
    given = {word.removeprefix("--") for command in COMMANDS for word in command.arguments if word.startswith("--")}
    given = {"compile" if name == "no-compile" else "prefix" if name == "no-prefix" else name for name in given}
    configs = (CorpusConfig, ScoreConfig, SelectConfig, DynamicsConfig, ExportConfig, ReportConfig)
    positional = {"output", "selection", "store"}
    options = {field.name for config in configs for field in fields(config)} - NOT_FOR_FILES - positional
    assert {name for name in options if name.replace("_", "-") not in given} == set()
