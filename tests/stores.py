"""Score sets made without a model, for tests of what comes after scoring."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rho_score.corpus.plan import Plan
from rho_score.corpus.units import Unit
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.files.parquet import parquet_bytes
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import data_name
from rho_score.stores.manifest import new_manifest
from rho_score.stores.schema import SCHEMA_VERSION, content_sha256, score_schema


@dataclass(frozen=True)
class Doc:
    """A document and its losses; None where a token has none."""

    doc_id: str
    group: str | None
    ids: list[int]
    loss: list[float | None]


def write_scores(
    folder: Path, shards: Sequence[Sequence[Sequence[Doc]]], *, grouped: bool = True, tokenizer: Path | None = None, **parts: Any
) -> Path:  # fmt: skip
    """A finished score set at `folder` of shards of units of documents; `parts` of its manifest that are not as usual."""
    store = Folder(str(folder))
    parts = {
        "schema_version": SCHEMA_VERSION, "tokenizer_sha256": "t", "context": 32, "overlap": 8, "prefix_id": 0,
        "text_column": "text", "id_column": "id", "group_column": "source" if grouped else None,
    } | parts  # fmt: skip
    parts["content"] = hashlib.sha256(repr(shards).encode()).hexdigest()
    manifest = new_manifest("score set", parts, input={})
    units, every = [], []
    schema = score_schema(grouped=grouped)
    for s, shard in enumerate(shards):
        row = 0
        for u, docs in enumerate(shard):
            name = f"shard-{s}.parquet_{row}-{row + len(docs)}_{u}of{len(shard)}"
            place = {"start": row, "stop": row + len(docs), "first_row": row, "rows": len(docs)}
            units.append(
                Unit(
                    unit=name, shard=f"shard-{s}.parquet", format=".parquet", size=1, version="1", text_bytes=1, **place
                )
            )
            columns = {
                "doc_id": [d.doc_id for d in docs], "group": [d.group for d in docs],
                "input_ids": [d.ids for d in docs], "loss": [d.loss for d in docs],
            }  # fmt: skip
            table = pa.table({f.name: columns[f.name] for f in schema}, schema=schema)
            flat = [x for d in docs for x in d.loss if x is not None]
            accounts = ScoreCounts(
                documents=len(docs), scored=len(docs), tokens=sum(len(d.ids) for d in docs), losses=len(flat),
                total_nats=float(np.sum([x for x in flat if np.isfinite(x)])),
            )  # fmt: skip
            every.append(accounts)
            metadata = {
                "fingerprint": manifest["fingerprint"], "unit": name, "accounts": asdict(accounts),
                "content_sha256": content_sha256(table["doc_id"], table["input_ids"]),
            }  # fmt: skip
            store.publish(data_name(name), parquet_bytes(table, schema, metadata))
            row += len(docs)
    for path in sorted(tokenizer.iterdir()) if tokenizer else []:
        if path.name.startswith(("tokenizer", "special")):
            store.publish(f"tokenizer/{path.name}", path.read_bytes())
    store.publish("plan.parquet", Plan(root="r", units=tuple(units)).to_parquet())
    store.publish("manifest.json", dump_json(manifest))
    store.publish("_SUCCESS.json", dump_json({"units": len(units), **asdict(ScoreCounts.total(every))}))
    return folder


def random_documents(
    n: int, *, seed: int, values: Sequence[float | None] = (), longest: int = 12
) -> list[tuple[Doc, Doc]]:
    """Documents with the losses of two models; `values`: what losses are drawn from (None: no loss), else any."""
    rng = np.random.default_rng(seed)

    def losses(size: int) -> list[float | None]:
        if values:
            return [values[i] for i in rng.integers(0, len(values), size)]
        return [float(np.float16(x)) for x in rng.gamma(0.7, 3.0, size)]

    pairs = []
    for i in range(n):
        size = int(rng.integers(0, longest + 1))
        ids, group = rng.integers(0, 50, size).tolist(), [*"abc", None][int(rng.choice(4, p=[0.3, 0.3, 0.3, 0.1]))]
        pairs.append((Doc(f"d{i}", group, ids, losses(size)), Doc(f"d{i}", group, ids, losses(size))))
    return pairs


def cut(documents: Sequence[Doc], sizes: Sequence[int]) -> list[list[Doc]]:
    """Documents in consecutive units of these sizes; what is left is one more."""
    units, at = [], 0
    for size in [*sizes, len(documents)]:
        if at < len(documents) or not units:
            units.append(list(documents[at : at + size]))
        at += size
    return units
