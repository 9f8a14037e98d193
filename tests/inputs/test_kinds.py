"""Every kind of corpus through plan, read and tokenize: the answer is the table's, in bounded memory."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.config import CorpusConfig
from rho_score.corpus import columns, jsonl_shards, lines, parquet_shards, tar_shards, token_shards
from rho_score.corpus.columns import Columns
from rho_score.corpus.content import columns_of
from rho_score.corpus.plan import make_plan
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.models.content import Encoder
from rho_score.models.tokenizer import hash_tokenizer, load_tokenizer
from rho_score.scoring.read import read_unit
from rho_score.scoring.tokenize import tokenize_unit
from tests.inputs.arrow_kinds import ARROW
from tests.inputs.content_kinds import CONTENT, TEMPLATE
from tests.inputs.jsonl_kinds import JSONL, NOISE, TEXT
from tests.inputs.kinds import Doc, Kind, Refused
from tests.inputs.parquet_kinds import PARQUET
from tests.inputs.path_kinds import PATHS
from tests.inputs.tar_kinds import TARS
from tests.inputs.token_kinds import TOKENS

KINDS = [*PARQUET, *ARROW, *JSONL, *TEXT, *CONTENT, *TARS, *TOKENS, *PATHS]
MOST_MEMORY = 400 << 20  # bytes on top of what the process had: a few times the longest line
SPECIAL_IDS = {0, 1, 2}


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _rows(kind: Kind, folder: Path, model: Path) -> list[dict[str, object]]:
    """The documents of a kind as the scorer would get them: doc_id, group, error, text, input_ids."""
    config = CorpusConfig(input=kind.make(folder) or str(folder), **kind.options)  # type: ignore[arg-type]
    plan = make_plan(config)
    columns = columns_of(config)
    encoder = Encoder(kind=columns.kind, template=TEMPLATE, vocabulary=400)
    digest = hash_tokenizer(load_tokenizer(str(model)))
    rows = []
    for unit in plan.units:
        read = read_unit(Folder(plan.root), unit, columns)
        tokenized = tokenize_unit(
            read, model=str(model), trust_remote_code=False, tokenizer_sha256=digest, encoder=encoder
        )
        rows += tokenized.append_column("text", read["text"]).to_pylist()
    return [row for row in rows if row["doc_id"] is not None]


def _check(row: dict[str, object], doc: Doc, tokenizer: PreTrainedTokenizerFast, kind: str = "text") -> None:
    assert row["text"] == doc.text
    if doc.reason is None:
        assert row["error"] is None
        ids = row["input_ids"]
        if kind == "ids":
            assert ids == orjson.loads(str(doc.text))
        if kind in ("ids", "pair"):
            return
        text = doc.text if kind == "text" else _written(str(doc.text))
        # a byte-level tokenizer loses nothing
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert len(row.get("counts", ids)) == len(ids)  # type: ignore[arg-type]
        assert not SPECIAL_IDS & set(ids)  # type: ignore[call-overload]
    elif doc.reason.endswith("…"):
        assert doc.reason.removesuffix("…") in str(row["error"])
    else:
        assert row["error"] == doc.reason
    assert doc.id in (None, row["doc_id"])
    assert row["group"] == doc.group


def _written(content: str) -> str:
    """A prefix and a text one after the other, or a chat by `TEMPLATE`, which writes no tools."""
    values = orjson.loads(content)
    values = values["messages"] if isinstance(values, dict) else values
    return "".join(of if isinstance(of, str) else f"{of['role']}: {of['content']}\n" for of in values)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_answer(
    kind: Kind, tmp_path: Path, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in kind.limits.items():
        users = [
            module
            for module in (lines, columns, jsonl_shards, parquet_shards, tar_shards, token_shards)
            if hasattr(module, name)
        ]
        assert users, name
        for module in users:
            monkeypatch.setattr(module, name, value)
    model = make_model(1)
    if isinstance(kind.answer, Refused):
        with pytest.raises(InputError) as error:
            _rows(kind, tmp_path, model)
        for word in kind.answer.words:
            assert word in str(error.value)
        return
    rows = _rows(kind, tmp_path, model)
    if "stream that breaks off" in kind.name:
        whole = [Doc(line.decode()[10:-3]) for line in NOISE[: len(rows) - 1]]
        assert len(NOISE) // 4 < len(whole) < len(NOISE)
        for row, doc in zip(rows, [*whole, *kind.answer], strict=True):
            _check(row, doc, tokenizer)
        return
    for row, doc in zip(rows, kind.answer, strict=True):
        _check(row, doc, tokenizer, columns_of(CorpusConfig(input="", **kind.options)).kind)  # type: ignore[arg-type]
    assert len({str(row["doc_id"]) for row in rows}) == len(rows) or kind.options.get("id_column")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is asked of Linux")
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "bomb of one" in kind.name or "200 MB" in kind.name], ids=lambda kind: kind.name
)
def test_memory_is_bounded(kind: Kind, tmp_path: Path) -> None:
    kind.make(tmp_path)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _peak_bytes()
    plan = make_plan(CorpusConfig(input=str(tmp_path)))
    tables = (read_unit(Folder(plan.root), unit, Columns("text")) for unit in plan.units)
    assert sum(table["doc_id"].drop_null().length() for table in tables) == len(kind.answer)
    assert _peak_bytes() - before < MOST_MEMORY


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is asked of Linux")
@pytest.mark.parametrize("encoding", ["RLE_DICTIONARY", "DELTA_BYTE_ARRAY"])
def test_memory_is_bounded_where_parquet_makes_much_of_little(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_shards, "LARGEST_SHARD", 64 << 20)
    dictionary = encoding == "RLE_DICTIONARY"
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(600, np.int32)), pa.array(["x" * (1 << 20)]))
    column = text if dictionary else text.cast(pa.large_string())
    options = {} if dictionary else {"use_dictionary": False, "column_encoding": encoding}
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", **options)
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20  # 600 MB of text
    del text, column
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_bytes()
    (unit,) = make_plan(CorpusConfig(input=str(tmp_path))).units
    table = read_unit(Folder(str(tmp_path)), unit, Columns("text"))
    assert _peak_bytes() - before < MOST_MEMORY
    assert len(table) == 600
    assert table["error"].null_count == 63


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_shard_without_permission_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "a.jsonl").chmod(0)
    with pytest.raises(InputError, match=r"a\.jsonl: not readable .*Permission denied"):
        make_plan(CorpusConfig(input=str(tmp_path)))


def test_a_folder_link_is_named_as_left_out(tmp_path: Path) -> None:
    kind = next(kind for kind in PATHS if kind.name == "a link to a folder above it")
    kind.make(tmp_path)
    assert make_plan(CorpusConfig(input=str(tmp_path))).not_shards == ("sub/up",)


def test_names_of_kinds_are_unique() -> None:
    for table in (PARQUET, ARROW, JSONL, TEXT, TARS, TOKENS, PATHS):
        assert len({kind.name for kind in table}) == len(table)
