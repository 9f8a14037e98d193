"""The models and corpora that both versions read. Each is made once, so that both read the very same files."""

import bz2
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo.corpus import build
from demo.model import base_model
from tests.conftest import damage_row_group, make_tokenizer, save_model, some_text, write_corpus
from tests.fuzz.corpora import nested_jsonl, nested_parquet, parquet_files
from tests.inputs.test_together import write_kinds
from tests.unit.models.test_vocabulary import sentencepiece_bpe, wrapped


def _model(seed: int) -> Callable[[Path], object]:
    return lambda folder: save_model(folder, seed, make_tokenizer())


def _pieces(folder: Path) -> None:
    """A model whose tokenizer cuts texts in other places than that of the others."""
    save_model(folder, 5, wrapped(sentencepiece_bpe(scheme="always")))


def _every_format(folder: Path) -> None:
    """Shards of every format, and a damaged row group; some documents are empty, null or broken."""
    write_corpus(folder)
    rows = [{"id": f"m{i}", "source": "abc"[i % 3], "text": some_text(1 + i * 29 % 90, 500 + i)} for i in range(40)]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    (folder / "f.jsonl.bz2").write_bytes(bz2.compress(b"".join(lines[:10])))
    (folder / "g.jsonl.xz").write_bytes(lzma.compress(b"".join([*lines[10:20], b"{broken\n"])))
    (folder / "h.ndjson").write_bytes(b"".join(lines[20:30]))
    (folder / "i.json").write_bytes(b"".join(lines[30:]))
    damaged = [{"id": f"p{i}", "source": None, "text": some_text(80, 900 + i)} for i in range(12)]
    options = {"row_group_size": 4, "use_dictionary": False, "column_encoding": {"text": "PLAIN"}}
    text_first = pa.Table.from_pylist(damaged).select(["text", "id", "source"])
    pq.write_table(text_first, folder / "j.parquet", write_page_checksum=True, **options)
    damage_row_group(folder / "j.parquet", 1)


def _nested(folder: Path) -> None:
    """Columns in structs and objects, in folders named KEY=VALUE."""
    for i, content in enumerate(nested_parquet()):
        (part := folder / f"lang={'en' if i % 2 else 'de'}").mkdir(parents=True, exist_ok=True)
        (part / f"{i}.parquet").write_bytes(content)
    (folder / "lang=fr").mkdir()
    (folder / "lang=fr" / "a.jsonl").write_bytes(nested_jsonl())


def _parquet(folder: Path) -> None:
    """Parquet alone, in several layouts, one with a nested column."""
    folder.mkdir()
    for i, content in enumerate(parquet_files()):
        (folder / f"{i}.parquet").write_bytes(content)


def _demo_part(folder: Path) -> None:
    """A shard of each format of the demo's corpus, 32,000 tokens of three groups: the whole of it takes two models too long."""
    build(folder)
    for name in ("docs-001.parquet", "source-000.parquet", "licences-000.parquet"):
        (folder / name).unlink()


def _demo_reference(folder: Path) -> None:
    """The demo's base model with every weight off by some 2 %: like another model, without a fine-tuning's minutes."""
    model = AutoModelForCausalLM.from_pretrained(base_model(), dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(1 + 0.02 * torch.randn_like(weights))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_model()).save_pretrained(folder)


INPUTS: dict[str, Callable[[Path], object]] = {
    "model-ref": _model(1),
    "model-base": _model(2),
    "model-code": _model(3),
    "model-pieces": _pieces,
    "every-format": _every_format,
    "nested": _nested,
    "kinds": write_kinds,
    "parquet": _parquet,
    "demo-part": _demo_part,
    "demo-base": lambda folder: folder.symlink_to(base_model()),
    "demo-ref": _demo_reference,
}


def make(folder: Path, name: str) -> None:
    """Make one input as `folder`/`name`."""
    print(f"making the input {name}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    building = folder / f"building-{name}"
    shutil.rmtree(building, ignore_errors=True)
    INPUTS[name](building)
    building.rename(folder / name)
