"""Two finished score sets of any size, made without a model: `python -m bench.score_sets TOKENS`.

They have the shape of real ones: documents of lognormal length (median 400 tokens, at most 20,000), Zipf token ids, gamma-like
losses with many values near zero, a reference whose losses follow the base model's, eight sources of unequal size. The
same arguments give the same values. A unit has four million tokens.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rho_score.corpus.plan import Plan
from rho_score.corpus.units import Unit
from rho_score.files.arrow import list_column
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.files.parquet import parquet_bytes
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import MANIFEST, PLAN, SUCCESS, data_name
from rho_score.stores.manifest import new_manifest
from rho_score.stores.schema import SCHEMA_VERSION, content_sha256, score_schema

ROOT = Path(__file__).parents[1]
UNIT_TOKENS = 4_000_000
UNITS_PER_SHARD = 4
VOCABULARY = 49_152
MEDIAN_LENGTH, LENGTH_SIGMA, LONGEST = 400, 1.2, 20_000
GROUPS = {
    "web": 0.45, "books": 0.18, "code": 0.14, "papers": 0.09, "forums": 0.06, "wiki": 0.04, "maths": 0.03, "law": 0.01,
}  # fmt: skip
MODELS = ("ref", "base")
SECOND = "second"  # another reference, where first tokens have no loss


@dataclass(frozen=True)
class Sets:
    """Where the two score sets are."""

    folder: Path
    tokens: int
    models: tuple[str, ...] = MODELS

    @property
    def second(self) -> str:
        """Score set of the other reference."""
        return str(self.folder / SECOND)

    @property
    def ref(self) -> str:
        """Score set of the reference."""
        return str(self.folder / "ref")

    @property
    def base(self) -> str:
        """Score set of the base model."""
        return str(self.folder / "base")

    @property
    def files(self) -> list[Path]:
        """The sets' data files."""
        return list(self.folder.glob("*/data/*.parquet"))

    @property
    def bytes(self) -> int:
        """Bytes of both sets' data files."""
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class _Piece:
    """One unit to be made; sent to the pool."""

    folder: Path
    unit: str
    shard: str
    index: int
    tokens: int
    seed: int
    nulls: bool
    fingerprints: dict[str, str]


