"""Every format in runs of the job: the same losses as from Parquet, and the same bytes after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from megatron.core.datasets.indexed_dataset import IndexedDataset

from rho_score.config import ExportConfig, SelectConfig
from rho_score.errors import InputError
from rho_score.exporting.job import export
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from rho_score.training.blocks import ScoredBlocks
from tests.conftest import some_text
from tests.inputs.tar_kinds import tar
from tests.ray.conftest import digests, score_into

EOS = 1  # of the tests' tokenizer
PLAIN: dict[str, Any] = {"id_column": None, "group_column": None}


def rows_of(store: Path) -> dict[str, dict[str, Any]]:
    """The documents of a score set by id."""
    scores = ScoreSet.open(str(store))
    return {row["doc_id"]: row for unit in scores.units for row in scores.unit_table(unit.unit).to_pylist()}


@pytest.fixture(scope="module")
def whole(scores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection that keeps every token of the tests' corpus."""
    output = tmp_path_factory.mktemp("whole") / "selection"
    select(SelectConfig(ref=str(scores["ref"]), output=str(output), ratio=1.0))
    return output


@pytest.mark.parametrize("form", ["bin", "olmo", "megatron", "numpy", "llm.c"])
def test_token_files_have_the_losses_of_their_ids(
    form: str, whole: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    """Exports are scored again, and so are files that numpy writes."""
    exported = form if form in ("bin", "olmo", "megatron") else "bin"
    export(ExportConfig(selection=str(whole), output=str(tmp_path / "in"), format=exported, units_per_part=10**6))
    data = tmp_path / "in" / "data"
    if form == "megatron":
        theirs = IndexedDataset(str(data / "part-00000"))
        documents = {f"data/part-00000.bin#{i}": [int(token) for token in ids] for i, ids in enumerate(theirs)}
    else:
        (path,) = data.glob("*.token_ids.npy" if form == "olmo" else "*.bin")
        stream = np.fromfile(path, "<u2")
        name = {"numpy": "a.npy", "llm.c": "a.bin"}.get(form, path.name)
        if form == "numpy":
            np.save(data / name, stream.astype(np.int32))
        elif form == "llm.c":
            header = np.zeros(256, "<i4")
            header[:3] = 20240520, 1, len(stream)
            (data / name).write_bytes(header.tobytes() + stream.tobytes())
        if name != path.name:
            path.unlink()
        parts = np.split(stream, np.flatnonzero(stream == EOS) + 1)
        starts = np.cumsum([0, *map(len, parts)])
        documents = {f"data/{name}@{at}": ids.tolist() for at, ids in zip(starts, parts, strict=False) if len(ids)}
    assert len(documents) > 50
    (tmp_path / "ids").mkdir()
    rows = pa.table({"id": list(documents), "ids": list(documents.values())})
    pq.write_table(rows, tmp_path / "ids" / "a.parquet", row_group_size=10)
    known = "uint16" if form in ("bin", "olmo") else "auto"
    options = PLAIN | {"token_files": known, "unit_bytes": 2000}
    assert score_into(tmp_path / "in", tmp_path / "ours", make_model(1), **options).units > 5
    score_into(tmp_path / "ids", tmp_path / "theirs", make_model(1), **PLAIN | {"ids_column": "ids", "id_column": "id"})
    assert rows_of(tmp_path / "ours") == rows_of(tmp_path / "theirs")
    assert {doc_id: row["input_ids"] for doc_id, row in rows_of(tmp_path / "ours").items()} == documents
    parts_of = ScoreSet.open(str(tmp_path / "ours")).manifest["parts"]
    assert (parts_of["content_kind"], parts_of["text_column"], parts_of["split_at"]) == ("ids", None, EOS)
    with pytest.raises(InputError, match="split_at: there 1, now 7"):
        score_into(tmp_path / "in", tmp_path / "ours", make_model(1), **options, split_at="7")


def test_what_is_kept_of_token_files_is_exported_as_tokens_alone(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    ids = np.tile(np.array([5, 6, 7, EOS, 8, 9, EOS], "<u2"), 20)
    ids.tofile(tmp_path / "in" / "a.bin")
    score_into(tmp_path / "in", tmp_path / "scores", make_model(1), **PLAIN, token_files="uint16")
    chosen = str(tmp_path / "chosen")
    select(SelectConfig(ref=str(tmp_path / "scores"), output=chosen, ratio=0.5, level="document"))
    with pytest.raises(InputError, match="not possible from files of token ids and from tars"):
        export(ExportConfig(selection=chosen, output=str(tmp_path / "rows"), format="jsonl"))
    export(ExportConfig(selection=chosen, output=str(tmp_path / "bin"), format="bin", prefix=False, eos_id=2))
    written = np.fromfile(tmp_path / "bin" / "data" / "part-00000.bin", "<u2")
    documents = [part.tolist() for part in np.split(written, np.flatnonzero(written == 2) + 1) if len(part)]
    assert 0 < len(documents) < 40
    assert {tuple(document) for document in documents} <= {(5, 6, 7, EOS, 2), (8, 9, EOS, 2)}


def test_a_token_file_that_is_scored_and_exported_is_the_same_file(
    ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    """Each document ends with the EOS that it has in the file, and with no second one."""
    (tmp_path / "in").mkdir()
    draw = np.random.default_rng(1)
    ids = draw.integers(3, 400, 3000).astype("<u2")
    ids[3::17] = EOS  # no document is an EOS alone, which would have no loss
    ids[-1] = EOS
    ids.tofile(tmp_path / "in" / "a.bin")
    scores = str(tmp_path / "scores")
    score_into(tmp_path / "in", tmp_path / "scores", make_model(1), **PLAIN, token_files="uint16")

    def exported(form: str, **options: Any) -> Path:
        output = tmp_path / f"{form}{len(options)}"
        export(ExportConfig(selection=scores, output=str(output), format=form, units_per_part=10**6, **options))
        return output / "data"

    before = (tmp_path / "in" / "a.bin").read_bytes()
    assert (exported("bin") / "part-00000.bin").read_bytes() == before
    assert (exported("bin", train_eos=True) / "part-00000.bin").read_bytes() == before
    assert (exported("olmo") / "part-00000.token_ids.npy").read_bytes() == before
    assert (exported("megatron") / "part-00000.bin").read_bytes() == before
    documents = [part.tolist() for part in np.split(ids, np.flatnonzero(ids == EOS) + 1) if len(part)]
    theirs = IndexedDataset(str(tmp_path / "megatron0" / "data" / "part-00000"))
    assert [[int(token) for token in one] for one in theirs] == documents
    for form, weights in (("labels", "labels"), ("levanter", "loss_weights")):
        rows = pq.read_table(exported(form) / "part-00000.parquet").to_pylist()
        assert [row["input_ids"] for row in rows] == documents
        assert all(len(row[weights]) == len(row["input_ids"]) for row in rows)
    (tmp_path / "cache").mkdir()
    blocks = ScoredBlocks(scores, block_size=65, cache=str(tmp_path / "cache"))
    stream = [blocks[0]["input_ids"][0], *(token for block in blocks for token in block["input_ids"][1:])]
    assert [int(token) for token in stream[: len(ids)]] == ids.tolist()
    n_first = len(documents) - 1  # they are not predicted across documents, and the file's first token never is
    assert sum(blocks.n_read(i) for i in range(len(blocks))) == len(ids) - 1 - n_first


def _documents(folder: Path) -> None:
    """The same sixty documents as Parquet, JSON lines, an Arrow stream and file, a saved dataset and a tar."""
    rows = {"id": [f"d{i}" for i in range(60)], "text": [some_text(60, i) for i in range(60)]}

    def table(of: str) -> pa.Table:
        return pa.table({**rows, "id": [f"{of}/{doc_id}" for doc_id in rows["id"]]})

    pq.write_table(table("parquet"), folder / "a.parquet", row_group_size=5)
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table("jsonl").to_pylist()))
    for name, new in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
        with new(folder / f"{name}.arrow", table(name).schema) as writer:
            writer.write_table(table(name), max_chunksize=5)
    members = [
        (f"{i}.{name}", value.encode()) for i, row in enumerate(table("tar").to_pylist()) for name, value in row.items()
    ]
    (folder / "e.tar").write_bytes(tar(*members))
    Dataset.from_dict(table("saved").to_pydict()).save_to_disk(folder / "saved", num_shards=3)


def _tokens(folder: Path) -> None:
    """Flat files of both headers, and a Megatron-LM dataset."""
    draw = np.random.default_rng(0)
    ids = draw.integers(3, 400, 20_000).astype("<u2")
    ids[draw.random(20_000) < 0.02] = EOS
    ids.tofile(folder / "a.bin")
    np.save(folder / "b.npy", ids.astype(np.int32))
    from rho_score.exporting.megatron import megatron_index

    ids.tofile(folder / "c.bin")
    (folder / "c.idx").write_bytes(megatron_index(np.full(200, 100), np.dtype(np.uint16)))


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (_documents, {"group_column": None}),
        (_tokens, PLAIN | {"token_files": "uint16"}),
    ],
    ids=["documents", "tokens"],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    write: Callable[[Path], None],
    options: dict[str, Any],
    ray_cluster: str,
    make_model: Callable[[int], Path],
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    undisturbed, output = tmp_path / "peace", tmp_path / "out"
    n_units = score_into(tmp_path / "in", undisturbed, make_model(1), **options).units
    code = (
        "import json, sys; from pathlib import Path; from tests.ray.conftest import score_into;"
        "score_into(*map(Path, sys.argv[1:4]), **json.loads(sys.argv[4]))"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "in"), str(output), str(make_model(1)), json.dumps(options)],
        cwd=Path(__file__).parents[2], start_new_session=True, env={**os.environ, "RAY_ADDRESS": ""},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 120
    while driver.poll() is None and len(list(output.glob("data/[!.]*"))) < 5:
        assert time.monotonic() < end, "it never began"
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # its workers finish what they were publishing
    n_done = len(list(output.glob("data/[!.]*")))
    assert 5 <= n_done < n_units
    assert not (output / "_SUCCESS.json").exists()
    assert score_into(tmp_path / "in", output, make_model(1), **options).computed == n_units - n_done
    assert digests(output) == digests(undisturbed)
    if write is _documents:
        rows = rows_of(output)
        assert len(rows) == 360
        for doc_id, row in rows.items():
            of_parquet = rows[f"parquet/{doc_id.rpartition('/')[2]}"]
            assert (row["input_ids"], row["loss"]) == (of_parquet["input_ids"], of_parquet["loss"])
