"""What `rho-score view` takes on a store of TOKENS tokens, in a browser: `python -m bench.view TOKENS`.

The store is a selection of two fabricated score sets: their texts are real (the standard library and CPython's documentation, again
and again), their losses are not. It is written by the package's own writers, once, below out/bench/view. The page is opened in a
headless Chromium.
"""

import argparse
import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.browser import Tab, chromium, tab
from bench.score_sets import _base_losses, _ref_losses, _tokenizer
from bench.texts import _texts
from demo.model import base_model
from rho_score.config import SelectConfig
from rho_score.corpus.plan import Plan
from rho_score.corpus.units import Unit
from rho_score.files.arrow import list_column
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.files.parquet import parquet_bytes
from rho_score.models.encode import encode
from rho_score.models.tokenizer import load_tokenizer
from rho_score.selecting.job import select
from rho_score.stores.counts import ScoreCounts
from rho_score.stores.layout import MANIFEST, PLAN, SUCCESS, data_name
from rho_score.stores.manifest import new_manifest
from rho_score.stores.schema import SCHEMA_VERSION, content_sha256, score_schema

ROOT = Path(__file__).parents[1]
UNIT_TOKENS = 4_000_000
POOL_TOKENS = 6_000_000
LONGEST = 20_000
N_GROUPS = 100
SIGNALS = {"ref": ("entropy", "rank"), "base": ()}


