"""`python -m bench.dedup`: the speed of signatures on real text, in one thread, step by step, and of whole deduplications."""

import argparse
import json
import os
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

os.environ["RAYON_NUM_THREADS"] = "1"

from rho_score.config import DedupConfig
from rho_score.deduplicating.bands import band_keys, choose_bands, packed
from rho_score.deduplicating.job import dedup
from rho_score.deduplicating.shingles import shingle_hashes, signatures, words_of

R = TypeVar("R")
CHARACTERS = 4_000  # of a document: what modules of the standard library are cut into
PERMUTATIONS, SHINGLE, SIMILARITY = 128, 5, 0.8


def real_texts(megabytes: float) -> list[str]:
    """Modules of the standard library and of the packages that are installed, in pieces of some thousand characters."""
    texts: list[str] = []
    left = megabytes * 1e6
    for name in ("stdlib", "purelib"):
        for module in sorted(Path(sysconfig.get_paths()[name]).rglob("*.py")):
            if name == "stdlib" and "site-packages" in module.parts:
                continue
            whole = module.read_text(errors="replace")
            pieces = [whole[at : at + CHARACTERS] for at in range(0, len(whole), CHARACTERS)]
            texts += pieces
            left -= len(whole)
            if left < 0:
                return texts
    return texts


def timed(what: str, work: Callable[[], R], n_documents: int, size: int) -> R:
    """What `work` returns; prints its speed in the processor's time, which other work on the machine does not count into."""
    started = time.process_time()
    done = work()
    seconds = time.process_time() - started
    print(f"{what:<32} {n_documents / seconds:>12,.0f} documents/s {size / seconds / 1e6:>8.1f} MB/s")
    return done


def main() -> None:
    """Prints a line for each step."""
    parser = argparse.ArgumentParser(prog="python -m bench.dedup", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=40.0, help="real text to read")
    texts = real_texts(parser.parse_args().megabytes)
    size, n = sum(len(text.encode(errors="replace")) for text in texts), len(texts)
    print(f"{n:,} documents, {size / 1e6:.0f} MB, {PERMUTATIONS} permutations, shingles of {SHINGLE} words")
    words = timed("words", lambda: [words_of(text) for text in texts], n, size)
    timed("hashes of shingles", lambda: shingle_hashes(words, SHINGLE), n, size)
    signed = timed("hashes and signatures", lambda: signatures(words, SHINGLE, PERMUTATIONS), n, size)
    bands = choose_bands(SIMILARITY, PERMUTATIONS)
    timed("keys of bands and packing", lambda: (band_keys(signed, bands), packed(signed)), n, size)
    with tempfile.TemporaryDirectory() as folder:
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        Path(folder, "a.jsonl").write_text("".join(lines), errors="replace")
        config = DedupConfig(input=f"{folder}/a.jsonl", output=f"{folder}/out", workers=1)
        summary = timed("rho-score dedup --workers 1", lambda: dedup(config), n, size)
        print(summary.counts)


if __name__ == "__main__":
    main()