def fabricate(folder: Path, n_tokens: int, *, seed: int = 0, nulls: bool = False, workers: int = 2) -> Sets:
    """The two sets below `folder`; made only if they are not there whole.

    nulls: the first token of each document has no loss, and there is a second reference.
    """
    models = (*MODELS, SECOND) if nulls else MODELS
    sets = Sets(folder, n_tokens, models)
    if all((folder / model / SUCCESS).exists() for model in models):
        return sets
    tokenizer = _tokenizer()
    digest = hashlib.sha256(b"".join(tokenizer[name] for name in sorted(tokenizer))).hexdigest()
    manifests = {model: _manifest(model, digest, n_tokens, seed, nulls) for model in models}
    pieces = list(_pieces(folder, n_tokens, seed, nulls, {m: manifests[m]["fingerprint"] for m in models}))
    made: list[tuple[int, dict[str, ScoreCounts]]] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for result in pool.map(_make, pieces):
            made.append(result)
            print(f"\r  score sets: {len(made)} of {len(pieces)} units", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    plan = Plan(root="memory", units=tuple(_planned(p, rows) for p, (rows, _) in zip(pieces, made, strict=True)))
    for model in models:
        store = Folder(str(folder / model))
        for name, content in tokenizer.items():
            store.publish(f"tokenizer/{name}", content)
        store.publish(PLAN, plan.to_parquet())
        store.publish(MANIFEST, dump_json(manifests[model]))
        total = ScoreCounts.total(accounts[model] for _, accounts in made)
        store.publish(SUCCESS, dump_json({"units": len(pieces), **asdict(total)}))
    return sets


def _tokenizer() -> dict[str, bytes]:
    """The demo model's tokenizer, by file name."""
    from demo.model import base_model
    from rho_score.models.tokenizer import tokenizer_files

    return {path.name: path.read_bytes() for path in tokenizer_files(str(base_model()))}


def _manifest(model: str, tokenizer_sha256: str, n_tokens: int, seed: int, nulls: bool) -> dict[str, Any]:
    parts = {
        "schema_version": SCHEMA_VERSION,
        "model": f"fabricated-{model}",
        "tokenizer_sha256": tokenizer_sha256,
        "device": "cpu",
        "dtype": "float32",
        "context": 2048,
        "overlap": 512,
        "prefix_id": None if nulls else 0,
        "text_column": "text",
        "id_column": None,
        "group_column": "source",
        "unit_bytes": 16_000_000,
        "plan_sha256": hashlib.sha256(f"{n_tokens} {seed} {nulls}".encode()).hexdigest(),
        "signals": [],
    }
    return new_manifest("score set", parts, model=f"fabricated-{model}", input={"fabricated": True})


def _pieces(folder: Path, n_tokens: int, seed: int, nulls: bool, fingerprints: dict[str, str]) -> Iterator[_Piece]:
    for index, first in enumerate(range(0, n_tokens, UNIT_TOKENS)):
        shard = f"part-{index // UNITS_PER_SHARD:05d}.parquet"
        place = index % UNITS_PER_SHARD
        slug = hashlib.sha256(f"{shard}\0{place}\0{place + 1}".encode()).hexdigest()[:12]
        yield _Piece(
            folder=folder,
            unit=f"{shard}_{place}-{place + 1}_{slug}",
            shard=shard,
            index=index,
            tokens=min(UNIT_TOKENS, n_tokens - first),
            seed=seed,
            nulls=nulls,
            fingerprints=fingerprints,
        )


def _planned(piece: _Piece, rows: int) -> Unit:
    place = piece.index % UNITS_PER_SHARD
    return Unit(
        unit=piece.unit, shard=piece.shard, format=".parquet", size=4 * piece.tokens, version="fabricated", start=place,
        stop=place + 1, first_row=None, rows=rows, text_bytes=4 * piece.tokens,
    )  # fmt: skip


def _make(piece: _Piece) -> tuple[int, dict[str, ScoreCounts]]:
    """Write one unit of both sets; returns its documents and its accounts by model."""
    random = np.random.default_rng([piece.seed, piece.index])
    lengths = _lengths(random, piece.tokens)
    groups = random.choice(len(GROUPS), len(lengths), p=list(GROUPS.values()))
    ids = list_column(_zipf_table()[random.integers(0, len(_zipf_table()), piece.tokens)], lengths)
    doc_ids = pa.array(
        [f"{piece.shard}#{piece.index % UNITS_PER_SHARD * 10_000_000 + row}" for row in range(len(lengths))]
    )
    base = _base_losses(random, piece.tokens)
    losses = {"ref": _ref_losses(random, base, np.repeat(groups, lengths)), "base": base}
    missing = np.zeros(piece.tokens, bool)
    if piece.nulls:
        missing[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        losses[SECOND] = _ref_losses(random, base, len(GROUPS) - 1 - np.repeat(groups, lengths))
    columns = [doc_ids, pa.array(list(GROUPS)).take(pa.array(groups)), ids]
    digest = content_sha256(pa.chunked_array([doc_ids]), pa.chunked_array([ids]))
    schema = score_schema(grouped=True, prefix=not piece.nulls)
    every = {}
    for model, values in losses.items():
        rounded = values.astype(np.float16).astype(np.float32)
        loss = list_column(pa.array(rounded, pa.float32(), mask=missing), lengths).cast(schema.field("loss").type)
        accounts = every[model] = ScoreCounts(
            documents=len(lengths),
            scored=len(lengths),
            tokens=piece.tokens,
            losses=int(piece.tokens - missing.sum()),
            total_nats=float(rounded[~missing].sum(dtype=np.float64)),
        )
        metadata = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": piece.fingerprints[model],
            "unit": piece.unit,
            "accounts": asdict(accounts),
            "content_sha256": digest,
        }
        table = pa.Table.from_arrays([*columns, loss], schema=schema)
        Folder(str(piece.folder / model)).publish(data_name(piece.unit), parquet_bytes(table, schema, metadata))
    return len(lengths), every


def _lengths(random: np.random.Generator, n_tokens: int) -> np.ndarray:
    """Tokens of each document, int64[n_docs], that add up to `n_tokens`; one document in two thousand is empty."""
    drawn = np.clip(random.lognormal(np.log(MEDIAN_LENGTH), LENGTH_SIGMA, n_tokens // 300 + 16), 1, LONGEST).astype(
        np.int64
    )
    drawn[random.random(len(drawn)) < 1 / 2000] = 0
    ends = np.cumsum(drawn)
    assert ends[-1] >= n_tokens
    lengths = drawn[: int(np.searchsorted(ends, n_tokens)) + 1]
    lengths[-1] -= lengths.sum() - n_tokens
    return lengths


_TABLES: list[np.ndarray] = []


def _zipf_table() -> np.ndarray:
    """Token ids, int32[2**22], each as often as it is likely."""
    if not _TABLES:
        share = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
        points = (np.arange(1 << 22) + 0.5) / (1 << 22) * share[-1]
        _TABLES.append(np.searchsorted(share, points).astype(np.int32))
    return _TABLES[0]


def _base_losses(random: np.random.Generator, n: int) -> np.ndarray:
    """float32[n]: a third of the tokens nearly certain (1e-6 to 0.1 nats), the rest gamma with a mean of 4.4."""
    losses: np.ndarray = random.standard_gamma(1.7, n, np.float32) * np.float32(2.6)
    certain = np.flatnonzero(random.random(n, np.float32) < 0.35)
    losses[certain] = np.exp(random.random(len(certain), np.float32) * np.float32(11.5) - np.float32(13.8))
    return losses


def _ref_losses(random: np.random.Generator, base: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """float32[n]: `base` times a factor near one that is smaller for some groups, plus noise; not below zero."""
    gain = np.linspace(0.72, 0.98, len(GROUPS)).astype(np.float32)[groups]
    noise = random.standard_normal(len(base), np.float32)
    losses: np.ndarray = base * gain * np.exp(noise * np.float32(0.3))
    return losses


def main() -> None:
    """Make both sets of TOKENS tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nulls", action="store_true", help="the first token of each document has no loss")
    given = parser.parse_args()
    sets = cached(given.tokens, seed=given.seed, nulls=given.nulls)
    print(f"{sets.folder}: {sets.bytes / 1e9:.2f} GB, {sets.bytes / 2 / sets.tokens:.2f} bytes a token in each set")


def cached(n_tokens: int, *, seed: int = 0, nulls: bool = False) -> Sets:
    """The sets of that size below out/bench/sets."""
    name = f"{n_tokens}{'-nulls' if nulls else ''}{f'-seed{seed}' if seed else ''}"
    return fabricate(
        ROOT / "out/bench/sets" / name, n_tokens, seed=seed, nulls=nulls, workers=min(2, os.cpu_count() or 1)
    )


if __name__ == "__main__":
    main()