def make(folder: Path, n_tokens: int) -> Path:
    """The selection below `folder`, and the score sets that it is made from; made only if it is not there."""
    if (folder / "selection" / "summary.json").exists():
        return folder / "selection"
    tokenizer = _tokenizer()
    pool = _pool()
    digest = hashlib.sha256(b"".join(tokenizer[name] for name in sorted(tokenizer))).hexdigest()
    manifests = {model: _manifest(model, digest, n_tokens) for model in SIGNALS}
    units, counts = list[Unit](), {model: list[ScoreCounts]() for model in SIGNALS}
    for index, first in enumerate(range(0, n_tokens, UNIT_TOKENS)):
        unit = f"part-{index:05d}.parquet_0-1_{hashlib.sha256(str(index).encode()).hexdigest()[:12]}"
        rows = _make_unit(folder, unit, index, min(UNIT_TOKENS, n_tokens - first), pool, manifests, counts)
        units.append(
            Unit(unit=unit, shard=f"part-{index:05d}.parquet", format=".parquet", size=1, version="fabricated", start=0, stop=1, first_row=0, rows=rows, text_bytes=1)
        )  # fmt: skip
        print(f"\r  {index + 1} units", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for model in SIGNALS:
        store = Folder(str(folder / model))
        for name, content in tokenizer.items():
            store.publish(f"tokenizer/{name}", content)
        store.publish(PLAN, Plan(root="memory", units=tuple(units)).to_parquet())
        store.publish(MANIFEST, dump_json(manifests[model]))
        total = ScoreCounts.total(counts[model])
        store.publish(SUCCESS, dump_json({"units": len(units), **asdict(total)}))
    select(SelectConfig(output=f"{folder}/selection", ref=(f"{folder}/ref",), base=f"{folder}/base", ratio=0.6))
    return folder / "selection"


def _pool() -> list[np.ndarray]:
    """The token ids of real texts, at most `LONGEST` of each."""
    tokenizer, pool, n = load_tokenizer(str(base_model())), list[np.ndarray](), 0
    for text in _texts():
        (ids,) = encode(tokenizer, [text])
        if len(ids):
            pool.append(ids[:LONGEST])
            n += len(pool[-1])
        if n >= POOL_TOKENS:
            break
    return pool


def _manifest(model: str, tokenizer_sha256: str, n_tokens: int) -> dict[str, Any]:
    parts = {
        "schema_version": SCHEMA_VERSION, "model": f"fabricated-{model}", "tokenizer_sha256": tokenizer_sha256, "context": 2048,
        "overlap": 512, "prefix_id": 0, "text_column": "text", "id_column": "id", "group_column": "source", "n_tokens": n_tokens,
        "signals": SIGNALS[model],
    }  # fmt: skip
    return new_manifest("score set", parts, model=f"fabricated-{model}", input={"fabricated": True})


def _make_unit(
    folder: Path, unit: str, index: int, n_tokens: int, pool: list[np.ndarray], manifests: dict[str, Any],
    counts: dict[str, list[ScoreCounts]],
) -> int:  # fmt: skip
    """Writes one unit of both score sets; returns the number of its documents."""
    random = np.random.default_rng([7, index])
    documents = list(_some(random, pool, n_tokens))
    lengths, ids = np.array([len(d) for d in documents]), np.concatenate(documents)
    groups = random.zipf(1.3, len(documents)).clip(1, N_GROUPS) - 1
    doc_ids = pa.array([f"texts/{index:04d}/{row:06d}" for row in range(len(documents))])
    names = pa.array([f"source-{group:03d}" for group in groups])
    base = _base_losses(random, len(ids))
    losses = {"base": base, "ref": _ref_losses(random, base, np.repeat(groups % 8, lengths))}
    extra = {
        "entropy": (losses["ref"] * 0.8 + 0.3).astype(np.float16).astype(np.float32),
        "rank": np.exp(np.minimum(losses["ref"] * 1.2, 20)).clip(1, 49_000).astype(np.int32) - 1,
    }
    column = list_column(ids.astype(np.int32), lengths)
    for model, signals in SIGNALS.items():
        schema = score_schema(grouped=True, signals=signals, prefix=True)
        values = losses[model].astype(np.float16).astype(np.float32)
        lists = [
            list_column(values, lengths).cast(schema.field("loss").type),
            *(list_column(extra[name], lengths) for name in signals),
        ]
        table = pa.Table.from_arrays([doc_ids, names, column, *lists], schema=schema)
        mine = ScoreCounts(
            documents=len(table),
            scored=len(table),
            tokens=len(ids),
            losses=len(ids),
            total_nats=float(values.sum(dtype=np.float64)),
        )
        counts[model].append(mine)
        metadata = {
            "schema_version": SCHEMA_VERSION, "fingerprint": manifests[model]["fingerprint"], "unit": unit, "accounts": asdict(mine),
            "content_sha256": content_sha256(table["doc_id"], table["input_ids"]),
        }  # fmt: skip
        Folder(str(folder / model)).publish(data_name(unit), parquet_bytes(table, schema, metadata))
    return len(documents)


def _some(random: np.random.Generator, pool: list[np.ndarray], n_tokens: int) -> Iterator[np.ndarray]:
    """Documents of the pool, in a random order, that have so many tokens; most of them are cut at a random place."""
    left = n_tokens
    while left > 0:
        ids = pool[int(random.integers(len(pool)))]
        if random.random() > 0.02:
            ids = ids[: int(random.lognormal(6, 1.2)) + 1]
        yield ids[:left]
        left -= len(ids)


async def measure(address: str, url: str) -> dict[str, float]:
    """Seconds that each action of a reader takes."""
    found: dict[str, float] = {}
    start = time.monotonic()
    async with tab(address, url) as page:
        await page.until("document.body?.dataset.ready === 'yes'", 120)
        found["everything but the list"] = time.monotonic() - start
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
        found["first paint"] = await page.value(paint)
        await page.until("document.querySelectorAll('#documents li').length > 0", 120)
        await page.until("document.getElementById('progress').hidden", 1200)
        found["index"] = time.monotonic() - start
        for place in (200, 350, 500, 650, 800):
            found["slider"] = max(found.get("slider", 0), await page.value(_SLIDE.replace("PLACE", str(place))))
        await _sorted(page, found)
        longest = await page.value("document.querySelector('#documents li').dataset.doc")
        found["document of 20,000 tokens"] = await page.value(_OPEN.replace("DOC", longest))
        await _choose(page, "sort", "order")
        for row in (1, 20, 40):
            doc = await page.value(f"document.querySelectorAll('#documents li')[{row}].dataset.doc")
            found["document"] = max(found.get("document", 0), await page.value(_OPEN.replace("DOC", doc)))
        start = time.monotonic()
        await page.value("(e => { e.value = 'argparse'; e.form.requestSubmit() })(document.getElementById('text'))")
        await page.until("/searched|first/.test(document.getElementById('search-note').textContent)", 600)
        found["search until it ends"] = time.monotonic() - start
        assert not page.complaints, page.complaints
    return found


_SLIDE = """new Promise(done => {
  const [kept, slider, start] = [document.getElementById('kept'), document.getElementById('slider'), performance.now()];
  new MutationObserver(() => done((performance.now() - start) / 1000)).observe(kept, {childList: true, characterData: true, subtree: true});
  slider.value = PLACE; slider.dispatchEvent(new Event('input'));
})"""
_OPEN = """new Promise(done => {
  const start = performance.now();
  const look = new MutationObserver(() => {
    if (document.querySelector('.doc span[class^=h]')) { look.disconnect(); requestAnimationFrame(() => done((performance.now() - start) / 1000)); }
  });
  document.getElementById('document').replaceChildren();
  look.observe(document.getElementById('document'), {childList: true, subtree: true, attributes: true});
  document.querySelector('[data-doc="DOC"] button').click();
})"""


async def _sorted(page: Tab, found: dict[str, float]) -> None:
    for name in ("mean", "share", "tokens"):
        start = time.monotonic()
        await _choose(page, "sort", name)
        found["sorting"] = max(found.get("sorting", 0), time.monotonic() - start)


async def _choose(page: Tab, select_id: str, value: str) -> None:
    old = await page.value("document.querySelector('#documents li')?.dataset.doc")
    await page.value(
        f"(e => {{ e.value = '{value}'; e.dispatchEvent(new Event('change')) }})(document.getElementById('{select_id}'))"
    )
    await page.until(f"document.querySelector('#documents li')?.dataset.doc !== '{old}'")


def main() -> None:
    """Makes the store and prints what each action takes, with a new index and with the one of before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", type=int, nargs="?", default=100_000_000)
    given = parser.parse_args()
    folder = ROOT / "out/bench/view" / str(given.tokens)
    store = make(folder, given.tokens)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    command = [sys.executable, "-m", "rho_score", "view", str(store), "--no-browser", "--cache", str(folder / "cache")]
    for index in ("new", "of before"):
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            print(f"index: {index}; the URL is printed after {time.monotonic() - start:.2f} s")
            with chromium(folder / "chromium") as address:
                for name, seconds in asyncio.run(measure(address, url)).items():
                    print(f"  {name:<28} {seconds:8.3f} s")
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
