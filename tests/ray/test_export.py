"""The export job: the readers of every format get what the selection's own tables hold."""

import gzip
import json
import math
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from rho_score.config import ExportConfig, SelectConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.exporting.job import ExportSummary, export
from rho_score.files.folder import Folder
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.conftest import some_text
from tests.ray.conftest import digests, score_into
from tests.stores import Doc, write_scores

BOS, EOS = 0, 1
Row = dict[str, Any]


@pytest.fixture(scope="module")
def selections(scores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Selections of tokens, of documents, and of nothing."""
    folder = tmp_path_factory.mktemp("selections")
    for name, options in (
        ("token", {"ratio": 0.6}),
        ("document", {"ratio": 0.5, "level": "document"}),
        ("nothing", {"ratio": 0.0}),
        ("no document", {"ratio": 0.0, "level": "document"}),
    ):
        places: Any = {"ref": str(scores["ref"]), "base": str(scores["base"]), "output": str(folder / name)}
        select(SelectConfig(**places, **options))  # type: ignore[arg-type]
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def run(selections: dict[str, Path], tmp_path: Path) -> Callable[..., ExportSummary]:
    def _run(of: str = "token", to: str = "out", **options: Any) -> ExportSummary:
        options = {"units_per_part": 4} | options
        return export(ExportConfig(selection=str(selections[of]), output=str(tmp_path / to), **options))

    return _run


Run = Callable[..., ExportSummary]


def _rows(selection: Path) -> list[Row]:
    """All documents of a selection, in corpus order."""
    store = Selection.open(str(selection))
    return [row for unit in store.units for row in store.unit_table(unit.unit).to_pylist()]


def _trainable(selection: Path) -> list[Row]:
    return [row for row in _rows(selection) if any(row["mask"])]


def _load(folder: Path, tmp_path: Path) -> datasets.Dataset:
    files = sorted(map(str, (folder / "data").glob("*.parquet")))
    return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))


def _nll(model: Any, ids: list[int]) -> torch.Tensor:
    """-log p of every token but the first, nats."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].float()
    return -logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def test_labels_give_the_masked_loss(
    run: Run, selections: dict[str, Path], scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    summary = run(format="labels")
    expected = _trainable(selections["token"])
    data = _load(tmp_path / "out", tmp_path)
    assert data["doc_id"] == [row["doc_id"] for row in expected]
    model = AutoModelForCausalLM.from_pretrained(make_model(1)).eval()
    ref = ScoreSet.open(str(scores["ref"]))
    stored = {row["doc_id"]: row for unit in ref.units for row in ref.unit_table(unit.unit).to_pylist()}
    n_short = 0
    for found, row in zip(data, expected, strict=True):
        assert found["input_ids"] == [BOS, *row["input_ids"], EOS]
        mask = np.array(row["mask"])
        losses = _nll(model, [BOS, *row["input_ids"]]).numpy()
        batch = {name: torch.tensor([found[name]]) for name in ("input_ids", "labels")}
        with torch.no_grad():
            assert float(model(**batch).loss) == pytest.approx(float(losses[mask].mean()), rel=1e-4)
        if len(mask) < 32:  # one window: the loss in training is the loss that was scored
            n_short += 1
            assert np.array(stored[row["doc_id"]]["loss"]) == pytest.approx(losses, abs=4e-3, rel=1e-3)
    assert n_short > 3
    counts, every = summary.counts, _rows(selections["token"])
    assert (counts.documents, counts.documents_exported) == (len(every), len(expected))
    assert counts.tokens == sum(len(row["input_ids"]) for row in every)
    assert counts.tokens_exported == sum(len(row["input_ids"]) for row in expected)
    assert counts.tokens_kept == counts.tokens_trained == sum(sum(row["mask"]) for row in every)
    assert counts.tokens_written == sum(map(len, data["input_ids"]))


def test_the_trainer_takes_rows_and_blocks_as_they_are(
    run: Run, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    run(format="labels", to="rows")
    run(format="labels", to="blocks", block_size=32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "rows" / "tokenizer", pad_token="</s>")
    for name in ("rows", "blocks"):
        data = _load(tmp_path / name, tmp_path / name).select(range(6))
        model = AutoModelForCausalLM.from_pretrained(make_model(1))
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "trainer"), max_steps=1, per_device_train_batch_size=6, learning_rate=0.0,
            report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
        if name == "blocks":
            data = data.remove_columns(["position_ids", "document_ids"])  # documents see each other
        loss = Trainer(model, arguments, train_dataset=data, data_collator=collator).train().training_loss
        model.eval()
        losses = [_nll(model, row["input_ids"]).numpy()[np.array(row["labels"][1:]) != -100] for row in data]
        assert loss == pytest.approx(float(np.concatenate(losses).mean()), rel=1e-4)


def test_blocks_keep_documents_apart(run: Run, make_model: Callable[[int], Path], tmp_path: Path) -> None:
    summary = run(format="labels", block_size=48)
    data = _load(tmp_path / "out", tmp_path)
    assert {len(values) for row in data for name, values in row.items() if name != "seq_lengths"} == {48}
    assert summary.counts.tokens_trained == summary.counts.tokens_kept
    assert summary.counts.tokens_written == 48 * len(data)
    model = AutoModelForCausalLM.from_pretrained(make_model(1)).eval()
    mixed = [row for row in data if len(set(row["document_ids"])) > 2][:5]
    assert mixed
    for row in mixed:
        ids, labels, documents = (np.array(row[name]) for name in ("input_ids", "labels", "document_ids"))
        total, n = 0.0, 0
        for number in np.unique(documents):
            mine = documents == number
            targets = labels[mine][1:] != -100
            if targets.any():
                total += float(_nll(model, ids[mine].tolist()).numpy()[targets].sum())
                n += int(targets.sum())
        batch = {name: torch.tensor([row[name]]) for name in ("input_ids", "labels", "position_ids")}
        with torch.no_grad():
            assert float(model(**batch, use_cache=False).loss) == pytest.approx(total / n, rel=1e-4)


def test_bin_is_a_memmap_with_a_mask(run: Run, selections: dict[str, Path], tmp_path: Path) -> None:
    summary = run(format="bin")
    manifest = orjson.loads((tmp_path / "out" / "manifest.json").read_bytes())
    files = sorted((tmp_path / "out" / "data").glob("*.bin"))
    assert summary.files == 2 * len(files) > 4
    tokens = np.concatenate([np.memmap(path, manifest["dtype"], "r") for path in files])
    mask = np.concatenate([np.memmap(path.with_suffix(".mask"), np.uint8, "r") for path in files])
    expected = _trainable(selections["token"])
    assert tokens.tolist() == [token for row in expected for token in (BOS, *row["input_ids"], EOS)]
    assert mask.tolist() == [flag for row in expected for flag in (0, *row["mask"], 0)]
    assert summary.counts.tokens_trained == mask.sum()
    bare = run(format="bin", prefix=False, eos_id=7, train_eos=True, to="bare")
    ended = np.concatenate([np.memmap(p, np.uint16, "r") for p in sorted((tmp_path / "bare" / "data").glob("*.bin"))])
    assert ended.tolist() == [token for row in expected for token in (*row["input_ids"], 7)]
    assert bare.counts.tokens_trained >= summary.counts.tokens_trained + len(expected) - bare.parts


def test_megatron_reads_tokens_and_mask(run: Run, selections: dict[str, Path], tmp_path: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    run(format="megatron")
    names = sorted(
        str(p.with_suffix("")) for p in (tmp_path / "out" / "data").glob("*.idx") if not p.stem.endswith("_mask")
    )
    found = []
    for name in names:
        tokens, mask = IndexedDataset(name), IndexedDataset(f"{name}_mask")
        assert tokens.document_indices.tolist() == mask.document_indices.tolist()
        found += [(tokens[i].tolist(), mask[i].tolist()) for i in range(len(tokens))]
    expected = _trainable(selections["token"])
    assert found == [([BOS, *row["input_ids"], EOS], [0, *row["mask"], 0]) for row in expected]


@pytest.mark.parametrize("order", ["easy-first", "hard-first"])
def test_the_order_is_that_of_a_full_sort(run: Run, selections: dict[str, Path], tmp_path: Path, order: str) -> None:
    summary = run(format="labels", order=order)
    rows = _trainable(selections["token"])
    sign = -1 if order == "hard-first" else 1
    means = [np.float32(sign * math.fsum(row["excess"]) / len(row["excess"])) for row in rows]
    expected = [rows[i]["doc_id"] for i in np.argsort(means, kind="stable")]
    assert _load(tmp_path / "out", tmp_path)["doc_id"] == expected
    assert not list((tmp_path / "out" / "runs").iterdir())
    plain = run(format="labels", to="plain")
    assert summary.counts == plain.counts
    before = digests(tmp_path / "out")
    for name in ("_SUCCESS.json", "parts/part-00001.json", "data/part-00001.parquet"):
        (tmp_path / "out" / name).unlink()
    assert run(format="labels", order=order).computed == 1
    assert digests(tmp_path / "out") == before


def test_parts_do_not_change_what_is_in_them(run: Run, selections: dict[str, Path], tmp_path: Path) -> None:
    n_units = len(Selection.open(str(selections["token"])).units)
    read = {}
    for n in (1, 5, 1000):
        summary = run(format="bin", units_per_part=n, to=f"by{n}")
        assert summary.parts == -(-n_units // n)
        files = sorted((tmp_path / f"by{n}" / "data").glob("*.bin"))
        read[n] = [b"".join(path.with_suffix(s).read_bytes() for path in files) for s in (".bin", ".mask")]
    assert read[1] == read[5] == read[1000]


@pytest.mark.parametrize(
    "options",
    [{"format": "labels", "block_size": 40}, {"format": "megatron"}, {"of": "document", "format": "jsonl"}],
    ids=lambda o: o["format"],
)
def test_an_interrupted_export_gives_the_same_bytes(run: Run, corpus: Path, tmp_path: Path, options: Row) -> None:
    if options["format"] == "jsonl":
        options = options | {"input": str(corpus)}
    first = run(**options)
    before = digests(tmp_path / "out")
    (tmp_path / "out" / "_SUCCESS.json").unlink()
    for path in sorted((tmp_path / "out" / "parts").iterdir())[1::2]:
        path.unlink()
    next((tmp_path / "out" / "data").glob("part-00001*")).unlink()
    again = run(**options)
    assert again.computed == first.parts // 2
    assert (again.counts, again.files, again.size) == (first.counts, first.files, first.size)
    assert digests(tmp_path / "out") == before
    assert run(**options).computed == 0
    with pytest.raises(InputError, match="units_per_part: there 4, now 5"):
        run(**options, units_per_part=5)


def test_rows_and_blocks_without_a_label_are_left_out(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    """A mean over no label at all is NaN, and so is the batch's gradient."""
    kept = {"first alone": (30, {0}), "far apart": (50, {3, 40}), "none": (20, set()), "last": (9, {8})}
    docs = [
        Doc(name, None, list(range(2, 2 + n)), [9.0 if i in places else 1.0 for i in range(n)])
        for name, (n, places) in kept.items()
    ]
    write_scores(tmp_path / "scores", [[docs]], tokenizer=make_model(1))
    selection = str(tmp_path / "sel")
    select(SelectConfig(ref=(str(tmp_path / "scores"),), output=selection, threshold=5.0, keep="high"))

    def run(to: str, **options: Any) -> tuple[ExportSummary, list[Row]]:
        summary = export(ExportConfig(selection=selection, output=str(tmp_path / to), format="labels", **options))
        files = sorted((tmp_path / to / "data").iterdir())
        return summary, [row for file in files for row in pq.read_table(file).to_pylist()]

    for to, options, names in (
        ("prefix", {}, ["first alone", "far apart", "last"]),
        ("plain", {"prefix": False}, ["far apart", "last"]),
        ("plain, EOS", {"prefix": False, "train_eos": True}, ["first alone", "far apart", "last"]),
    ):
        summary, rows = run(to, **options)
        assert [row["doc_id"] for row in rows] == names
        assert summary.counts.documents_exported == len(names)
    summary, blocks = run("blocks", block_size=8)
    assert summary.counts.tokens_trained == 4
    assert summary.counts.tokens_written == 8 * len(blocks) == 8 * 4
    assert all(any(label != -100 for label in block["labels"]) for block in blocks)


@pytest.mark.parametrize("format", ["labels", "bin", "megatron", "jsonl"])
def test_a_selection_of_nothing(run: Run, corpus: Path, tmp_path: Path, format: str) -> None:
    options = {"of": "no document", "input": str(corpus)} if format == "jsonl" else {"of": "nothing"}
    summary = run(format=format, **options)
    assert summary.files == summary.counts.documents_exported == summary.counts.tokens_written == 0
    assert summary.counts.documents > 0
    assert not (tmp_path / "out" / "data").exists()
    if format == "labels":
        ordered = run(format=format, order="easy-first", to="ordered", **options)
        assert ordered.counts == summary.counts


def _kept_ids(selection: Path) -> list[str]:
    return [row["doc_id"] for row in _rows(selection) if row["kept"]]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_jsonl_has_the_lines_as_they_were(
    run: Run, selections: dict[str, Path], corpus: Path, tmp_path: Path, compression: str
) -> None:
    summary = run("document", format="jsonl", input=str(corpus), compression=compression)
    lines: list[bytes] = []
    for path in sorted((tmp_path / "out" / "data").iterdir()):
        codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        with pa.input_stream(str(path), compression=codec) as stream:
            lines += stream.read().splitlines(keepends=True)
    assert [json.loads(line)["id"] for line in lines] == _kept_ids(selections["document"])
    assert summary.counts.documents_exported == len(lines)
    original = set((corpus / "c.jsonl").read_bytes().splitlines(keepends=True))
    original |= set(gzip.decompress((corpus / "d.jsonl.gz").read_bytes()).splitlines(keepends=True))
    ids = {json.loads(line)["id"] for line in original if line.endswith(b'"}\n')}
    verbatim = [line for line in lines if json.loads(line)["id"] in ids]
    assert len(verbatim) > 3
    assert set(verbatim) <= original
    with pytest.raises(
        InputError, match=r"hold JSON \(c\.jsonl\), whose columns have no declared types.*--format jsonl"
    ):
        run("document", format="parquet", input=str(corpus), to="other")


@pytest.fixture(scope="module")
def rich(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A Parquet corpus with every kind of column, and a selection of its documents. Two shards have other columns."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "corpus").mkdir()
    for name, n in (("a", 14), ("b", 9), ("c", 5)):
        rows: dict[str, Any] = {
            "text": pa.array([some_text(3 + i % 7, i) if i % 6 else None for i in range(n)]),
            "kind": pa.array([f"k{i % 2}" for i in range(n)]).dictionary_encode(),
            "seen": pa.array([datetime(2024, 5, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)], pa.timestamp("us", "UTC")),
            "nested": pa.array([{"tags": [f"t{i}", None], "n": i} for i in range(n)]),
            "price": pa.array([Decimal(i) / 4 for i in range(n)], pa.decimal128(9, 2)),
            "raw": pa.array([bytes([i, 255]) for i in range(n)]),
        }  # fmt: skip
        if name == "c":
            rows["more"] = pa.array(range(n))
        table = pa.table(rows).replace_schema_metadata({"origin": "test"})
        pq.write_table(table, folder / "corpus" / f"{name}.parquet", row_group_size=3)
    options = {"id_column": None, "group_column": None, "unit_bytes": 100}
    score_into(folder / "corpus", folder / "scores", make_model(1), **options)
    select(
        SelectConfig(ref=str(folder / "scores"), output=str(folder / "sel"), ratio=0.5, level="document")  # type: ignore[arg-type]
    )
    return folder / "corpus", folder / "sel"


def _originals(corpus: Path, selection: Path) -> dict[str, pa.Table]:
    """The kept rows of each shard, by the default ids SHARD#ROW."""
    kept = [doc_id.split("#") for doc_id in _kept_ids(selection)]
    return {
        path.name: pq.read_table(path).take([int(row) for name, row in kept if name == path.name])
        for path in sorted(corpus.iterdir())
    }


def test_parquet_keeps_schema_and_values(rich: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, selection = rich
    config = ExportConfig(
        selection=str(selection), output=str(tmp_path / "out"), format="parquet", input=str(corpus), units_per_part=1000
    )
    summary = export(config)
    kept = _originals(corpus, selection)
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [path.name for path in files] == ["part-00000-1.parquet", "part-00000.parquet"]
    assert summary.files == 2
    first, second = pq.read_table(files[1]), pq.read_table(files[0])
    both = pa.concat_tables([kept["a.parquet"], kept["b.parquet"]])
    assert first.schema.equals(both.schema, check_metadata=True)
    assert first.unify_dictionaries().to_pylist() == both.unify_dictionaries().to_pylist()
    assert second.schema.equals(kept["c.parquet"].schema, check_metadata=True)
    assert second.to_pylist() == kept["c.parquet"].to_pylist()
    assert summary.counts.documents_exported == len(first) + len(second) > 5


def test_parquet_rows_as_jsonl(rich: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, selection = rich
    export(
        ExportConfig(
            selection=str(selection), output=str(tmp_path / "out"), format="jsonl", input=f"{corpus}/*.parquet"
        )
    )
    found = [json.loads(line) for p in sorted((tmp_path / "out" / "data").iterdir()) for line in p.open()]
    expected = [row for table in _originals(corpus, selection).values() for row in table.to_pylist()]
    assert len(found) == len(expected)
    for line, row in zip(found, expected, strict=True):
        assert line.keys() == row.keys()
        assert all(line[name] == row[name] for name in ("text", "kind", "nested"))
        assert datetime.fromisoformat(line["seen"]) == row["seen"]
        assert Decimal(line["price"]) == row["price"]


def test_another_corpus_is_refused(rich: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, selection = rich

    def go(to: str, **changes: Any) -> ExportSummary:
        return export(ExportConfig(selection=str(selection), output=str(tmp_path / to), format="parquet", **changes))

    shutil.copytree(corpus, tmp_path / "copy", copy_function=shutil.copy)  # other times of change
    assert go("out", input=str(tmp_path / "copy")).counts.documents_exported > 0
    pq.write_table(pq.read_table(corpus / "a.parquet").slice(1), tmp_path / "copy" / "a.parquet", row_group_size=3)
    with pytest.raises(RhoScoreError, match=r"a\.parquet has \d+ bytes, but the shard that was scored had \d+"):
        go("out2", input=str(tmp_path / "copy"))
    scores = tmp_path / "scores"
    shutil.copytree(selection.parent / "scores", scores)
    manifest = orjson.loads((scores / "manifest.json").read_bytes())
    manifest["input"]["root"] = "../corpus"
    (scores / "manifest.json").write_bytes(orjson.dumps(manifest))
    shutil.copytree(corpus, tmp_path / "corpus")  # times of change and all
    assert go("noted", scores=str(scores)).counts.documents_exported > 0
    (tmp_path / "corpus" / "a.parquet").touch()
    with pytest.raises(RhoScoreError, match=r"a\.parquet changed since the run was planned"):
        go("touched", scores=str(scores))


@pytest.mark.parametrize("options", [{"format": "bin"}, {"format": "labels", "order": "hard-first"}])
def test_object_storage_gets_the_same_files(
    run: Run, selections: dict[str, Path], tmp_path: Path, options: Row
) -> None:
    run(**options)
    there = Folder(f"s3://rho/{tmp_path.name}")
    config = ExportConfig(selection=str(selections["token"]), output=there.url, units_per_part=4, **options)
    assert export(config).computed > 1
    assert export(config).computed == 0
    names = set(Folder(str(tmp_path / "out")).listing())
    assert set(there.listing()) == names
    for name in names - {"manifest.json"}:  # it says where the selection is
        assert there.read(name) == (tmp_path / "out" / name).read_bytes()


def test_what_cannot_be_exported_is_said(run: Run, selections: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    for message, options in [
        ("--level document", {"format": "jsonl", "input": str(corpus)}),
        ("there is nothing at", {"of": "document", "format": "jsonl", "input": str(tmp_path / "nowhere")}),
        ("--block-size is for --format labels", {"format": "bin", "block_size": 8}),
        ("--order easy-first is for token formats", {"of": "document", "format": "jsonl", "order": "easy-first"}),
        ("--compression is for --format jsonl", {"format": "labels", "compression": "gzip"}),
        ("--units-per-part must be at least 1", {"format": "labels", "units_per_part": 0}),
        ("--train-eos, --no-prefix", {"of": "document", "format": "jsonl", "train_eos": True}),
        ("--train-eos, --no-prefix", {"of": "document", "format": "parquet", "prefix": False}),
        ("--eos-id 400 is not an id of the tokenizer", {"format": "labels", "eos_id": 400}),
    ]:
        with pytest.raises(InputError, match=message):
            run(**options)
    assert not (tmp_path / "out").exists()
    shutil.copytree(selections["token"], tmp_path / "sel")
    for path in (tmp_path / "sel" / "tokenizer").iterdir():
        path.unlink()
    tokenizer = AutoTokenizer.from_pretrained(selections["token"] / "tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer).save_pretrained(tmp_path / "sel" / "tokenizer")
    for options in ({"format": "bin"}, {"format": "labels", "train_eos": True}):
        with pytest.raises(InputError, match=r"no EOS.*--eos-id"):
            export(ExportConfig(selection=str(tmp_path / "sel"), output=str(tmp_path / "out"), **options))  # type: ignore[arg-type]
    (tmp_path / "sel" / "summary.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        export(ExportConfig(selection=str(tmp_path / "sel"), output=str(tmp_path / "out"), format="bin"))


@pytest.mark.parametrize("order", ["corpus", "hard-first"])
def test_joined_parts_are_one_part(run: Run, tmp_path: Path, order: str) -> None:
    whole = run(to="whole", format="bin", units_per_part=10**6, order=order)
    joined = run(to="joined", format="bin", units_per_part=3, join=True, order=order)
    assert (tmp_path / "joined/data/train.bin").read_bytes() == (tmp_path / "whole/data/part-00000.bin").read_bytes()
    assert (tmp_path / "joined/data/train.mask").read_bytes() == (tmp_path / "whole/data/part-00000.mask").read_bytes()
    assert joined.counts == whole.counts
    assert sorted(path.name for path in (tmp_path / "joined/data").iterdir()) == ["train.bin", "train.mask"]
    assert not list((tmp_path / "joined").glob("pieces/*"))
    assert run(to="joined", format="bin", units_per_part=3, join=True, order=order).computed == 0


@pytest.mark.parametrize("format", ["bin", "megatron"])
def test_a_share_of_the_documents_is_set_aside(run: Run, tmp_path: Path, format: str) -> None:
    run(to="all", format=format, units_per_part=10**6)
    summary = run(to="split", format=format, units_per_part=3, val_share=0.3)
    every = _documents(tmp_path / "all", "part-00000", format)
    train, val = (_documents(tmp_path / "split", name, format) for name in ("train", "val"))
    assert sorted([*train, *val]) == sorted(every)
    assert 0.1 < len(val) / len(every) < 0.6
    assert summary.counts.tokens_trained == summary.counts.tokens_kept
    again = run(to="again", format=format, units_per_part=7, val_share=0.3)
    assert again.counts == summary.counts
    assert _documents(tmp_path / "again", "val", format) == val


def _documents(export: Path, name: str, format: str) -> list[tuple[list[int], list[int]]]:
    """The documents of a flat file, each as its tokens and its mask."""
    if format == "megatron":
        from megatron.core.datasets.indexed_dataset import IndexedDataset

        tokens, mask = (IndexedDataset(str(export / "data" / found)) for found in (name, f"{name}_mask"))
        return [(tokens[i].tolist(), mask[i].tolist()) for i in range(len(tokens))]
    tokens, mask = (
        np.fromfile(export / "data" / f"{name}{end}", kind) for end, kind in ((".bin", "<u2"), (".mask", "u1"))
    )
    stops = [0, *(np.flatnonzero(tokens == EOS) + 1).tolist()]
    cut = [slice(a, b) for a, b in pairwise(stops)]
    return [(tokens[at].tolist(), mask[at].tolist()) for at in cut]
